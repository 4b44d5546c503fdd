"""Memory for what is bulky."""

from __future__ import annotations

import functools
from typing import Final

MOST_KEPT: Final = 256 * 1024 * 1024
"""Bytes of what is bulky that a pod keeps for a client at most: outcomes that it does not take, and
as much again of blobs that no call needs at the moment."""

PART_OF_MEMORY: Final = 8
"""The part of a pod's memory that either may take: the rest is for calls, and for their data."""

_LARGE: Final = 31 * 1024 * 1024


@functools.cache
def get_used_to_bulk() -> None:
    """Have the C library keep the memory of large blocks for the next ones.

    glibc maps each large block anew, and gives it back at once, until it has seen one of that
    size freed: then it raises its threshold for good (``M_MMAP_THRESHOLD`` in mallopt(3), at most
    32 MiB). Until then the kernel clears and maps every page of every message. With that, what is
    bulky takes four times the CPU time to receive, and comes in at 0.6 times the rate.

    Once for each process: such a block would not be mapped any more, but cleared, and stay with
    the arena of the thread that asked for it.
    """
    bytes(_LARGE)  # never touched, unlike a bytearray: it takes some microseconds and no memory
