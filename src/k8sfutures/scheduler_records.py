"""What the scheduler remembers: maps, ranges of them, and pods with what they were given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import field
from typing import Final, NamedTuple

from .messages import Call
from .scheduler_events import Limits, Range
from .values import dataclass

WINDOW: Final = 0.020
"""Seconds of work that a slot may have in flight, queued work included. Long enough to hide
the way through the broker (about 1 ms) many times over, short enough that what was given to
the wrong pod is done soon."""

RANGE: Final = 0.010
"""Seconds of work in a range of a map: long against the cost of a call, short against WINDOW."""

BANDWIDTH: Final = 100e6
"""Bytes per second that a call's body is charged at, so that a slot's window also bounds bytes."""

SHORTEST: Final = 20e-6
"""Seconds; no call is charged less, since the agent and its pipe take about that much."""

RANGE_BYTES: Final = 8 * 1024 * 1024
"""Bytes of the items in a range of a map, where their number is ours to choose: what the client
pickles at once, and what a pod has of it."""

LONGEST_RANGE: Final = 1000
"""Items; a bound on what one lost range can cost, whatever the estimate says."""

FOLLOW: Final = 0.2
"""Weight of the newest duration in the running mean: a change of pace shows within 10 calls."""


class Source:
    """A map whose items wait to be cut into ranges."""

    __slots__ = ("chunksize", "count", "function", "item_size", "limits", "map_id", "next")

    def __init__(
        self, map_id: int, function: int, chunksize: int | None, limits: Limits | None
    ) -> None:
        self.map_id = map_id
        self.function = function
        self.chunksize = chunksize
        self.limits = limits
        self.next = 0
        self.count = 0
        self.item_size = 0  # bytes, where they are many

    def measured(self, size: int) -> None:
        """Items that were dispatched have about so many bytes each; the next may have as many."""
        self.item_size = max(size, self.item_size * 3 // 4)


class RangeState:
    """A range that is dispatched or waits to be again, and which of its items are done."""

    __slots__ = ("cut", "done", "left")

    def __init__(self, cut: Range) -> None:
        self.cut = cut
        self.left = cut.items
        self.done = bytearray(cut.items)

    def finish(self, item: int) -> bool:
        """Mark an item; False where it was marked, or is none of this range."""
        if not 0 <= item < self.cut.items or self.done[item]:
            return False
        self.done[item] = 1
        self.left -= 1
        return True

    def unfinished(self) -> list[tuple[int, int]]:
        """(map id, index) of the items that are not done."""
        map_id, start, _ = self.cut
        return [(map_id, start + item) for item, done in enumerate(self.done) if not done]


class Flight(NamedTuple):
    """A call that a pod has: the seconds it is charged, the group that it went with, and when."""

    call: Call
    charge: float
    group: int
    since: float = 0.0


@dataclass(slots=True)
class Pod:
    """A pod: its slots, how many of them it may use, and what it has.

    One that is `reserved` is for `suspect` alone, a call's id; see `Isolation`.
    """

    name: str
    slots: int
    limit: int = 0
    draining: bool = False
    reserved: bool = False
    suspect: int = -1
    work: float = 0.0
    in_flight: dict[int, Flight] = field(default_factory=dict)
    functions: set[int] = field(default_factory=set)

    def take(self, call: Call, charge: float, group: int, now: float) -> None:
        self.in_flight[call[0]] = Flight(call, charge, group, now)
        self.work += charge

    def drop(self, call_id: int) -> Flight | None:
        flight = self.in_flight.pop(call_id, None)
        if flight is not None:
            # An empty pod is charged nothing, whatever rounding has left behind.
            self.work = self.work - flight.charge if self.in_flight else 0.0
        return flight


def share_limit(
    pods: Iterable[Pod], max_workers: int | None, items_left: Callable[[int], int]
) -> None:
    """Allot `max_workers` to the pods, oldest first; one that drains keeps what still runs.

    Args:
        pods: all of them.
        max_workers: None for no limit.
        items_left: of a call that a pod has, by its id.
    """
    left = max_workers
    for pod in sorted(pods, key=lambda pod: not pod.draining):
        limit = pod.slots
        if pod.draining:
            limit = min(pod.limit, sum(map(items_left, pod.in_flight)))
        pod.limit = limit if left is None else min(limit, left)
        if left is not None:
            left -= pod.limit


class Durations:
    """How long calls take, by function, and what follows for charges and ranges."""

    __slots__ = ("_means",)

    def __init__(self) -> None:
        self._means: dict[int, float] = {}

    def learn(self, function: int, took: float) -> None:
        """A call has taken so many seconds."""
        before = self._means.get(function)
        self._means[function] = took if before is None else before + (took - before) * FOLLOW

    def forget(self, function: int) -> None:
        """No call will use this function again."""
        self._means.pop(function, None)

    def charge(self, function: int, items: int, size: int) -> float:
        """Seconds of a slot that a call is charged."""
        each = self._means.get(function)
        if each is None:
            return WINDOW
        charge = (max(SHORTEST, each)) * items + size / BANDWIDTH
        return min(WINDOW, charge)

    def items_of_range(self, source: Source, slots: int) -> int:
        """How many items the next range of a map gets, with so many slots to share it."""
        left = source.count - source.next
        if source.chunksize is not None:
            return min(left, source.chunksize)
        each = self._means.get(source.function)
        if each is None:
            return 1
        fair = -(-left // (4 * max(1, slots)))
        longest = RANGE_BYTES // source.item_size if source.item_size else LONGEST_RANGE
        return max(1, min(left, fair, longest, LONGEST_RANGE, int(RANGE / max(SHORTEST, each))))
