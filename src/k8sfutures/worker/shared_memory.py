"""Memory that the agent and its CPU processes share: one file in memory for each bulky thing.

Nameless (``memfd_create``, Linux), and passed through sockets as open files: when the last
process that has one is gone, so is the memory, whatever has died. It counts as the pod's.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Sequence
from typing import Final

_MOST: Final = 1024
"""Pieces in one write; the kernel takes no more (IOV_MAX)."""


def new(size: int) -> int:
    """An empty file of so many bytes; returns its descriptor."""
    descriptor = os.memfd_create("k8sfutures")
    os.ftruncate(descriptor, size)
    return descriptor


def holding(pieces: Sequence[bytes | memoryview]) -> int:
    """A file that holds these bytes, one after the other; returns its descriptor."""
    descriptor = os.memfd_create("k8sfutures")
    left = [memoryview(piece) for piece in pieces if len(piece)]
    while left:
        done = os.writev(descriptor, left[:_MOST])
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if left:
            left[0] = left[0][done:]
    return descriptor


def own_copy(descriptor: int, size: int) -> memoryview:
    """A file's bytes, to be changed without anybody else's seeing it.

    Nothing is copied but the pages that are written to (a private mapping).
    """
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY))


def view(descriptor: int, size: int) -> memoryview:
    """A file's bytes, to be read."""
    return memoryview(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ))


def close(descriptors: Iterable[int]) -> None:
    """Let go of files; mappings of them stay."""
    for descriptor in descriptors:
        os.close(descriptor)


class Shared(bytes):
    """The body of an outcome whose parts a CPU process has put into shared memory."""

    memory: memoryview

    @classmethod
    def of(cls, body: bytes, descriptor: int) -> Shared:
        """A body, and the file with its parts, which is closed here."""
        made = cls(body)
        try:
            made.memory = view(descriptor, os.fstat(descriptor).st_size)
        finally:
            os.close(descriptor)
        return made
