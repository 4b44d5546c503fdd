"""What is bulky, as a CPU process has it: the blobs of calls, and the outcomes of its own."""

from __future__ import annotations

import os
import pickle
from collections import deque
from collections.abc import Sequence

from ..bodies import with_parts
from ..messages import INLINE_LIMIT
from . import shared_memory


class Blob:
    """A blob that the agent has passed on: bytes, or a file in memory.

    Args:
        kind: `messages.DATA` or `messages.MODULES`.
        size: bytes.
        data: they, or None where the next of the files has them.
        files: descriptors that have come.
    """

    __slots__ = ("_data", "_descriptor", "_size", "kind")

    def __init__(self, kind: int, size: int, data: bytes | None, files: deque[int]) -> None:
        self.kind = kind
        self._size = size
        self._data = data
        self._descriptor = files.popleft() if data is None else -1

    def own_copy(self) -> memoryview:
        """Its bytes, to be changed without anybody else's seeing it."""
        if self._data is not None:
            return memoryview(bytearray(self._data))
        return shared_memory.own_copy(self._descriptor, self._size)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def outcome_body(
    segments: Sequence[bytes], buffers: Sequence[pickle.PickleBuffer]
) -> tuple[bytes, int | None]:
    """The body of an outcome, and the file that holds its bulky parts, if there are any.

    Args:
        segments: of its pickle.
        buffers: those that are out of band.
    """
    if not buffers and len(segments) == 1 and len(segments[0]) <= INLINE_LIMIT:
        return segments[0], None
    parts: list[bytes | memoryview] = []

    def number_of(part: bytes | memoryview) -> int:
        parts.append(part)
        return len(parts) - 1

    numbers = [
        segment if len(segment) <= INLINE_LIMIT else number_of(segment) for segment in segments
    ]
    outside = [number_of(buffer.raw()) for buffer in buffers]
    body = with_parts(numbers, outside, [len(part) for part in parts])
    return body, shared_memory.holding(parts)
