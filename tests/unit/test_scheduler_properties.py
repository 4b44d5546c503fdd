"""The scheduler under random events: nothing lost, nothing twice, nowhere too much.

The machine plays the pods. What is on its way to a pod or back waits in `wire`, in order, and can
be lost with a connection, after which the pod reports what it holds, as a real one does.
"""

from collections import Counter, deque

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from k8sfutures import scheduler as module
from k8sfutures.messages import CRASHED, EXCEPTION, NOT_LOADABLE, RESULT
from k8sfutures.scheduler import Scheduler
from k8sfutures.scheduler_events import (
    Again,
    Arrived,
    Cancelled,
    CancelPending,
    Dispatch,
    FunctionsDropped,
    GivenBack,
    Limits,
    Lost,
    MapDropped,
    MapGrown,
    PodGone,
    PodJoined,
    PodReported,
    Recalled,
    Retried,
    Settle,
    Submitted,
    Withdrawn,
)

module.KEPT_FUNCTIONS = 1  # so that few functions are enough for some to be released

FIRST_RANGE = 1 << 48
MICROSECONDS = st.sampled_from([0, 5, 100, 2_000, 10_000, 30_000, 5_000_000])
LIMITS = st.none() | st.builds(
    Limits, st.none() | st.integers(0, 2), st.none() | st.sampled_from([0.5, 2.0])
)
STATUS = st.sampled_from([RESULT, EXCEPTION, NOT_LOADABLE, CRASHED])


class Pod:
    def __init__(self, slots):
        self.slots = slots
        self.group = 0
        self.functions = set()
        self.holding = {}  # call id -> indices of items without outcome
        self.wire = deque()  # groups on their way: (number, functions, released, calls)
        self.limit = 0


class Machine(RuleBasedStateMachine):
    @initialize(
        max_workers=st.none() | st.integers(1, 5), retries=st.integers(0, 2), pods=st.integers(0, 2)
    )
    def start(self, max_workers, retries, pods):
        self.scheduler = Scheduler(
            max_workers=max_workers, retries=retries, first_range_id=FIRST_RANGE
        )
        self.max_workers, self.retries = max_workers, retries
        self.pods = {}
        self.names = 0
        self.next_call = 0
        self.group = 0
        self.waiting = {}  # call id -> function; not dispatched yet
        self.running = {}  # call id -> function
        self.maps = {}  # map id -> function
        self.grown = {}  # map id -> items
        self.pending_items = set()  # (map id, index) without an end
        self.ends = Counter()
        self.losses = Counter()
        self.starts = Counter()
        self.cancel_next = 0
        self.draining = set()
        self.limits = {}  # by call id, map id or (map id, index)
        self.retry_next = False
        self.again = []  # to be told when the instructions are carried out
        self.unwanted = set()  # cancelled while a pod had them, or while they waited to go again
        for _ in range(pods):
            self.join(2)

    # --- carrying out

    def handle(self, event):
        for instruction in self.scheduler.handle(event):
            if isinstance(instruction, Dispatch):
                self.dispatch(instruction)
            elif isinstance(instruction, Settle):
                for call_id, function, status, _ in instruction.calls:
                    if call_id in self.unwanted:
                        continue
                    assert self.running.pop(call_id) == function
                    self.ends[call_id] += 1
                    if status == EXCEPTION and self.may_retry(instruction, call_id):
                        self.retry(instruction, call_id, function)
                for map_id, index, status, _ in instruction.items:
                    key = map_id, index
                    if status == EXCEPTION and self.may_retry(instruction, key):
                        self.retry_item(instruction, key)
                    else:
                        self.end_item(map_id, index)
            elif isinstance(instruction, Recalled):
                assert set(instruction.calls) <= set(self.scheduler.in_flight(instruction.pod))
                assert set(instruction.calls) <= self.unwanted
            else:
                self.lost(instruction)
        self.scheduler.validate()
        again, self.again = self.again, []
        if again:
            for one in again:
                if one.call is not None:
                    self.running[one.call[0]] = one.call[1]
            self.handle(Again(again))

    def retries_of(self, key):
        limits = self.limits.get(key)
        if limits is None and isinstance(key, tuple):
            limits = self.limits.get(("map", key[0]))
        return self.retries if limits is None or limits.retries is None else limits.retries

    def timeout_of(self, key):
        limits = self.limits.get(key)
        if limits is None and isinstance(key, tuple):
            limits = self.limits.get(("map", key[0]))
        return None if limits is None else limits.timeout

    def may_retry(self, settle, key):
        lost = settle.lost.get(key, ())
        assert len(lost) == self.losses[key], "what it was lost with"
        return self.retry_next and len(lost) < self.retries_of(key)

    def retry(self, settle, call_id, function):
        self.next_call += 1
        limits = Limits(self.retries_of(call_id) - 1, self.timeout_of(call_id))
        call = (self.next_call, function, 0, b"again")
        self.limits[self.next_call] = limits
        self.losses[self.next_call] = self.losses[call_id]
        self.again.append(Retried(call, None, limits, settle.lost.get(call_id, ())))

    def retry_item(self, settle, key):
        limits = Limits(self.retries_of(key) - 1, self.timeout_of(key))
        self.limits[key] = limits
        self.starts[key] -= 1
        self.again.append(Retried(None, key, limits, settle.lost.get(key, ())))

    def end_item(self, map_id, index):
        self.ends[map_id, index] += 1
        assert index < self.grown[map_id]
        self.pending_items.discard((map_id, index))

    def lost(self, lost: Lost):
        key = lost.map_item if lost.call is None else lost.call
        assert len(lost.pods) == len(lost.seconds) == self.retries_of(key) + 1
        assert lost.retries == self.retries_of(key)
        assert len(set(lost.pods)) == len(lost.pods)
        if lost.call is not None:
            del self.running[lost.call]
            self.ends[lost.call] += 1
        else:
            self.end_item(*lost.map_item)

    def dispatch(self, order: Dispatch):
        assert order.number == self.group + 1
        self.group = order.number
        assert order.shares
        in_use = set(self.waiting.values()) | set(self.running.values()) | set(self.maps.values())
        assert in_use.isdisjoint(order.released), "released while in use"
        withdrawn = []
        needed = set()
        limits = {}
        for name, (limit, calls) in order.shares.items():
            pod = self.pods[name]
            assert name not in self.draining
            assert 0 < limit <= pod.slots
            assert limit >= pod.limit, "a limit that shrinks"
            pod.limit = limit
            assert calls
            kept = []
            for call_id, function, items, body in calls:
                lacks = {function} - self.expected_functions(name)
                needed |= lacks
                if items:
                    cut = order.ranges[call_id]
                    assert cut.items == items
                    assert body is None
                    assert call_id >= FIRST_RANGE
                    assert self.maps.get(cut.map_id, function) == function
                    indices = range(cut.start, cut.start + items)
                    for index in indices:
                        self.starts[cut.map_id, index] += 1
                    timeouts = {self.timeout_of((cut.map_id, index)) for index in indices}
                    if cut.map_id in self.maps:
                        assert timeouts == {order.limits.get(call_id)}
                    if call_id in order.limits:
                        limits[call_id] = order.limits[call_id]
                    kept.append((call_id, function, [(cut.map_id, i) for i in indices]))
                    continue
                if self.timeout_of(call_id) is not None:
                    limits[call_id] = self.timeout_of(call_id)
                if call_id in self.waiting:
                    if self.cancel_next:
                        self.cancel_next -= 1
                        withdrawn.append(call_id)
                        del self.waiting[call_id]
                        self.ends[call_id] += 1
                        continue
                    self.running[call_id] = self.waiting.pop(call_id)
                assert self.running[call_id] == function
                kept.append((call_id, function, None))
            pod.sent |= {call[1] for call in calls}
            pod.wire.append((order.number, set(order.functions), kept))
        assert limits == order.limits
        assert needed == set(order.functions), "functions that are sent when, and only when, needed"
        for name, pod in self.pods.items():
            pod.sent.difference_update(order.released)
            if name not in order.shares:
                pod.wire.append((order.number, set(order.functions), []))
            pod.wire.append((order.number, None, order.released))
        if self.max_workers is not None:
            assert sum(pod.limit for pod in self.pods.values()) <= self.max_workers + sum(
                self.pods[name].limit for name in self.draining
            )
        if withdrawn:
            self.handle(Withdrawn(withdrawn))

    def expected_functions(self, name):
        return self.pods[name].sent

    def deliver(self, name, count=None):
        pod = self.pods[name]
        while pod.wire and count != 0:
            number, functions, calls = pod.wire.popleft()
            if functions is None:
                pod.functions.difference_update(calls)
                continue
            count = None if count is None else count - 1
            pod.group = number
            pod.functions |= functions
            for call_id, function, indices in calls:
                assert call_id not in pod.holding
                assert function in pod.functions, "a call whose function the pod does not have"
                pod.holding[call_id] = indices

    # --- the client

    @rule(
        functions=st.lists(st.integers(0, 4), min_size=1, max_size=6),
        big=st.booleans(),
        limits=LIMITS,
    )
    def submit(self, functions, big, limits):
        calls = []
        for function in functions:
            self.next_call += 1
            self.waiting[self.next_call] = function
            calls.append((self.next_call, function, 0, b"x" * (1_000_000 if big else 5)))
            if limits is not None:
                self.limits[self.next_call] = limits
        chosen = {} if limits is None else dict.fromkeys([call[0] for call in calls], limits)
        self.handle(Submitted(calls, chosen))

    @rule(
        function=st.integers(0, 4),
        count=st.integers(0, 40),
        chunk=st.none() | st.integers(1, 7),
        limits=LIMITS,
    )
    def new_map(self, function, count, chunk, limits):
        map_id = len(self.grown)
        self.limits["map", map_id] = limits
        self.maps[map_id], self.grown[map_id] = function, 0
        self.grow(map_id, count, chunk)

    def grow(self, map_id, count, chunk=None):
        start = self.grown[map_id]
        self.grown[map_id] += count
        self.pending_items |= {(map_id, start + index) for index in range(count)}
        limits = self.limits["map", map_id]
        self.handle(MapGrown(map_id, self.maps[map_id], count, chunk, limits))

    @precondition(lambda self: self.maps)
    @rule(data=st.data(), count=st.integers(1, 5))
    def more(self, data, count):
        self.grow(data.draw(st.sampled_from(sorted(self.maps))), count)

    @precondition(lambda self: self.maps)
    @rule(data=st.data())
    def drop_map(self, data):
        map_id = data.draw(st.sampled_from(sorted(self.maps)))
        del self.maps[map_id]
        self.pending_items = {item for item in self.pending_items if item[0] != map_id}
        self.handle(MapDropped(map_id))

    @rule(functions=st.lists(st.integers(0, 4), min_size=1))
    def drop_functions(self, functions):
        self.handle(FunctionsDropped(functions))

    @rule(count=st.integers(1, 3))
    def cancel_some(self, count):
        self.cancel_next = count

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def cancel_what_runs(self, data):
        """Or what waits to run again."""
        calls = data.draw(st.lists(st.sampled_from(sorted(self.running)), unique=True, min_size=1))
        for call_id in calls:
            del self.running[call_id]
            self.unwanted.add(call_id)
            self.ends[call_id] += 1
        self.handle(Cancelled(calls))

    @rule(retry=st.booleans())
    def retry_what_fails(self, retry):
        self.retry_next = retry

    @rule()
    def cancel_pending(self):
        for call_id in self.waiting:
            self.ends[call_id] += 1
        self.waiting.clear()
        for map_id in self.maps:
            position = self.scheduler.position(map_id)
            for index in range(position, self.grown[map_id]):
                if (map_id, index) in self.pending_items:
                    self.end_item(map_id, index)
        self.handle(CancelPending(frozenset(self.running)))

    # --- pods

    @precondition(lambda self: len(self.pods) < 4)
    @rule(slots=st.integers(1, 4))
    def join(self, slots):
        self.names += 1
        name = f"pod-{self.names}"
        self.pods[name] = Pod(slots)
        self.pods[name].sent = set()
        self.handle(PodJoined(name, slots))

    def draw_pod(self, data):
        return data.draw(st.sampled_from(sorted(self.pods)))

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def pod_gone(self, data):
        self.remove(self.draw_pod(data))

    def remove(self, name):
        in_flight = self.scheduler.in_flight(name)
        pod = self.pods.pop(name)
        self.draining.discard(name)
        held = dict(pod.holding)
        for _, functions, calls in pod.wire:
            if functions is not None:
                held |= {call_id: indices for call_id, _, indices in calls}
        assert set(held) == set(in_flight)
        for call_id, indices in held.items():
            self.losses.update([call_id] if indices is None else indices)
        self.handle(PodGone(name))

    @precondition(lambda self: self.pods)
    @rule(data=st.data(), lose=st.booleans())
    def reported(self, data, lose):
        name = self.draw_pod(data)
        pod = self.pods[name]
        if lose:
            for _, functions, calls in pod.wire:
                if functions is not None:
                    for call_id, _, indices in calls:
                        self.uncount(call_id, indices)
            pod.wire.clear()
            pod.group = self.group
        pod.sent = set()
        self.handle(PodReported(name, pod.group, frozenset(pod.holding)))

    def uncount(self, call_id, indices):
        for index in indices or ():
            self.starts[index] -= 1

    @precondition(lambda self: self.pods)
    @rule(data=st.data())
    def receive(self, data):
        self.deliver(self.draw_pod(data), data.draw(st.integers(1, 3)))

    @precondition(lambda self: any(pod.holding for pod in self.pods.values()))
    @rule(data=st.data(), micros=MICROSECONDS, status=STATUS, repeat=st.booleans())
    def outcomes(self, data, micros, status, repeat):
        name = data.draw(st.sampled_from(sorted(n for n, p in self.pods.items() if p.holding)))
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.pods[name].holding)), max_size=5))
        outcomes = []
        for call_id in chosen:
            self.finish(name, call_id, micros, status, outcomes, data)
        before = self.ends.copy()
        self.handle(Arrived(name, outcomes))
        if repeat:
            before = self.ends.copy()
            self.handle(Arrived(name, outcomes))
            assert before == self.ends

    def finish(self, name, call_id, micros, status, outcomes, data=None):
        holding = self.pods[name].holding
        if call_id not in holding:
            return
        indices = holding[call_id]
        if indices is None:
            del holding[call_id]
            outcomes.append((call_id, 0, status, micros, b""))
            return
        first = self.first_index.setdefault(call_id, indices[0][1])
        some = [indices[0]] if data is None else [data.draw(st.sampled_from(indices))]
        for index in some:
            outcomes.append((call_id, index[1] - first, status, micros, b""))
            holding[call_id] = [other for other in indices if other != index]
        if not holding[call_id]:
            del holding[call_id]

    @property
    def first_index(self):
        if not hasattr(self, "_first_index"):
            self._first_index = {}
        return self._first_index

    @rule(call_id=st.integers(0, 30), item=st.integers(-2, 3), name=st.sampled_from(["pod-1", "x"]))
    def stale_outcome(self, call_id, item, name):
        pod = self.pods.get(name)
        if pod is None or call_id not in self.scheduler.in_flight(name):
            before = self.ends.copy()
            self.handle(Arrived(name, [(call_id, item, RESULT, 1, b"")]))
            assert before == self.ends

    @precondition(lambda self: any(pod.holding for pod in self.pods.values()))
    @rule(data=st.data(), draining=st.booleans())
    def given_back(self, data, draining):
        name = data.draw(st.sampled_from(sorted(n for n, p in self.pods.items() if p.holding)))
        holding = self.pods[name].holding
        calls = data.draw(st.lists(st.sampled_from(sorted(holding)), unique=True))
        for call_id in calls:
            self.uncount(call_id, holding.pop(call_id))
        if draining:
            self.draining.add(name)
        self.handle(GivenBack(name, [*calls, 123_456], draining))

    # --- what must hold

    @invariant()
    def nothing_twice(self):
        if hasattr(self, "ends"):
            assert not self.ends or max(self.ends.values()) == 1
            for key, count in self.losses.items():
                assert count <= self.retries_of(key) + 1, "too many retries"

    @invariant()
    def the_scheduler_knows_what_is_where(self):
        if not hasattr(self, "ends"):
            return
        for name, pod in self.pods.items():
            held = set(pod.holding)
            for _, functions, calls in pod.wire:
                if functions is not None:
                    held |= {call[0] for call in calls}
            assert held == set(self.scheduler.in_flight(name))

    @invariant()
    def no_free_slot_while_calls_wait(self):
        if hasattr(self, "ends") and self.scheduler.waiting:
            slots = sum(p.slots for n, p in self.pods.items() if n not in self.draining)
            busy = sum(
                len(self.scheduler.in_flight(n)) for n in self.pods if n not in self.draining
            )
            if self.max_workers is not None:
                drained = sum(len(self.scheduler.in_flight(n)) for n in self.draining)
                slots = min(slots, self.max_workers - drained)
            assert busy >= min(slots, 1) or self.draining

    def teardown(self):
        """Let everything end: no more faults."""
        if not hasattr(self, "ends"):
            return
        self.cancel_next = 0
        self.retry_next = False
        for name in sorted(self.draining):
            self.remove(name)
        if not self.pods:
            self.join(2)
        for _ in range(5_000):
            if self.scheduler.idle:
                break
            for name in list(self.pods):
                self.deliver(name)
                outcomes = []
                for call_id in list(self.pods[name].holding):
                    self.finish(name, call_id, 100, RESULT, outcomes)
                self.handle(Arrived(name, outcomes))
            self.nothing_twice()
        assert self.scheduler.idle, "it does not come to an end"
        assert not self.waiting
        assert not self.running
        assert not self.pending_items
        assert all(self.ends[call_id] == 1 for call_id in range(1, self.next_call + 1))


TestScheduler = Machine.TestCase
TestScheduler.settings = settings(
    max_examples=400,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
