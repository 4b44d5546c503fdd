"""Memory for what is bulky."""

from __future__ import annotations

from typing import Final

_LARGE: Final = 31 * 1024 * 1024


def get_used_to_bulk() -> None:
    """Have the C library keep the memory of large blocks for the next ones.

    glibc maps each large block anew, and gives it back at once, until it has seen one of that
    size freed: then it raises its threshold for good (``M_MMAP_THRESHOLD`` in mallopt(3), at most
    32 MiB). Until then the kernel clears and maps every page of every message. With that, what is
    bulky takes four times the CPU time to receive, and comes in at 0.6 times the rate.
    """
    bytearray(_LARGE)  # never touched, so this takes some microseconds and no memory
