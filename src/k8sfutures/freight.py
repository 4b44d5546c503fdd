"""Which blobs a pod has, or has under way to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from .blobs import Blob
from .lanes import Bulk, Lane
from .messages import Message


class Freight:
    """The blobs of one pod."""

    def __init__(self) -> None:
        self._lane = Lane()
        self._known: set[int] = set()

    def add(self, blobs: Iterable[Blob]) -> None:
        """The pod needs these; those that it does not have go on their way."""
        for blob in blobs:
            if blob.id not in self._known:
                self._known.add(blob.id)
                self._lane.put(Bulk(blob.id, blob.kind, blob.data))

    def has(self, blobs: Iterable[int]) -> None:
        """The pod says that it has these."""
        self._known.update(blobs)

    def release(self, gone: Iterable[int]) -> list[int]:
        """Which of these blobs, that no call will need, the pod is to forget."""
        released = sorted(self._known.intersection(gone))
        self._known.difference_update(released)
        return released

    def credit(self, size: int) -> None:
        """The pod has taken so many bytes."""
        self._lane.credit(size)

    def take(self) -> Iterator[Message]:
        """The chunks that may be sent now."""
        return self._lane.take()

    def begin_anew(self) -> None:
        """What was under way may be lost; what the pod has is not known."""
        self._lane.reset()
        self._known.clear()
