"""The maps of an executor: their items, which wait here, and their results.

No Future for each item. The caller's thread adds items and takes results in order; the manager
thread pickles the items of a range when it is dispatched and puts outcomes in. One lock for
each map, held for no longer than a few operations on a dict.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from concurrent.futures import CancelledError
from typing import Any

import msgpack

from .blobs import Blob, Blobs, Bulky, blobs_of
from .functions import PickledFunction
from .messages import RESULT
from .options import Options
from .outcomes import failure_of, loaded
from .scheduler_events import Range
from .unpicklable import blame

Outcome = tuple[int, bytes | None] | BaseException


class Map:
    """One call of ``map``.

    Args:
        map_id: its number in the executor.
        function: what is applied.
        blobs: of the executor; bulky parts of items are among them.
        options: for each item, if any were chosen.
    """

    def __init__(
        self,
        map_id: int,
        function: PickledFunction,
        blobs: Blobs,
        options: Options | None = None,
    ) -> None:
        self.id = map_id
        self.function = function
        self.options = options
        self._blobs = blobs
        self._shared: set[Blob] = set()  # blobs of several items, kept for those to come
        self.growing = False
        """Whether the caller may still add items."""
        self._items: dict[int, tuple[Any, ...]] = {}
        self._added = 0
        self._outcomes: dict[int, Outcome] = {}
        self._error: BaseException | None = None
        self._cancelled_from: int | None = None
        self._changed = threading.Condition()
        self._awaited: int | None = None

    @property
    def unsettled(self) -> bool:
        """Whether items that were added have no outcome."""
        return bool(self._items)

    # --- the caller's thread

    def add(self, items: list[tuple[Any, ...]]) -> None:
        """More items, each the arguments of one call."""
        if self._cancelled_from is None:
            self._items.update(enumerate(items, self._added))
        self._added += len(items)

    def take(self, index: int, deadline: float | None) -> object:
        """The result of an item, once.

        Args:
            index: which; all before it have been taken.
            deadline: by `time.monotonic`, or None to wait for ever.

        Returns:
            What the function returned.

        Raises:
            TimeoutError: the deadline has passed.
            CancelledError: the executor was shut down with ``cancel_futures=True``.
            BaseException: what the function raised, or why the item failed.
        """
        with self._changed:
            while index not in self._outcomes:
                if self._error is not None:
                    raise self._error
                if self._cancelled_from is not None and index >= self._cancelled_from:
                    raise CancelledError
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                self._awaited = index
                self._changed.wait(left)
            outcome = self._outcomes.pop(index)
        if isinstance(outcome, BaseException):
            raise outcome
        status, body = outcome
        if status == RESULT:
            return loaded(body, self.function.name, index)
        raise failure_of(status, body, self.function.name, index=index)

    # --- the manager thread

    def body_of(self, start: int, count: int) -> bytes:
        """The pickled items of a range; those that cannot be pickled have failed with that."""
        bodies: list[bytes | None] = []
        used: dict[int, Blob] = {}
        failed: list[tuple[int, Outcome]] = []
        for index in range(start, start + count):
            args = self._items.get(index)
            if args is None:  # it has failed before, and its pod was lost
                bodies.append(None)
                continue
            try:
                body = self._blobs.dumps(args)
                used.update((blob.id, blob) for blob in blobs_of(body))
                bodies.append(body)
            except BaseException as error:  # an item's own code runs here, and may even exit
                blame(error, self.function.name, args, {})
                bodies.append(None)
                failed.append((index, error))
        if failed:
            self.settle(failed)
        packed: bytes = msgpack.packb(bodies)
        if not used:
            return packed
        whole = Bulky(packed)
        whole.blobs = tuple(used.values())
        self._shared.update(blob for blob in whole.blobs if blob.wanted_again)
        return whole

    def settle(self, outcomes: list[tuple[int, Outcome]]) -> None:
        """Outcomes are there; an item that has failed already keeps its failure."""
        with self._changed:
            for index, outcome in outcomes:
                if self._items.pop(index, None) is not None:
                    self._outcomes[index] = outcome
            if self._awaited in self._outcomes:
                self._changed.notify_all()

    def fail(self, error: BaseException) -> None:
        """Every item without an outcome has this error."""
        with self._changed:
            self._error = error
            self._changed.notify_all()

    def cancel_from(self, index: int) -> None:
        """Items from here on will never be dispatched."""
        with self._changed:
            self._cancelled_from = index
            for later in [known for known in tuple(self._items) if known >= index]:
                del self._items[later]
            self._changed.notify_all()


def body_of(maps: Mapping[int, Map], which: Range) -> bytes:
    """The body of a range, to be dispatched now.

    Args:
        maps: those that somebody waits for, by id.
        which: the range.

    Returns:
        msgpack array of pickled items, each nil where the map is not waited for any more.
    """
    map_ = maps.get(which.map_id)
    if map_ is not None:
        return map_.body_of(which.start, which.items)
    packed: bytes = msgpack.packb([None] * which.items)
    return packed
