"""Bulky bodies on their way to one peer: in chunks, and no more at once than the peer takes.

Pure: messages go in, and come out when they may be sent. A chunk may be sent while fewer than
`WINDOW` bytes are under way, which the peer has not said to have taken (`messages.Credit`). So
the broker holds no more than a window for each peer, and a peer that is slow slows who sends.
Results that are large together, though none of them is bulky, count as chunks do.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from .messages import CHUNK_SIZE, Chunk, Message

WINDOW: Final = 16 * CHUNK_SIZE
"""Bytes under way to one peer: at 1 GB/s as long as 16 ms, and the way back takes 1 or 2."""

CREDIT_EVERY: Final = 4 * CHUNK_SIZE
"""Bytes after which who receives says so."""

COUNTED: Final = 64 * 1024
"""Bytes of a message's bodies from which on they count."""


def weight_of(size: int) -> int:
    """What a message counts for, as both sides see it, whose bodies have so many bytes."""
    return size if size >= COUNTED else 0


class Bulk:
    """A bulky body that is sent; see `messages.Chunk` for what the numbers mean."""

    __slots__ = ("_data", "_index", "_item", "_subject")

    def __init__(self, subject: int, item: int, data: bytes | memoryview) -> None:
        self._subject = subject
        self._item = item
        self._data = memoryview(data)
        self._index = 0

    def next(self) -> Chunk | None:
        """The next chunk, or None after the last."""
        start = self._index * CHUNK_SIZE
        if start >= len(self._data) and self._index:
            return None
        piece = self._data[start : start + CHUNK_SIZE]
        chunk = Chunk(self._subject, self._item, self._index, len(self._data), piece)
        self._index += 1
        return chunk


class Lane:
    """What waits for one peer, in order."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Message | Bulk, int]] = deque()
        self._under_way = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits, so that a message need not be put in here."""
        return not self._waiting

    def put(self, item: Message | Bulk, weight: int = 0) -> None:
        """Something to send after all that waits.

        Args:
            item: it.
            weight: of a message, see `weight_of`.
        """
        self._waiting.append((item, weight))

    def credit(self, size: int) -> None:
        """The peer has taken so many bytes."""
        self._under_way = max(0, self._under_way - size)

    def reset(self) -> None:
        """The connection was lost, and all that was under way with it; nothing waits any more."""
        self._waiting.clear()
        self._under_way = 0

    def take(self) -> Iterator[Message]:
        """The messages that may be sent now, in order."""
        while self._waiting:
            head, weight = self._waiting[0]
            if not isinstance(head, Bulk):
                if weight and self._under_way >= WINDOW:
                    return
                self._waiting.popleft()
                self._under_way += weight
                yield head
                continue
            if self._under_way >= WINDOW:
                return
            chunk = head.next()
            if chunk is None:
                self._waiting.popleft()
                continue
            self._under_way += len(chunk.tail)
            yield chunk


class Taken:
    """Counts what arrives from one peer, and says when to tell it."""

    def __init__(self) -> None:
        self._untold = 0

    def add(self, size: int, *, last: bool) -> int:
        """So many bytes have arrived; returns how many to tell the peer of now, or 0.

        Args:
            size: of a chunk.
            last: whether it completes its body.
        """
        self._untold += size
        if self._untold < CREDIT_EVERY and not last:
            return 0
        told, self._untold = self._untold, 0
        return told
