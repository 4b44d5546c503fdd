"""Chunks of what is bulky, put together again."""

from __future__ import annotations

from .messages import CHUNK_SIZE, Chunk


class Assembly:
    """Puts the outcomes of one pod together."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], tuple[bytearray, int]] = {}

    def add(self, chunk: Chunk) -> bool:
        """Keep a chunk; a first one starts its body anew, one out of order drops the body.

        Returns:
            Whether the body is complete.
        """
        key = (chunk.subject, chunk.item)
        if chunk.index == 0:
            self._parts[key] = (bytearray(chunk.size), 0)
        memory, have = self._parts.get(key, (bytearray(), -1))
        start = chunk.index * CHUNK_SIZE
        if start != have or start + len(chunk.tail) > len(memory):
            self._parts.pop(key, None)
            return False
        memory[start : start + len(chunk.tail)] = chunk.tail
        self._parts[key] = (memory, start + len(chunk.tail))
        return start + len(chunk.tail) == len(memory)

    def take(self, call: int, item: int) -> bytearray | None:
        """The whole body, once; None where a chunk of it has not come."""
        memory, have = self._parts.pop((call, item), (bytearray(), -1))
        return memory if have == len(memory) else None


class Whole(bytes):
    """The body of an outcome whose parts have arrived."""

    memory: bytearray

    @classmethod
    def of(cls, body: bytes, memory: bytearray) -> Whole:
        """A body, and the memory that its parts are in."""
        made = cls(body)
        made.memory = memory
        return made
