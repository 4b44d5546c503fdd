"""Memory that the agent and its CPU processes share: one file in memory for each bulky thing.

Nameless (``memfd_create``, Linux), and passed through sockets as open files: when the last
process that has one is gone, so is the memory, whatever has died. It counts as the pod's.
"""

from __future__ import annotations

import functools
import mmap
import os
import pickle
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final

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
    return _mapped(descriptor, size, mmap.ACCESS_COPY)


def view(descriptor: int, size: int) -> memoryview:
    """A file's bytes, to be read."""
    return _mapped(descriptor, size, mmap.ACCESS_READ)


if sys.version_info >= (3, 13):

    def _mapped(descriptor: int, size: int, access: int) -> memoryview:
        return memoryview(mmap.mmap(descriptor, size, access=access, trackfd=False))

else:

    def _mapped(descriptor: int, size: int, access: int) -> memoryview:
        """Memory that keeps no descriptor: those of `mmap` do, and calls may keep many arrays."""
        import ctypes

        protection, flags = mmap.PROT_READ, mmap.MAP_SHARED
        if access == mmap.ACCESS_COPY:
            protection, flags = mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE
        library = _library()
        address = library.mmap(None, size, protection, flags, descriptor, 0)
        if address == ctypes.c_void_p(-1).value:
            problem = ctypes.get_errno()
            raise OSError(problem, f"cannot map {size} bytes: {os.strerror(problem)}")
        memory = (ctypes.c_ubyte * size).from_address(address)
        weakref.finalize(memory, library.munmap, address, size).atexit = False
        whole = pickle.PickleBuffer(memory).raw()  # which makes plain bytes of it
        return whole if access == mmap.ACCESS_COPY else whole.toreadonly()

    @functools.cache
    def _library() -> Any:
        import ctypes

        library = ctypes.CDLL(None, use_errno=True)
        library.mmap.restype = ctypes.c_void_p
        library.mmap.argtypes = (
            *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
            ctypes.c_long,
        )
        library.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
        return library


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
