"""Which blobs a pod has, or has under way to it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from .blobs import Blob
from .lanes import Bulk, Lane
from .messages import Chunk, Message


class Freight:
    """The blobs of one pod."""

    def __init__(self) -> None:
        self._lane = Lane()
        self._known: set[int] = set()
        self._loading: set[int] = set()  # of which chunks wait here
        self._ended: set[int] = set()  # known, and to be forgotten

    def add(self, blobs: Iterable[Blob]) -> None:
        """The pod needs these; those that it does not have go on their way."""
        for blob in blobs:
            if blob.id not in self._known:
                self._known.add(blob.id)
                self._loading.add(blob.id)
                self._lane.put(Bulk(blob.id, blob.kind, blob.data))

    def has(self, blobs: Iterable[int], is_alive: Callable[[int], bool]) -> None:
        """The pod says that it has these.

        Args:
            blobs: their ids.
            is_alive: whether a blob may still be needed; others have ended while the pod was
                away, and it is told with the next `release`.
        """
        self._known.update(blobs)
        self._ended.update(blob for blob in blobs if not is_alive(blob))

    def release(self, gone: Iterable[int]) -> list[int]:
        """Which blobs the pod is to forget.

        Args:
            gone: those that no call will need, since the last time.

        Returns:
            Those of them, and of earlier ones, that are with the pod as a whole. What is told
            to a pod overtakes the chunks that wait for it, so the others come later.
        """
        self._ended |= self._known.intersection(gone)
        released = sorted(self._ended - self._loading)
        self._ended.difference_update(released)
        self._known.difference_update(released)
        return released

    def credit(self, size: int) -> None:
        """The pod has taken so many bytes."""
        self._lane.credit(size)

    def take(self) -> Iterator[Message]:
        """The chunks that may be sent now."""
        for message in self._lane.take():
            if isinstance(message, Chunk) and message.is_last:
                self._loading.discard(message.subject)
            yield message

    def begin_anew(self) -> None:
        """What was under way may be lost; what the pod has is not known."""
        self._lane.reset()
        self._known.clear()
        self._loading.clear()
        self._ended.clear()
