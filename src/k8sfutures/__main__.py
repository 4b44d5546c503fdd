"""``python -m k8sfutures``: the same as the command ``k8sfutures``."""

import sys

from .cli import main

sys.exit(main())
