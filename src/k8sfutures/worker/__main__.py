"""The worker program: ``python -m k8sfutures.worker [FILE]``; it runs one pod.

See `program` for the whole of it. This part is done before anything else is imported: the zygote
gets its CPU processes ready while its agent imports what it takes to reach the broker.
"""

from __future__ import annotations

import os

from .parentage import fork_zygote


def main() -> None:
    """Run one pod until it ends itself or is told to."""
    # What whoever started us has left open, such as a lock of the program's, is nobody's here.
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    parentage = fork_zygote()
    from .processes import ZygoteHandle
    from .program import run

    run(ZygoteHandle(*parentage))


if __name__ == "__main__":
    main()
