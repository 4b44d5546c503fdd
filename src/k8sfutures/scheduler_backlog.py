"""What waits at the client: submitted calls, and the maps that ranges are cut from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

from .messages import Call
from .scheduler_events import (
    Again,
    CancelPending,
    ItemsMeasured,
    Limits,
    Loss,
    Lost,
    MapDropped,
    MapGrown,
    Range,
    Retried,
    Submitted,
)
from .scheduler_isolation import Isolation
from .scheduler_records import Flight, RangeState, Source


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
        self.losses: dict[int, tuple[Loss, ...]] = {}
        """By call id: the pods that a call was lost with."""
        self.limits: dict[int, Limits] = {}
        """By call id, ranges of maps included: what holds for that call only."""
        self.cancelled: set[int] = set()
        """Calls that nobody waits for, and that a pod still has."""
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

    def function_of(self, call_id: int) -> int:
        """Id of the function of a submitted call that waits, or 0."""
        for entry in [*self._isolation.waiting, *self.pending]:
            if not isinstance(entry, Source) and entry[0] == call_id:
                return entry[1]
        return 0

    def functions(self) -> set[int]:
        """Ids of the functions of all that waits, and of maps that may grow."""
        used = {source.function for source in self.sources.values()}
        used.update(entry[1] for entry in self.pending if not isinstance(entry, Source))
        used.update(call[1] for call in self._isolation.waiting)
        return used

    def handle(
        self,
        event: Submitted | Again | MapGrown | MapDropped | ItemsMeasured | CancelPending,
    ) -> None:
        """Take in what concerns nothing but what waits."""
        match event:
            case Submitted():
                self._submit(event)
            case Again():
                self._again(event.retried)
            case MapGrown():
                self._grow(event)
            case MapDropped():
                self._drop_map(event.map_id)
            case ItemsMeasured():
                self._measured(event)
            case CancelPending():
                self._cancel(event.keep)

    def _submit(self, event: Submitted) -> None:
        """More calls wait."""
        self.pending.extend(event.calls)
        if event.limits:
            self.limits.update(event.limits)

    def _grow(self, event: MapGrown) -> None:
        """More items of a map wait."""
        source = self.sources.get(event.map_id)
        if source is None:
            source = Source(event.map_id, event.function, event.chunksize, event.limits)
            self.sources[event.map_id] = source
        if source.next == source.count and event.count:
            self.pending.append(source)
        source.count += event.count

    def _measured(self, event: ItemsMeasured) -> None:
        """Items of a map are bulky."""
        source = self.sources.get(event.map_id)
        if source is not None:
            source.measured(event.size)

    def _drop_map(self, map_id: int) -> None:
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

    def _cancel(self, keep: frozenset[int]) -> None:
        """Forget all that was never dispatched; see `CancelPending`."""
        for entry in self.pending:
            if isinstance(entry, Source):
                entry.next = entry.count
        self._drop(lambda call: bool(call[2]) or call[0] in keep)
        self.pending = deque(entry for entry in self.pending if not isinstance(entry, Source))

    def withdraw(self, calls: set[int]) -> None:
        """Forget these submitted calls, so far as they wait."""
        self._drop(lambda call: call[0] not in calls)

    def _drop(self, keep: Callable[[Call], bool]) -> None:
        """Forget the submitted calls that wait and are not to be kept."""
        gone = [e for e in self.pending if not (isinstance(e, Source) or keep(e))]
        if gone:
            self.pending = deque(e for e in self.pending if isinstance(e, Source) or keep(e))
        for entry in [*gone, *self._isolation.keep(keep)]:
            if not isinstance(entry, Source):
                self.forget(entry[0])

    def next_call(self, items: int) -> Call:
        """Take what has waited longest; of a map, a range of so many items."""
        head = self.pending[0]
        if isinstance(head, Source):
            cut = Range(head.map_id, head.next, items)
            call = self.new_range(head.function, cut, (), head.limits)
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
            elif self.losses and self._isolation.is_suspect(
                self.losses.get(call[0], ()), self.limits.get(call[0])
            ):
                self._isolation.add(call)
            else:
                self.pending.appendleft(call)

    def new_range(
        self, function: int, cut: Range, lost: tuple[Loss, ...], limits: Limits | None
    ) -> Call:
        """A call for these items, that was lost with these pods before."""
        call_id = self._next_range_id
        self._next_range_id += 1
        self.ranges[call_id] = RangeState(cut)
        if lost:
            self.losses[call_id] = lost
        if limits is not None:
            self.limits[call_id] = limits
        return (call_id, function, cut.items, None)

    def singles(
        self, function: int, state: RangeState, lost: tuple[Loss, ...], limits: Limits | None
    ) -> list[Call]:
        """The unfinished items of a range one by one, so that a culprit among them is alone."""
        return [
            self.new_range(function, Range(map_id, index, 1), lost, limits)
            for map_id, index in state.unfinished()
        ]

    def take_back(self, flights: Iterable[Flight]) -> None:
        """Calls come back from a pod that has not started what of them has no outcome."""
        again: list[Call] = []
        for flight in flights:
            call = flight.call
            if call[0] in self.cancelled:
                self.cancelled.discard(call[0])
                self.forget(call[0])
            elif call[2]:
                limits, lost = self.limits.get(call[0]), self.forget(call[0])
                state = self.ranges.pop(call[0])
                if state.left == state.cut.items:
                    again.append(self.new_range(call[1], state.cut, lost, limits))
                else:
                    again += self.singles(call[1], state, lost, limits)
            else:
                again.append(call)
        self.requeue(again)

    def lost(self, pod: str, flights: Iterable[Flight], now: float, retries: int) -> Iterator[Lost]:
        """Calls are lost with a pod: they run again, so far as they have retries.

        Args:
            pod: its name.
            flights: what it had.
            now: the time.
            retries: how often a call may run again where nothing else was chosen for it.

        Yields:
            Those that do not run again.
        """
        again: list[Call] = []
        for call, _, _, since in flights:
            limits = self.limits.get(call[0])
            lost = (*self.forget(call[0]), Loss(pod, max(0.0, now - since)))
            state = self.ranges.pop(call[0], None)
            most = retries if limits is None or limits.retries is None else limits.retries
            if call[0] in self.cancelled:
                self.cancelled.discard(call[0])
            elif len(lost) > most:
                pods, seconds = zip(*lost, strict=True)
                if state is None:
                    yield Lost(call[0], None, pods, seconds, most, call[1])
                else:
                    for item in state.unfinished():
                        yield Lost(None, item, pods, seconds, most, call[1])
            elif state is not None:
                again += self.singles(call[1], state, lost, limits)
            else:
                self.losses[call[0]] = lost
                if limits is not None:
                    self.limits[call[0]] = limits
                again.append(call)
        self.requeue(again)

    def _again(self, retried: Iterable[Retried]) -> None:
        """Put what has failed before everything that waits."""
        calls: list[Call] = []
        for call, map_item, limits, lost in retried:
            if call is not None:
                self.limits[call[0]] = limits
                if lost:
                    self.losses[call[0]] = lost
                calls.append(call)
            elif map_item is not None and map_item[0] in self.sources:
                cut = Range(*map_item, 1)
                function = self.sources[map_item[0]].function
                calls.append(self.new_range(function, cut, lost, limits))
        self.requeue(calls)

    def timeouts(self, calls: Iterable[Call]) -> dict[int, float]:
        """By call id, seconds that these calls may run; of those that have such a limit."""
        limits = self.limits
        found = ((call[0], limits[call[0]].timeout) for call in calls if call[0] in limits)
        return {call_id: timeout for call_id, timeout in found if timeout is not None}

    def forget(self, call_id: int) -> tuple[Loss, ...]:
        """A call has ended, or nobody wants it any more; returns what it was lost with."""
        if self.limits:
            self.limits.pop(call_id, None)
        return self.losses.pop(call_id, ()) if self.losses else ()

    def forget_range(self, call_id: int) -> RangeState:
        """A range is finished, or nobody wants it any more."""
        self.forget(call_id)
        return self.ranges.pop(call_id)

    def items_left(self, call_id: int) -> int:
        """Items of a call that have no outcome."""
        state = self.ranges.get(call_id)
        return state.left if state is not None else 1
