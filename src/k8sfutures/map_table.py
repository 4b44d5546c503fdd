"""The maps that somebody waits for, on the manager thread: what is asked of them, what they get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from . import scheduler_events as core
from .attempts import Attempts
from .blobs import size_of
from .control import MapClosed, MapExtended, MapStarted
from .errors import PodLost
from .maps import Map, body_of
from .messages import RESULT
from .outcomes import failure_of

BULKY_ITEM: Final = 16 * 1024
"""Bytes from which on an item of a map is so bulky that ranges have fewer of them."""


class MapTable:
    """See the module's text.

    Args:
        attempts: decides what of a map runs again.
    """

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._maps: dict[int, Map] = {}

    @property
    def unsettled(self) -> bool:
        """Whether any item has no outcome."""
        return any(map_.unsettled for map_ in self._maps.values())

    def changed(self, event: MapStarted | MapExtended | MapClosed) -> core.Event | None:
        """A caller wants something of a map; returns what the scheduler is to know."""
        map_ = event.map
        if isinstance(event, MapClosed):
            return self._forget(map_) if map_.id in self._maps else None
        chunksize = None
        if isinstance(event, MapStarted):
            self._maps[map_.id] = map_
            chunksize = event.chunksize
        limits = None if map_.options is None else map_.options.limits
        return core.MapGrown(map_.id, map_.function.id, event.count, chunksize, limits)

    def _forget(self, map_: Map) -> core.Event:
        del self._maps[map_.id]
        if self._attempts:
            self._attempts.forget_map(map_.id)
        return core.MapDropped(map_.id)

    def body_of(self, which: core.Range) -> tuple[bytes, list[core.Event]]:
        """The body of a range, to be dispatched now, and what the scheduler is to know of it."""
        body = body_of(self._maps, which)
        size = size_of(body) // which.items
        return body, [core.ItemsMeasured(which.map_id, size)] if size > BULKY_ITEM else []

    def settle(self, settle: core.Settle) -> tuple[list[core.Retried], list[core.Event]]:
        """Items have outcomes.

        Args:
            settle: what the scheduler says.

        Returns:
            What runs again, and what the scheduler is to know beside that.
        """
        retried: list[core.Retried] = []
        by_map: dict[int, list[tuple[int, Any]]] = {}
        tried = bool(self._attempts)
        for map_id, index, status, body in settle.items:
            outcome: Any = status, body
            if tried or status != RESULT:
                outcome = self._considered(map_id, index, outcome, settle)
                if isinstance(outcome, core.Retried):
                    retried.append(outcome)
                    continue
            by_map.setdefault(map_id, []).append((index, outcome))
        events: list[core.Event] = []
        for map_id, outcomes in by_map.items():
            map_ = self._maps.get(map_id)
            if map_ is not None:
                map_.settle(outcomes)
                if not map_.unsettled and not map_.growing:
                    events.append(self._forget(map_))
        return retried, events

    def _considered(
        self, map_id: int, index: int, outcome: tuple[int, bytes | None], settle: core.Settle
    ) -> tuple[int, bytes | None] | BaseException | core.Retried:
        """An outcome of which more is known than that, or that is none yet."""
        key = map_id, index
        map_ = self._maps.get(map_id)
        if map_ is None:
            return outcome
        status, body = outcome
        if status == RESULT:
            self._attempts.forget(key)
            return outcome
        if key not in settle.lost and (map_.options is None or not map_.options.retry_on):
            return outcome
        failure = failure_of(status, body, map_.function.name, index=index)
        return self._attempts.failed(key, failure, settle, map_.options) or failure

    def lost(self, map_item: tuple[int, int], error: PodLost) -> None:
        """An item was lost for good."""
        map_ = self._maps.get(map_item[0])
        if map_ is not None:
            map_.settle([(map_item[1], error)])

    def cancel(self, position: Callable[[int], int]) -> None:
        """Cancel all items that have never been dispatched: from this position of each map on."""
        for map_ in list(self._maps.values()):
            map_.cancel_from(position(map_.id))

    def fail(self, error: Callable[[], BaseException]) -> None:
        """Every item without an outcome fails, and no map is left."""
        for map_ in self._maps.values():
            map_.fail(error())
        self._maps.clear()
