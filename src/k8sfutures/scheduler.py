"""Which call runs on which pod: the client's decisions, as a pure state machine.

Nothing in here opens, locks, waits, reads a clock or knows a Future. The manager feeds
`Scheduler.handle` with events (batches of what happened) and carries out the instructions
that come back::

    submitted, grown ─┐                                  ┌─► Dispatch   one group to send
    joined, gone ─────┼─► handle(event) ─► state ────────┼─► Settle     outcomes for Futures
    arrived, … ───────┘                                  ├─► Lost       calls out of retries
                                                         └─► Recalled   calls that nobody wants

How much a pod is given
    A call is charged an estimate of the time it takes of one slot: the running mean of its
    function's durations, plus its bytes over `BANDWIDTH`, and `WINDOW` while nothing is known
    or when it is longer than that. A pod takes a call while it has a free slot, or while what
    it was charged for stays within one `WINDOW` for each slot. So long calls go one to a slot
    and are assigned as late as possible; tiny ones go ahead in bulk, and a pod is topped up
    when it is down to half, which is what makes groups large under load and immediate when
    idle.

Ranges of a map
    The items of a map wait here as a count. A range is cut when it is dispatched: one item
    until a duration is known, then about `RANGE` seconds of work, but no more than a fair part
    of what is left. Items finish in order, so a range that stops half-way (its CPU process
    died, its pod was lost) loses exactly the item that ran; the rest is dispatched again.

Calls that lose their pods
    run again, before all others; the last try of one that was lost more than once is alone on
    a pod (`scheduler_isolation`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from typing import Final

from .messages import EXCEPTION, RESULT, Call
from .scheduler_backlog import Backlog
from .scheduler_events import (
    Arrived,
    Cancelled,
    Dispatch,
    Event,
    FunctionsDropped,
    GivenBack,
    Instruction,
    Loss,
    PodGone,
    PodJoined,
    PodReported,
    Range,
    Recalled,
    Settle,
    Statistics,
    Withdrawn,
)
from .scheduler_invariants import check
from .scheduler_isolation import Isolation
from .scheduler_records import WINDOW, Durations, Flight, Pod, Source, share_limit

KEPT_FUNCTIONS: Final = 256
"""Functions that the client has dropped and pods still keep: told in bulk, not one by one."""


class Scheduler:
    """Assigns calls to pods; see the module's text for how.

    Args:
        max_workers: calls that may run at once over all pods, or None for all slots.
        retries: how often a call whose pod was lost is dispatched again.
        first_range_id: call ids for ranges of maps count up from here; calls that are
            submitted must have ids below.
    """

    def __init__(
        self, *, max_workers: int | None = None, retries: int = 3, first_range_id: int = 1 << 48
    ) -> None:
        self._max_workers = max_workers
        self._retries = retries
        self._group = 0
        self._isolation = Isolation(retries)
        self._backlog = Backlog(first_range_id, self._isolation)
        self._pods: dict[str, Pod] = {}
        self._durations = Durations()
        self._dropped: set[int] = set()
        self._now = 0.0
        self._release_in = 0  # calls to dispatch before `_released` is worth its scan again

    # --- what the manager asks

    @property
    def group(self) -> int:
        """Number of the last group."""
        return self._group

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is in flight."""
        return not self.has_backlog and not any(pod.in_flight for pod in self._pods.values())

    @property
    def has_backlog(self) -> bool:
        """Whether calls or items wait that no pod has yet."""
        return bool(self._backlog.pending or self._isolation.waiting)

    @property
    def waiting(self) -> int:
        """Calls and items that no pod has yet."""
        return self._backlog.waiting

    def position(self, map_id: int) -> int:
        """Index of the first item of a map that has never been dispatched."""
        return self._backlog.position(map_id)

    def is_draining(self, pod: str) -> bool:
        """Whether a pod has said that it takes no calls any more."""
        return pod in self._pods and self._pods[pod].draining

    def in_flight(self, pod: str) -> list[int]:
        """Ids of the calls that a pod has."""
        return list(self._pods[pod].in_flight) if pod in self._pods else []

    def pod_of(self, call: int) -> str | None:
        """Name of the pod that has a call, if one has."""
        return next((pod.name for pod in self._pods.values() if call in pod.in_flight), None)

    def function_of(self, call: int) -> int:
        """Id of the function of a submitted call that is not done; 0 where it is not known."""
        for pod in self._pods.values():
            if call in pod.in_flight:
                return pod.in_flight[call].call[1]
        return self._backlog.function_of(call)

    def place_of(self, pod: str, call: int) -> tuple[int, int | None]:
        """A call's function, 0 where unknown, and the first index where it is a range of a map."""
        flight = self._pods[pod].in_flight.get(call) if pod in self._pods else None
        known = self._backlog.ranges.get(call)
        return flight.call[1] if flight else 0, known.cut.start if known else None

    def statistics(self) -> Statistics:
        """Counts for people and tests."""
        pods = list(self._pods.values())  # in one step: other threads ask, too
        return Statistics(
            self.waiting,
            sum(len(pod.in_flight) for pod in pods),
            sum(pod.limit for pod in pods),
            len(pods),
        )

    # --- the state machine

    def handle(self, event: Event, now: float = 0.0) -> list[Instruction]:
        """Take in what happened; say what to do about it.

        Args:
            event: a batch.
            now: the time.

        Returns:
            Instructions, to be carried out in this order.
        """
        out: list[Instruction] = []
        self._now = now
        match event:
            case Arrived():
                self._arrived(event, out)
            case Cancelled():
                self._cancel(event.calls, out)
            case PodJoined():
                self._pods.setdefault(event.pod, Pod(event.pod, event.slots))
                self._share_limit()
            case PodReported():
                self._pod_reported(event, out)
            case PodGone():
                self._pod_gone(event.pod, out)
            case GivenBack():
                self._given_back(event)
            case Withdrawn():
                self._withdrawn(event.calls)
            case FunctionsDropped():
                self._dropped.update(event.functions)
            case _:
                self._backlog.handle(event)
        dispatch = self._dispatch()
        if dispatch is not None:
            out.append(dispatch)
        return out

    def _arrived(self, event: Arrived, out: list[Instruction]) -> None:
        pod = self._pods.get(event.pod)
        if pod is None:
            return
        calls: list[tuple[int, int, int, bytes | None]] = []
        items: list[tuple[int, int, int, bytes | None]] = []
        learn = self._durations.learn
        lost: dict[int | tuple[int, int], tuple[Loss, ...]] = {}
        in_flight, losses, limits = pod.in_flight, self._backlog.losses, self._backlog.limits
        for call_id, item, status, micros, body in event.outcomes:
            flight = in_flight.get(call_id)
            if flight is None:
                continue  # told before, or by a pod that had been given up
            call = flight.call
            if status <= EXCEPTION:
                learn(call[1], micros * 1e-6)
            if call[2]:
                self._item_arrived(pod, call_id, (item, status, body), items, lost)
            else:
                pod.drop(call_id)
                if losses or limits:
                    before = self._backlog.forget(call_id)
                    if before and status != RESULT:
                        lost[call_id] = before
                calls.append((call_id, call[1], status, body))
        if self._backlog.cancelled:
            self._backlog.cancelled.difference_update([outcome[0] for outcome in event.outcomes])
        if calls or items:
            out.append(Settle(pod.name, calls, items, lost))
        if pod.draining:
            self._share_limit()

    def _item_arrived(
        self,
        pod: Pod,
        call_id: int,
        outcome: tuple[int, int, bytes | None],
        items: list[tuple[int, int, int, bytes | None]],
        lost: dict[int | tuple[int, int], tuple[Loss, ...]],
    ) -> None:
        item, status, body = outcome
        state = self._backlog.ranges[call_id]
        if not state.finish(item):
            return  # told before
        items.append((state.cut.map_id, state.cut.start + item, status, body))
        if status != RESULT and call_id in self._backlog.losses:
            lost[items[-1][:2]] = self._backlog.losses[call_id]
        if not state.left:
            pod.drop(call_id)
            self._backlog.forget_range(call_id)

    def _cancel(self, calls: list[int], out: list[Instruction]) -> None:
        self._backlog.withdraw(set(calls))
        for pod in self._pods.values():
            there = [call_id for call_id in calls if call_id in pod.in_flight]
            if there:
                self._backlog.cancelled.update(there)
                out.append(Recalled(pod.name, there))

    def _pod_reported(self, event: PodReported, out: list[Instruction]) -> None:
        pod = self._pods.get(event.pod)
        if pod is None:
            return
        missing = [
            call_id
            for call_id, flight in pod.in_flight.items()
            if flight.group <= event.group and call_id not in event.holding
        ]
        pod.functions.clear()
        # These never started: no retry is counted.
        self._take_back(pod, missing)
        unwanted = sorted(self._backlog.cancelled.intersection(pod.in_flight))
        if unwanted:  # what it was told of them may be lost
            out.append(Recalled(event.pod, unwanted))

    def _given_back(self, event: GivenBack) -> None:
        pod = self._pods.get(event.pod)
        if pod is None:
            return
        self._take_back(pod, event.calls)
        if event.draining or pod.draining:
            pod.draining = True
            self._share_limit()

    def _pod_gone(self, name: str, out: list[Instruction]) -> None:
        pod = self._pods.pop(name, None)
        if pod is None:
            return
        self._share_limit()
        out += self._backlog.lost(name, pod.in_flight.values(), self._now, self._retries)

    def _take_back(self, pod: Pod, call_ids: Iterable[int]) -> None:
        """What of these calls has no outcome has to run elsewhere: the pod does not have them."""
        dropped = [pod.drop(call_id) for call_id in call_ids]
        self._backlog.take_back(flight for flight in dropped if flight is not None)

    def _withdrawn(self, call_ids: list[int]) -> None:
        for pod in self._pods.values():
            for call_id in call_ids:
                if pod.drop(call_id) is not None:
                    self._backlog.ranges.pop(call_id, None)
                    self._backlog.forget(call_id)

    # --- assignment

    def _share_limit(self) -> None:
        share_limit(self._pods.values(), self._max_workers, self._backlog.items_left)

    def _dispatch(self) -> Dispatch | None:
        if not (self._backlog.pending or self._isolation.active) or not self._pods:
            return None
        shares: dict[str, list[Call]] = {}
        self._group += 1
        if self._isolation.active:
            shares |= self._isolation.assign(
                self._pods.values(), self._durations, self._group, self._now
            )
        if self._backlog.pending:
            self._fill_free_slots(shares)
        if self._backlog.pending:
            self._prefetch(shares)
        if not shares:
            self._group -= 1
            return None
        return self._group_of(shares)

    def _group_of(self, shares: dict[str, list[Call]]) -> Dispatch:
        functions: set[int] = set()
        ranges: dict[int, Range] = {}
        out: dict[str, tuple[int, list[Call]]] = {}
        for name, calls in shares.items():
            pod = self._pods[name]
            known = pod.functions
            new = {call[1] for call in calls}
            new -= known
            if new:
                functions |= new
                known |= new
            for call in calls:
                if call[2]:
                    ranges[call[0]] = self._backlog.ranges[call[0]].cut
            out[name] = (pod.limit, calls)
            self._release_in -= len(calls)
        released = self._released() if len(self._dropped) > KEPT_FUNCTIONS else []
        limits = (
            self._backlog.timeouts(call for _, calls in out.values() for call in calls)
            if self._backlog.limits
            else {}
        )
        return Dispatch(self._group, out, ranges, sorted(functions), released, limits)

    def _fill_free_slots(self, shares: dict[str, list[Call]]) -> None:
        """One call to each free slot, the pod with the most free ones first."""
        free = [
            (len(pod.in_flight) - pod.limit, name)
            for name, pod in self._pods.items()
            if len(pod.in_flight) < pod.limit and not (pod.draining or pod.reserved)
        ]
        heapq.heapify(free)
        while free and self._backlog.pending:
            room, name = free[0]
            pod = self._pods[name]
            call = self._backlog.next_call(self._items_of_head())
            charge = self._durations.charge(call[1], call[2] or 1, len(call[3] or b""))
            pod.take(call, charge, self._group, self._now)
            shares.setdefault(name, []).append(call)
            if room + 1 < 0:
                heapq.heapreplace(free, (room + 1, name))
            else:
                heapq.heappop(free)

    def _prefetch(self, shares: dict[str, list[Call]]) -> None:
        """Top up the pods that are down to half their window, each with its fair part."""
        hungry = [
            pod
            for pod in self._pods.values()
            if pod.limit
            and pod.work <= pod.limit * WINDOW / 2
            and not (pod.draining or pod.reserved)
        ]
        slots = sum(pod.limit for pod in hungry)
        waiting = len(self._backlog.pending) if len(hungry) > 1 else 0
        for pod in hungry:
            window = pod.limit * WINDOW
            most = -(-waiting * pod.limit // slots) if waiting else None
            group, now, charge_of = self._group, self._now, self._durations.charge
            calls: list[Call] = []
            work, in_flight = pod.work, pod.in_flight
            while pending := self._backlog.pending:
                head = pending[0]
                items = 0
                if isinstance(head, Source):
                    items = self._items_of_head()
                    charge = charge_of(head.function, items, items * head.item_size)
                elif most is not None and len(calls) >= most:
                    break
                else:
                    charge = charge_of(head[1], head[2] or 1, len(head[3] or b""))
                if work + charge > window:
                    break
                call = self._backlog.next_call(items)
                in_flight[call[0]] = Flight(call, charge, group, now)
                work += charge
                calls.append(call)
            pod.work = work
            if calls:
                shares.setdefault(pod.name, []).extend(calls)

    def _items_of_head(self) -> int:
        """How many items to take where a map waits longest; of no interest otherwise."""
        head = self._backlog.pending[0]
        if not isinstance(head, Source):
            return 0
        slots = sum(pod.limit for pod in self._pods.values())
        return self._durations.items_of_range(head, slots)

    def _released(self) -> list[int]:
        """Functions that the client dropped and that no call refers to any more."""
        if self._release_in > 0:
            return []
        used = self._backlog.functions()
        for pod in self._pods.values():
            used.update(flight.call[1] for flight in pod.in_flight.values())
        # The scan is paid for by the calls that are dispatched until the next one.
        self._release_in = len(self._backlog.pending) // 8
        released = sorted(self._dropped - used)
        self._dropped.difference_update(released)
        for pod in self._pods.values():
            pod.functions.difference_update(released)
        for function in released:
            self._durations.forget(function)
        return released

    def validate(self) -> None:
        """Check what must always hold, for tests; an AssertionError says what does not."""
        check(self._backlog, self._isolation.waiting, self._pods, self._max_workers)
