"""Bulky bodies: cut into chunks that every broker takes, and put together again."""

from __future__ import annotations

from .messages import CHUNK_SIZE, INLINE_LIMIT, Chunk, Outcome, Results


def chunks_of(call: int, item: int, body: bytes) -> list[Chunk]:
    """Cut a bulky body.

    Args:
        call: id of the call that it belongs to.
        item: -1 for the call's arguments, else the item whose outcome this is.
        body: all of it.

    Returns:
        The chunks, in order.
    """
    count = -(-len(body) // CHUNK_SIZE)
    view = memoryview(body)
    return [
        Chunk(call, item, index, count, view[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE])
        for index in range(count)
    ]


def without_bulk(results: Results) -> tuple[list[Chunk], Results]:
    """Take the bulky bodies out of results.

    Args:
        results: to be sent.

    Returns:
        The chunks to send ahead, and the results with None in the place of each such body.
    """
    chunks: list[Chunk] = []
    outcomes: list[Outcome] = []
    for outcome in results.outcomes:
        call, item, status, micros, body = outcome
        if body is not None and len(body) > INLINE_LIMIT:
            chunks += chunks_of(call, item, body)
            outcomes.append((call, item, status, micros, None))
        else:
            outcomes.append(outcome)
    return (chunks, Results(results.number, outcomes)) if chunks else ([], results)


class Assembly:
    """Puts chunks together again, for one sender."""

    def __init__(self) -> None:
        self._parts: dict[tuple[int, int], tuple[int, list[bytes | memoryview]]] = {}

    def add(self, chunk: Chunk) -> None:
        """Keep a chunk; a first one starts its body anew, one out of order drops the body."""
        key = (chunk.call, chunk.item)
        if chunk.index == 0:
            self._parts[key] = (chunk.count, [chunk.tail])
            return
        count, parts = self._parts.get(key, (0, []))
        if len(parts) == chunk.index and count == chunk.count:
            parts.append(chunk.tail)
        else:
            self._parts.pop(key, None)

    def take(self, call: int, item: int) -> bytes | None:
        """The whole body, once; None where a chunk of it has not come."""
        count, parts = self._parts.pop((call, item), (0, []))
        if not parts or len(parts) != count:
            return None
        return b"".join(parts)
