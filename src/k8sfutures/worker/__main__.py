"""The worker program: ``python -m k8sfutures.worker [FILE]``; it runs one pod.

See `program` for the whole of it. This part is done before anything else is imported: the zygote
gets its CPU processes ready while its agent imports what it takes to reach the broker.
"""

from __future__ import annotations

import contextlib
import os

from .parentage import fork_zygote


def main() -> None:
    """Run one pod until it ends itself or is told to."""
    _close_what_was_left_open()
    parentage = fork_zygote()
    from .processes import ZygoteHandle
    from .program import run

    run(ZygoteHandle(*parentage))


def _close_what_was_left_open() -> None:
    """What whoever started us had open, such as a lock of the program's, is nobody's here."""
    # Not `os.closerange`: a container's limit may be 2**30, and before Linux 5.9 it tries them all.
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  # pathlib is not imported yet
        with contextlib.suppress(OSError):  # the folder's own
            if int(name) > 2:
                os.close(int(name))


if __name__ == "__main__":
    main()
