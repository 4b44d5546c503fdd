"""The blobs of a pod's clients, kept in memory that CPU processes share."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from typing import Any, Final

from ..messages import CHUNK_SIZE, Chunk
from . import shared_memory
from .frames import BLOBS

logger = logging.getLogger(__name__)

SHARED: Final = 1024 * 1024
"""Bytes from which on a blob is in shared memory; a smaller one is sent to each process. One
open file in the agent, and in each CPU process that has the blob."""


_LONGEST_FRAME: Final = 16 * 1024 * 1024
"""Bytes of small blobs in one frame, about; msgpack takes less than 4 GiB."""


class Blob:
    """A blob, or as much of it as has arrived.

    Attributes:
        kind: `messages.DATA` or `messages.MODULES`.
        size: bytes of the whole.
        descriptor: of the file in memory, or None where it is small.
        data: its bytes where it is small.
    """

    __slots__ = ("data", "descriptor", "have", "kind", "size")

    def __init__(self, kind: int, size: int) -> None:
        self.kind = kind
        self.size = size
        self.have = 0
        self.data = bytearray()
        self.descriptor: int | None = None
        if size >= SHARED:
            try:
                self.descriptor = shared_memory.new(size)
            except OSError as error:
                if error.errno != errno.EMFILE:
                    raise
                # Each process gets a copy, as it does of what is small.
                logger.warning("this pod has no more open files for what is bulky: %s", error)

    def write(self, start: int, piece: bytes | memoryview) -> None:
        """Put a piece where it belongs."""
        if self.descriptor is None:
            self.data += piece
        else:
            done = 0
            while done < len(piece):
                done += os.pwrite(self.descriptor, memoryview(piece)[done:], start + done)
        self.have = start + len(piece)

    def close(self) -> None:
        """Let go of it."""
        if self.descriptor is not None:
            os.close(self.descriptor)


class Store:
    """See the module's text."""

    def __init__(self) -> None:
        self._complete: dict[str, dict[int, Blob]] = {}
        self._incomplete: dict[str, dict[int, Blob]] = {}

    def frames(self, client: str, blobs: Iterable[int]) -> tuple[list[tuple[Any, ...]], list[int]]:
        """How a CPU process gets blobs that are complete.

        Returns:
            Frames of `frames.BLOBS`, and the descriptors that go with them, in order.
        """
        rows: list[tuple[int, int, bytes | None]] = []
        frames: list[tuple[Any, ...]] = [(BLOBS, client, rows)]
        files: list[int] = []
        size = 0
        for number in blobs:
            blob = self._complete[client][number]
            if blob.descriptor is not None:
                files.append(blob.descriptor)
                rows.append((number, blob.kind, None))
                continue
            if size + blob.size > _LONGEST_FRAME:
                rows = []
                frames.append((BLOBS, client, rows))
                size = 0
            size += blob.size
            rows.append((number, blob.kind, bytes(blob.data)))
        return frames, files

    def add(self, client: str, chunk: Chunk) -> bool:
        """Take in a chunk; one out of order is dropped, and its blob with it.

        Returns:
            Whether the blob is complete.
        """
        blobs = self._incomplete.setdefault(client, {})
        if chunk.index == 0:
            self._drop(blobs, chunk.subject)
            blobs[chunk.subject] = Blob(chunk.item, chunk.size)
        blob = blobs.get(chunk.subject)
        start = chunk.index * CHUNK_SIZE
        if blob is None or blob.have != start or start + len(chunk.tail) > blob.size:
            logger.warning("dropped a piece of blob %d of %s", chunk.subject, client)
            self._drop(blobs, chunk.subject)
            return False
        blob.write(start, chunk.tail)
        if blob.have < blob.size:
            return False
        complete = self._complete.setdefault(client, {})
        self._drop(complete, chunk.subject)
        complete[chunk.subject] = blobs.pop(chunk.subject)
        return True

    def begin_anew(self, client: str) -> None:
        """What has arrived in part will not be completed."""
        self._clear(self._incomplete.pop(client, {}))

    def release(self, client: str, blobs: Iterable[int]) -> None:
        """Let go of these blobs."""
        for known in (self._complete.get(client, {}), self._incomplete.get(client, {})):
            for blob in blobs:
                self._drop(known, blob)

    def forget(self, client: str) -> None:
        """A client has left."""
        self.begin_anew(client)
        self._clear(self._complete.pop(client, {}))

    def _clear(self, blobs: dict[int, Blob]) -> None:
        for blob in blobs.values():
            blob.close()

    @staticmethod
    def _drop(blobs: dict[int, Blob], blob: int) -> None:
        known = blobs.pop(blob, None)
        if known is not None:
            known.close()
