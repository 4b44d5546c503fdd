"""Both sides of the protocol on a broker that exists in this thread alone, driven by a seed.

The client's manager and the pods' agents are the real ones; threads, sockets, CPU processes and
the clock are not. So thousands of faults take a second, and any run can be had again. What a
real broker and real processes do, other tests show.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import queue
import random
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import msgpack
import pytest

from k8sfutures import bodies, lanes
from k8sfutures.blobs import Blobs
from k8sfutures.control import CancelRequest, MapStarted, Plan
from k8sfutures.errors import BrokerUnreachable, CallTimeout, WorkerCrashed
from k8sfutures.exceptions import dumps_exception
from k8sfutures.link import LinkDown, LinkUp, NobodyThere, Received, Unroutable
from k8sfutures.manager import Manager
from k8sfutures.maps import Map
from k8sfutures.messages import EXCEPTION, RESULT, STDOUT, Attach
from k8sfutures.options import Options
from k8sfutures.output import Printer, cost_of
from k8sfutures.pods import Credentials, PodEnded
from k8sfutures.postponed import Postponed
from k8sfutures.serialization import split
from k8sfutures.worker import agent as agent_module
from k8sfutures.worker import bulk, frames
from k8sfutures.worker.configuration import AgentConfig
from k8sfutures.worker.kept import Room
from k8sfutures.worker.shared_memory import Shared

INLINE = 400
SMALL = {"INLINE_LIMIT": INLINE, "CHUNK_SIZE": 128, "GROUP_LIMIT": 3000}
"""So that what is bulky, and what is too much for one message, is not much."""


MEMORY = 8 * 8000
"""Bytes of a small pod: it keeps no more than some bulky outcomes."""


MANY = 100
"""Retries: a client that is away does not hear why a pod ends, and counts it for lost."""


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._ns = 10**18

    def monotonic(self) -> float:
        return self.now

    def time_ns(self) -> int:
        self._ns += 10**9
        return self._ns


def install(patch: pytest.MonkeyPatch) -> Clock:
    """Have all modules of the package use a clock of ours, and small limits."""
    clock = Clock()
    ours = [module for name, module in sys.modules.items() if name.startswith("k8sfutures.")]
    for module in ours:
        if getattr(module, "time", None) is time:
            patch.setattr(module, "time", clock)
        for name, value in SMALL.items():
            if hasattr(module, name):
                patch.setattr(module, name, value)
        if hasattr(module, "COUNTED"):
            patch.setattr(module, "COUNTED", 600)
    patch.setattr(lanes, "WINDOW", 1024)
    patch.setattr(lanes, "CREDIT_EVERY", 256)
    return clock


class Loop:
    """An event loop that turns when it is told to."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._soon: list[Callable[[], object]] = []
        self._count = itertools.count()
        self.stopped = False

    def call_later(self, seconds: float, function: Callable[[], object]) -> None:
        entry = self._clock.now + seconds, next(self._count), function
        heapq.heappush(self._timers, entry)

    def add_callback_threadsafe(self, function: Callable[[], object]) -> None:
        self._soon.append(function)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True

    def turn(self) -> None:
        while not self.stopped:
            if self._soon:
                self._soon.pop(0)()
            elif self._timers and self._timers[0][0] <= self._clock.now:
                heapq.heappop(self._timers)[2]()
            else:
                return


class Place:
    """A participant's place at the broker: what it sends, and its queue there.

    A `ClientLink` and an `Endpoint` in one.
    """

    def __init__(
        self, broker: Broker, name: str, emit: Callable[[Any], object], *, is_pod: bool
    ) -> None:
        self.broker, self.name, self.emit, self.is_pod = broker, name, emit, is_pod
        self.outbox: collections.deque[tuple[str | None, bytes, bool]] = collections.deque()
        self.queue: collections.deque[Any] | None = None
        self.up = False  # as it sees it itself
        self.untold = False  # that its connection is gone
        self.back_at = 0.0
        self.left = False
        broker.places[name] = self

    # --- for the client and the agent

    def open(self) -> None:
        pass

    def start(self) -> None:
        pass

    def send(self, peer: str, body: bytes) -> None:
        if self.up:
            self.outbox.append((peer, bytes(body), False))

    def broadcast(self, body: bytes, *, urgent: bool = False) -> None:
        if self.up:
            self.outbox.append((None, bytes(body), urgent))

    def close(self, done: Callable[[], None]) -> None:
        while self.queue is not None and self.outbox:
            self.broker.take(self)
        self.queue, self.up, self.left = None, False, True
        done()

    # --- for the test

    def cut(self) -> None:
        """The connection is gone, with some of what was on its way to the broker."""
        for _ in range(self.broker.chance.randrange(len(self.outbox) + 1)):
            self.broker.take(self)
        self.queue, self.untold = None, True

    def notice(self) -> None:
        self.up = self.untold = False
        self.outbox.clear()
        self.emit(LinkDown(BrokerUnreachable("cut")))

    def come_back(self) -> None:
        self.up, self.queue = True, collections.deque()
        self.emit(LinkUp())


class Broker:
    """Queues that go with their owner's connection."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.places: dict[str, Place] = {}
        self.away = False
        self.back_at = 0.0

    def take(self, sender: Place) -> None:
        """Take the next message of a participant."""
        peer, body, urgent = sender.outbox.popleft()
        if peer is None:
            queues = [one.queue for one in self.places.values() if one.is_pod != sender.is_pod]
        else:
            queues = [self.places[peer].queue] if peer in self.places else []
        there = [queue for queue in queues if queue is not None]
        for one in there:
            one.append(Received(body))
        if not there and sender.queue is not None and (peer is not None or urgent):
            sender.queue.append(NobodyThere() if peer is None else Unroutable(peer))

    def deliver(self) -> None:
        """Some messages go on."""
        places = [one for one in self.places.values() if one.queue is not None]
        self.chance.shuffle(places)
        for place in places:
            for _ in range(self.chance.choice([0, 1, 1, 2, 10])):
                if place.queue is not None and place.outbox:
                    self.take(place)
            for _ in range(self.chance.choice([0, 1, 1, 2, 10])):
                if place.queue:
                    place.emit(place.queue.popleft())


class Process:
    """A CPU process, as its agent sees it: tokens, jobs, and what runs."""

    def __init__(self) -> None:
        self.tokens: collections.deque[int] = collections.deque()
        self.jobs: dict[int, dict[str, Any]] = {}
        self.timed: set[int] = set()
        self.runs: tuple[int, int, dict[str, Any]] | None = None
        self.waits = False

    def take(self, frame: tuple[Any, ...]) -> None:
        kind, name, *rest = frame
        if kind == frames.JOBS:
            for token, _, items, start, stop, body in rest[0]:
                left = stop - start if items else 1
                self.jobs[token] = {
                    "client": name,
                    "is_range": bool(items),
                    "next": start,
                    "left": left,
                    "body": body,
                }
        elif kind == frames.FORGET:
            for token in rest[0]:
                self.jobs.pop(token, None)
        elif kind == frames.TIMED:
            self.timed.update(rest[0])
        elif kind == frames.GO_ON:
            self.waits = False

    def begin(self) -> None:
        token = self.tokens.popleft()
        job = self.jobs[token]
        self.runs = token, job["next"], job
        job["next"] += 1
        job["left"] -= 1
        if not job["left"]:
            del self.jobs[token]


class Pod:
    """A real agent with processes that are none; stands in for its `Crew`, too."""

    def __init__(self, simulation: Simulation, name: str, cpus: int) -> None:
        self._simulation = simulation
        self.loop = Loop(simulation.clock)
        self.inbox: collections.deque[Any] = collections.deque()
        self.place = Place(simulation.broker, name, self.inbox.append, is_pod=True)
        self.name = name
        self.processes = {cpu_id: Process() for cpu_id in range(cpus)}
        self._dying: set[int] = set()
        config = AgentConfig(
            name=name,
            node="node",
            key=simulation.key,
            cpu_ids=list(self.processes),
            warm_for=600.0,
        )
        self._emit: Callable[[Any], None]

        def connect(emit: Callable[[Any], None]) -> Place:
            self._emit = emit
            return self.place

        self.agent: Any = agent_module.Agent(config, None, self.loop, connect)  # type: ignore[arg-type]
        self.dispatcher = self.agent._dispatcher
        self.agent._crew = self
        self.dispatcher._room = Room(simulation.chance.choice([None, MEMORY]))
        self.agent.run()

    # --- the crew

    def start(self) -> None:
        for cpu_id in self.processes:
            self._ready(cpu_id)

    def close(self) -> None:
        pass

    def _ready(self, cpu_id: int) -> None:
        self.dispatcher.ready(cpu_id, self._simulation.clock.now)
        self.agent._carry_out()

    def feed(self, feed: Any) -> None:
        process = self.processes[feed.cpu_id]
        for frame in feed.frames:
            process.take(frame)
        process.tokens.extend(feed.tokens)

    def steal(self, cpu_id: int, count: int) -> list[int]:
        tokens = self.processes[cpu_id].tokens
        return [tokens.popleft() for _ in range(min(count, len(tokens)))]

    def kill(self, kill: Any) -> None:
        self._dying.add(kill.cpu_id)

    def end(self, cpu_id: int) -> None:
        if self.dispatcher.decide(cpu_id):
            self._dying.add(cpu_id)

    def on_the_way_out(self, _cpu_ids: list[int]) -> list[int]:
        return sorted(self._dying)

    def retire(self, cpu_id: int) -> None:
        self.processes[cpu_id] = Process()
        self.loop.add_callback_threadsafe(lambda: self._ready(cpu_id))

    # --- what happens

    def turn(self) -> None:
        """The agent takes in what has come, and processes that were killed end."""
        while self.inbox and not self.loop.stopped:
            self._emit(self.inbox.popleft())
        self.loop.turn()
        for cpu_id in sorted(self._dying):
            self._dying.discard(cpu_id)
            dead, self.processes[cpu_id] = self.processes[cpu_id], Process()
            story = {
                "pod": self.name,
                "node": "node",
                "cpu_id": cpu_id,
                "pid": 1,
                "signal": 9,
                "exitcode": None,
                "memory_peak": 0,
                "memory_limit": 0,
            }
            now = self._simulation.clock.now
            self.dispatcher.died(cpu_id, [], list(dead.tokens), story, (), now)
            self._ready(cpu_id)
        self.dispatcher.validate()
        if self.agent.failure is not None:
            raise self.agent.failure

    def meet_another(self) -> None:
        """Another client comes, which has a share of the room, or goes."""
        if "another" in self.dispatcher._clients:
            self.dispatcher.drop("another", 0)
        else:
            now = self._simulation.clock.now
            self.dispatcher.attach("another", Attach((), 0, 1e9, None, None), now)
        self.agent._carry_out()

    def work(self) -> None:
        """A process begins an item, or ends one, or ends with it."""
        chance = self._simulation.chance
        busy = [
            cpu_id
            for cpu_id, one in self.processes.items()
            if one.runs is not None or (one.tokens and not one.waits)
        ]
        if not busy:
            return
        cpu_id = chance.choice(busy)
        process = self.processes[cpu_id]
        if process.runs is None:
            process.begin()
            token, item, job = process.runs or (0, 0, {})
            self._simulation.runs[self._number(job, item)] += 1
            if token in process.timed:
                self._say(cpu_id, (token, item, frames.BEGUN, 0, b""))
        elif chance.random() < 0.01:
            _, item, job = process.runs
            self._simulation.crashed.add(self._number(job, item))
            self._dying.add(cpu_id)
        elif chance.random() < 0.1:
            token, item, job = process.runs
            number = self._number(job, item)
            self._simulation.said[number] += 1
            self._say(cpu_id, (token, item, frames.PRINTED, STDOUT, b"%d\n" % number))
        elif chance.random() < 0.5:
            token, item, job = process.runs
            process.runs = None
            status, body = self._simulation.outcome(self._number(job, item))
            process.waits = type(body) is Shared
            micros = chance.choice([10, 1000, 50_000])
            self._say(cpu_id, (token, item, status, micros, body))

    def _say(self, cpu_id: int, frame: tuple[int, int, int, int, bytes]) -> None:
        self.dispatcher.frames(cpu_id, [frame], self._simulation.clock.now)
        self.agent._carry_out()

    def _number(self, job: dict[str, Any], item: int) -> int:
        """The first argument of an item."""

        def part(number: int) -> memoryview:
            return memoryview(bytearray(self.agent._store._complete[job["client"]][number].data))

        body = job["body"]
        if not job["is_range"]:
            args, _ = bodies.loads(body, part)
            return int(args[0])
        if body[:1] == bytes((bodies.PARTS,)):
            (number,), *_ = bodies.unpacked(body)
            body = bytes(part(number))
        return int(bodies.loads(msgpack.unpackb(body)[item], part)[0])


class Words(Printer):
    """Writes what calls say when it is told to, on no thread of its own."""

    def __init__(self, written: collections.Counter[int]) -> None:
        super().__init__("client")
        self._written = written
        self._thread: Any = self

    def write_one(self) -> None:
        if self._queue.empty():
            return
        saying: Any = self._queue.get()
        if callable(saying):
            saying()
            return
        self._written.update(map(int, saying.body.split()))
        self._waiting -= cost_of(saying.body)
        self._done += 1


class Stub:
    """Stands in for the provisioning thread, of which nothing is wanted."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_args, **_kwargs: None


def one(number: int, _ballast: bytes) -> int:
    return number


def two(number: int, _ballast: bytes) -> int:
    return number


BALLAST = [bytes([kind]) * 2000 for kind in range(3)]


class Simulation:
    """A client with its calls and maps, pods, and what befalls them.

    Args:
        seed: of all choices.
        clock: from `install`.
        cruel: whether pods are killed, and whoever is away may be so for long: then calls may run
            again, which they may not otherwise.
    """

    def __init__(self, seed: int, clock: Clock, *, cruel: bool) -> None:
        self.chance = random.Random(seed)
        self.clock, self.cruel = clock, cruel
        self.broker = Broker(self.chance)
        self.key = b"k" * 32
        self.runs: collections.Counter[int] = collections.Counter()
        self.said: collections.Counter[int] = collections.Counter()
        self.written: collections.Counter[int] = collections.Counter()
        self.early: list[int] = []
        self.crashed: set[int] = set()
        self._fails: dict[int, int] = {}  # how often a call will raise
        self._failed: collections.Counter[int] = collections.Counter()
        self._timed: set[int] = set()
        self._cancelled: set[int] = set()
        self._futures: dict[int, Future[Any]] = {}
        self._maps: list[tuple[Map, list[int]]] = []
        self._numbers, self._names = itertools.count(), itertools.count()
        self._map_ids = itertools.count(1)
        self.pods: list[Pod] = []
        source: Any = SimpleNamespace(eager=False, after_broker=False, explains=False)
        self.manager: Any = Manager(
            Plan(
                name="client",
                pool="pool",
                source=source,
                connect=self._connect,
                max_workers=None,
                max_tasks_per_child=None,
                initializer=None,
                surroundings=b"",
                within=None,
                blobs=Blobs(),
                shape={},
                retries=10**6,
                startup_timeout=1e9,
                flush_window=0.0,
                output="marked",
            )
        )
        self.words = self.manager._printer = Words(self.written)
        self.manager._postponed = Postponed(self.words, self.manager._inbox.put)
        self.manager._provisioner = Stub()
        self.manager.thread = threading.current_thread()
        self.manager._handle(Credentials("amqp://user:password@host/%2F", self.key, None))
        self.client = self.broker.places["client"]
        self._start_pod()
        self.client.come_back()

    def _connect(self, _found: object, _pool: str, name: str, emit: Any) -> Any:
        return Place(self.broker, name, emit, is_pod=False)

    def _start_pod(self) -> None:
        name = f"pod-{next(self._names)}"
        self.pods.append(Pod(self, name, self.chance.choice([1, 2, 3])))
        if not self.broker.away:
            self.pods[-1].place.come_back()

    def _start_pod_if_none(self) -> None:
        if all(pod.agent._ending for pod in self.pods):
            self._start_pod()

    def outcome(self, number: int) -> tuple[int, bytes]:
        """What becomes of a call that runs to its end."""
        if self._failed[number] < self._fails.get(number, 0):
            self._failed[number] += 1
            return EXCEPTION, dumps_exception(KeyError(number))
        value = number, bytes(self.chance.choice([0, 0, 0, 500, 3000]))
        body, file = bulk.outcome_body(*split(value, INLINE))
        return RESULT, body if file is None else Shared.of(body, file)

    # --- what happens

    def step(self) -> None:
        """One thing, and everybody looks at what has come."""
        chance, at = self.chance, self.chance.random()
        if at < 0.05:
            self._submit()
        elif at < 0.055:
            self._cancel()
        elif at < 0.065:
            self._cut(chance.choice(list(self.broker.places.values())), [0, 0.3, 1.2])
        elif at < 0.068:
            self._broker_goes()
        elif at < 0.072:
            if len(self.pods) < 4:
                self._start_pod()
        elif at < 0.076:
            chance.choice(self.pods).agent.drain("told to")
            self._start_pod_if_none()
        elif at < 0.082:
            chance.choice(self.pods).meet_another()
        elif at < 0.094 and self.cruel:
            self._be_cruel()
        elif at < 0.4:
            self.clock.now += chance.choice([0.001, 0.01, 0.1, 0.3])
        else:
            for pod in self.pods:
                pod.work()
        self._come_back(quick=False)
        if chance.random() < 0.8:
            self.broker.deliver()
        self._turn()

    def _submit(self) -> None:
        chance = self.chance
        for _ in range(chance.choice([1, 1, 3, 20])):
            number, future = next(self._numbers), Future[Any]()
            ballast = chance.choice([b"", b"", chance.randbytes(300), chance.choice(BALLAST)])
            function = self.manager.functions.get(chance.choice([one, two]))
            body = self.manager.blobs.dumps(((number, ballast), {}))
            call = next(self.manager.call_ids), function.id, 0, body
            if chance.random() < 0.15:
                self._fails[number] = chance.randint(1, 3)
                timeout = chance.choice([None, None, 2.0])
                if timeout is not None:
                    self._timed.add(number)
                self.manager.chosen[call[0]] = Options(MANY, (KeyError,), timeout)
            self.manager.submit(future, call, function)
            self._futures[number] = future
            future.add_done_callback(lambda future, number=number: self._done(number, future))
        if chance.random() < 0.2:
            function = self.manager.functions.once(one)
            map_ = Map(next(self._map_ids), function, self.manager.blobs)
            numbers = [next(self._numbers) for _ in range(chance.choice([1, 5, 40]))]
            map_.add([(n, chance.choice([b"", BALLAST[0], bytes(500)])) for n in numbers])
            self.manager.post(MapStarted(map_, len(numbers), chance.choice([None, 3, 10])))
            self._maps.append((map_, numbers))

    def _done(self, number: int, future: Future[Any]) -> None:
        """What a call has said is written before its outcome is there."""
        excused = number in self._cancelled or self.cruel or self.manager._postponed._is_stuck
        if not excused and self.written[number] != self.said[number]:
            self.early.append(number)

    def _cancel(self) -> None:
        pending = [number for number, future in self._futures.items() if not future.done()]
        if pending:
            number = self.chance.choice(pending)
            self._cancelled.add(number)
            if not self._futures[number].cancel():
                self.manager.cancel(CancelRequest(self._futures[number]))

    def _cut(self, place: Place, seconds: list[float]) -> None:
        if place.queue is not None:
            place.cut()
            place.back_at = self.clock.now + self.chance.choice(seconds)

    def _broker_goes(self) -> None:
        if self.broker.away:
            return
        self.broker.away = True
        self.broker.back_at = self.clock.now + self.chance.choice([0.1, 2, 10, 100])
        for place in self.broker.places.values():
            if place.queue is not None:
                place.cut()
            place.back_at = self.broker.back_at + self.chance.choice([0, 0.5, 3])

    def _be_cruel(self) -> None:
        pod = self.chance.choice(self.pods)
        what = self.chance.choice(["kill", "pod away", "client away"])
        if what == "pod away":
            self._cut(pod.place, [5, 20])
        elif what == "client away":
            self._cut(self.client, [5, 20, 90])
        else:
            self.pods.remove(pod)
            del self.broker.places[pod.name]
            if self.chance.random() < 0.5:
                self.manager._inbox.put(PodEnded(pod.name, "killed", failed=False))
            self._start_pod_if_none()

    def _come_back(self, *, quick: bool) -> None:
        now = self.clock.now
        self.broker.away = self.broker.away and not quick and now < self.broker.back_at
        for place in list(self.broker.places.values()):
            if place.untold and (quick or self.chance.random() < 0.5):
                place.notice()
            late = self.broker.away or (now < place.back_at and not quick)
            if place.queue is None and not (place.untold or place.left or late):
                place.come_back()

    def _turn(self) -> None:
        manager = self.manager
        while True:
            try:
                item = manager._inbox.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, Received):
                manager._act(manager._session.received(item.body))
            else:
                manager._handle(item)
        if self.chance.random() < 0.7:
            self.words.write_one()
        if manager.broken is not None:
            raise manager.broken
        manager._take_submitted()
        manager._on_time(self.clock.now)
        manager._scheduler.validate()
        for pod in list(self.pods):
            pod.turn()
            if pod.loop.stopped:
                self.pods.remove(pod)
                del self.broker.places[pod.name]
                manager._inbox.put(PodEnded(pod.name, "it has ended", failed=False))
                self._start_pod_if_none()

    # --- the end

    def finish(self) -> None:
        """All comes back, nothing befalls anybody any more; then all must be done, and right."""
        for _ in range(20_000):
            if not self._left():
                break
            self.clock.now += 0.05
            self._come_back(quick=True)
            for pod in self.pods:
                pod.work()
            self.broker.deliver()
            self._turn()
        assert self._left() == [], "these hang"
        assert self.early == [], "these were done before their words were written"
        for number, future in self._futures.items():
            if number not in self._cancelled:
                self._check(number, future.result)
        for map_, numbers in self._maps:
            for index, number in enumerate(numbers):
                self._check(number, lambda map_=map_, index=index: map_.take(index, None))

    def _left(self) -> list[int]:
        left = [number for number, future in self._futures.items() if not future.done()]
        return left + [numbers[0] for map_, numbers in self._maps if map_.unsettled]

    def _check(self, number: int, result: Callable[[], Any]) -> None:
        try:
            assert result()[0] == number
        except WorkerCrashed:
            assert number in self.crashed
        except CallTimeout:
            assert number in self._timed
        times = 1 + self._failed[number]
        assert self.cruel or self.runs[number] == times, f"{number} ran {self.runs[number]} times"
