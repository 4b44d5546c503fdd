"""What waits at the client: submitted calls, and the maps that ranges are cut from."""

from __future__ import annotations

from collections import deque

from .messages import Call
from .scheduler_events import ItemsMeasured, MapGrown, Range
from .scheduler_isolation import Isolation
from .scheduler_records import RangeState, Source


class Backlog:
    """Calls and maps in the order in which they wait, and every range that is not finished.

    Args:
        first_range_id: call ids for ranges of maps count up from here.
        isolation: has the calls that are to run alone.
    """

    def __init__(self, first_range_id: int, isolation: Isolation) -> None:
        self._isolation = isolation
        self.pending: deque[Call | Source] = deque()
        self.sources: dict[int, Source] = {}
        self.ranges: dict[int, RangeState] = {}
        """By call id; those that are dispatched, and those that wait to be again."""
        self.losses: dict[int, tuple[str, ...]] = {}
        """By call id: the pods that a call was lost with."""
        self._next_range_id = first_range_id

    @property
    def waiting(self) -> int:
        """Calls and items that no pod has yet."""
        return sum(
            entry.count - entry.next if isinstance(entry, Source) else (entry[2] or 1)
            for entry in [*self.pending, *self._isolation.waiting]  # other threads ask, too
        )

    def position(self, map_id: int) -> int:
        """Index of the first item of a map that has never been dispatched."""
        source = self.sources.get(map_id)
        return source.next if source is not None else 0

    def functions(self) -> set[int]:
        """Ids of the functions of all that waits, and of maps that may grow."""
        used = {source.function for source in self.sources.values()}
        used.update(entry[1] for entry in self.pending if not isinstance(entry, Source))
        used.update(call[1] for call in self._isolation.waiting)
        return used

    def grow(self, event: MapGrown) -> None:
        """More items of a map wait."""
        source = self.sources.get(event.map_id)
        if source is None:
            source = Source(event.map_id, event.function, event.chunksize)
            self.sources[event.map_id] = source
        if source.next == source.count and event.count:
            self.pending.append(source)
        source.count += event.count

    def measured(self, event: ItemsMeasured) -> None:
        """Items of a map are bulky."""
        source = self.sources.get(event.map_id)
        if source is not None:
            source.measured(event.size)

    def drop_map(self, map_id: int) -> None:
        """Forget what waits of a map."""
        source = self.sources.pop(map_id, None)

        def keep(entry: Call | Source) -> bool:
            if isinstance(entry, Source):
                return entry is not source
            known = self.ranges.get(entry[0])
            return known is None or known.cut.map_id != map_id

        gone = [entry for entry in self.pending if not keep(entry)]
        if gone:
            self.pending = deque(filter(keep, self.pending))
            for entry in gone:
                if not isinstance(entry, Source):
                    self.forget_range(entry[0])
        for call in self._isolation.keep(keep):
            self.forget_range(call[0])

    def cancel(self, keep: frozenset[int]) -> None:
        """Forget all that was never dispatched; see `CancelPending`."""
        for entry in self.pending:
            if isinstance(entry, Source):
                entry.next = entry.count
        self.pending = deque(
            entry
            for entry in self.pending
            if not isinstance(entry, Source) and (entry[2] or entry[0] in keep)
        )
        for call in self._isolation.keep(lambda call: bool(call[2]) or call[0] in keep):
            self.losses.pop(call[0], None)

    def next_call(self, items: int) -> Call:
        """Take what has waited longest; of a map, a range of so many items."""
        head = self.pending[0]
        if isinstance(head, Source):
            call = self.new_range(head.function, Range(head.map_id, head.next, items), ())
            head.next += items
            if head.next == head.count:
                self.pending.popleft()
            return call
        self.pending.popleft()
        return head

    def requeue(self, calls: list[Call]) -> None:
        """Put calls before everything that waits, in their order: they waited longest.

        Those that may have ended their pods wait apart.
        """
        for call in reversed(calls):
            if call[2] and self.ranges[call[0]].cut.map_id not in self.sources:
                self.forget_range(call[0])  # nobody waits for this map any more
            elif self._isolation.is_suspect(self.losses.get(call[0], ())):
                self._isolation.add(call)
            else:
                self.pending.appendleft(call)

    def new_range(self, function: int, cut: Range, lost: tuple[str, ...]) -> Call:
        """A call for these items, that was lost with these pods before."""
        call_id = self._next_range_id
        self._next_range_id += 1
        self.ranges[call_id] = RangeState(cut)
        if lost:
            self.losses[call_id] = lost
        return (call_id, function, cut.items, None)

    def singles(self, function: int, state: RangeState, lost: tuple[str, ...]) -> list[Call]:
        """The unfinished items of a range one by one, so that a culprit among them is alone."""
        return [
            self.new_range(function, Range(map_id, index, 1), lost)
            for map_id, index in state.unfinished()
        ]

    def forget_range(self, call_id: int) -> RangeState:
        """A range is finished, or nobody wants it any more."""
        self.losses.pop(call_id, None)
        return self.ranges.pop(call_id)

    def items_left(self, call_id: int) -> int:
        """Items of a call that have no outcome."""
        state = self.ranges.get(call_id)
        return state.left if state is not None else 1
