"""Chunks of what is bulky, put together again."""

from __future__ import annotations

from typing import Final

from .messages import CHUNK_SIZE, Chunk

AT_FIRST: Final = 32 * CHUNK_SIZE
"""Bytes of memory for a body at once, whatever size its first chunk says that it has."""


class Assembly:
    """Puts the outcomes of one pod together."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], tuple[bytearray, int, int]] = {}

    def add(self, chunk: Chunk) -> bool:
        """Keep a chunk; a first one starts its body anew, one out of order drops the body.

        Returns:
            Whether the body is complete.
        """
        key = (chunk.subject, chunk.item)
        if chunk.index == 0:
            self._parts[key] = (bytearray(min(chunk.size, AT_FIRST)), 0, chunk.size)
        memory, have, size = self._parts.get(key, (bytearray(), -1, 0))
        start = chunk.index * CHUNK_SIZE
        end = start + len(chunk.tail)
        if start != have or end > size:
            self._parts.pop(key, None)
            return False
        while end > len(memory):  # twice as much as has come, at most
            memory.extend(bytes(min(len(memory), size - len(memory))))
        memory[start:end] = chunk.tail
        self._parts[key] = (memory, end, size)
        return end == size

    def take(self, call: int, item: int) -> bytearray | None:
        """The whole body, once; None where a chunk of it has not come."""
        memory, have, size = self._parts.pop((call, item), (bytearray(), -1, 0))
        return memory if have == size else None


class Whole(bytes):
    """The body of an outcome whose parts have arrived."""

    memory: bytearray

    @classmethod
    def of(cls, body: bytes, memory: bytearray) -> Whole:
        """A body, and the memory that its parts are in."""
        made = cls(body)
        made.memory = memory
        return made
