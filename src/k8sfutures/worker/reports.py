"""What the zygote reports to its agent, and how it is started; see `zygote`, and `processes`.

The agent imports this and not the zygote: what CPU processes need would hold up a pod's start.
"""

from __future__ import annotations

import signal
from typing import Final

ZYGOTE: Final = f"{__package__}.zygote"
"""The module that is run."""


class ZygoteKilled(RuntimeError):
    """Somebody has killed the zygote, and so its CPU processes: another pod would go on."""


STARTED: Final = 0
ENDED: Final = 1
STOPPED: Final = 2
"""By a signal, SIGSTOP for one; a debugger's stops are not told to us."""
CONTINUED: Final = 3

END_SIGNAL: Final = signal.SIGRTMAX - 4
"""Has a CPU process say where Python is, in whatever code, and die. A signal that nothing else
uses: who starts processes in a call may send them SIGTERM, and must not read of it."""
