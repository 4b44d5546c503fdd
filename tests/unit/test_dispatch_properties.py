"""The dispatcher under random events; the machine plays clients and CPU processes.

A process claims the oldest token in its pipe, runs one item, and says so; what it has said waits
until the agent reads it, so it is often further than the dispatcher knows.
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

from k8sfutures.bulk_memory import MOST_KEPT, PART_OF_MEMORY
from k8sfutures.messages import (
    CRASHED,
    EXCEPTION,
    RESULT,
    Attach,
    Cancel,
    Group,
    Hello,
    NotInitialized,
    Printed,
    Recall,
    Renew,
    Results,
    Returned,
)
from k8sfutures.worker import frames as kinds
from k8sfutures.worker.dispatch import Dispatcher
from k8sfutures.worker.instructions import Drop, End, Feed, Kill, Retire, Send, Steal
from k8sfutures.worker.shared_memory import Shared

VERSIONS = ("3.13", 1, "3.1")
TEMPLATE = Hello("pod", "node", 1, [0], VERSIONS, False, 0, [], 0, {}, 0, [])
MOST_INSTRUCTIONS = 100  # for one event, with 3 processes
LEASE = 10.0
CALLS = st.tuples(st.integers(1, 3), st.integers(0, 2) | st.integers(0, 12))
SELDOM = st.sampled_from([False] * 7 + [True])
NEEDS = st.lists(st.integers(0, 3), max_size=2)  # of a call: the newest blobs, or new ones
BULKY = MOST_KEPT // 3 + 1
MICROSECONDS = st.sampled_from([0, 10, 50, 300, 5_000, 2_000_000])


class Job:
    def __init__(self, client, function, items, start, stop, body):
        self.client, self.function, self.body = client, function, body
        self.left = stop - start if items else 1
        self.next = start


class Process:
    """What `cpu_process` does with its two channels."""

    def __init__(self):
        self.pipe = deque()
        self.jobs = {}
        self.functions = {}
        self.blobs = {}
        self.initializers = {}
        self.current = None  # (token, item, session, call id)
        self.said = []
        self.ran = Counter()
        self.timed = set()
        self.begun = {}  # (token, item) -> ((session, call id, item), its limit)
        self.waits = False  # it has said something bulky

    def feed(self, frames, tokens):
        for kind, name, *rest in frames:
            if kind == kinds.GO_ON:
                assert self.waits, "it does go on"
                self.waits = False
            elif kind == kinds.JOBS:
                for token, *row in rest[0]:
                    assert token not in self.jobs
                    assert row[0] in self.functions[name], "a job without its function"
                    self.jobs[token] = Job(name, *row)
            elif kind == kinds.TIMED:
                assert self.jobs.keys().isdisjoint(rest[0])
                self.timed.update(rest[0])
            elif kind == kinds.FUNCTIONS:
                known = self.functions.setdefault(name, set())
                assert known.isdisjoint(rest[0]), "a function that the process has"
                known.update(rest[0])
            elif kind == kinds.RELEASE:
                self.functions.get(name, set()).difference_update(rest[0])
            elif kind == kinds.LEAVE:
                self.functions.pop(name, None)
                self.blobs.pop(name, None)
            elif kind == kinds.DROP:
                known = self.blobs[name]
                assert not known.isdisjoint(rest[0]), "told of nothing that it has"
                known.difference_update(rest[0])
            elif kind == kinds.INITIALIZE:
                assert name not in self.initializers
                self.initializers[name] = True
            elif kind == kinds.FORGET:
                for token in rest[0]:
                    assert token not in self.pipe
                    self.jobs.pop(token, None)
        self.pipe.extend(tokens)


class Session:
    """One attachment of a client."""

    def __init__(self, serial, name, limit, max_tasks, initializer):
        self.serial, self.name, self.limit = serial, name, limit
        self.max_tasks, self.initializer = max_tasks, initializer
        self.group = 0
        self.next_call = 0
        self.functions = set()
        self.open = {}  # call id -> (function, items without outcome)
        self.limits = {}  # call id -> seconds
        self.cancelled = set()
        self.started = set()
        self.results = 0
        self.failed = False
        self.fails = False  # its initializer has ended a process, and no other could do better
        self.second_tries = set()  # calls of which one was killed before they began
        self.received = set()
        self.blobs = 0  # ids that were given
        self.needs = {}  # call id -> ids of blobs; a function's by its negative
        self.coming = set()
        self.there = set()
        self.ended = set()  # and no call to come needs them
        self.attaching = False

    def needs_of(self, call_id, function):
        return {*self.needs.get(call_id, ()), *self.needs.get(-function, ())}


class Machine(RuleBasedStateMachine):
    @initialize(
        cpus=st.integers(1, 3),
        limits=st.lists(st.integers(1, 3), max_size=2),
        memory=st.sampled_from([None, MOST_KEPT * PART_OF_MEMORY]),
    )
    def start(self, cpus, limits, memory):
        self.dispatcher = Dispatcher(list(range(cpus)), memory=memory)
        self.processes = dict.fromkeys(range(cpus))
        self.killed = set()
        self.halted = set()
        self.feared = {}  # by CPU id: keys of what a process that is halted may never begin
        self.ended = set()  # those of the killed that are so for what they run
        self.due = {}  # (session serial, call id, item) -> when it has run for too long
        self.sessions = {}
        self.names = self.serials = 0
        self.now = 0.0
        self.draining = False
        for cpu_id in range(cpus):
            self.spawn(cpu_id)
        for limit in limits:
            self.attach(limit, None, initializer=False, again=False)

    # --- carrying out

    def carry_out(self):
        count = 0
        while instructions := self.dispatcher.take():
            for instruction in instructions:
                count += 1
                assert count < MOST_INSTRUCTIONS, "instructions without end"
                self.carry_out_one(instruction)
        self.dispatcher.validate()

    def carry_out_one(self, instruction):
        if isinstance(instruction, Send):
            self.receive(instruction.client, instruction.message)
            return
        if isinstance(instruction, Drop):
            self.drop(self.sessions[instruction.client], instruction.blobs)
            return
        process = self.processes[instruction.cpu_id]
        match instruction:
            case Feed():
                assert process is not None or not instruction.tokens
                self.feed(instruction, process)
            case Steal():
                taken = []
                if process is not None:
                    count = min(instruction.count, len(process.pipe))
                    taken = [process.pipe.popleft() for _ in range(count)]
                self.dispatcher.stolen(instruction.cpu_id, taken)
            case End():
                if process is not None and instruction.cpu_id not in self.killed:
                    if process.said:
                        self.hear(instruction.cpu_id)
                    if self.dispatcher.decide(instruction.cpu_id):
                        self.ends(instruction.cpu_id, process)
            case Kill():
                if process is not None:
                    self.killed.add(instruction.cpu_id)
            case Retire():
                assert not process.pipe
                assert process.current is None
                assert not process.said
                self.processes[instruction.cpu_id] = None
                for some in (self.killed, self.halted, self.ended):
                    some.discard(instruction.cpu_id)

    def feed(self, instruction, process):
        if instruction.tokens:
            client = self.dispatcher._clients[instruction.client]
            assert not client.kept.is_full, "more to do for who does not take what is done"
        if process is not None:
            assert not (instruction.tokens and instruction.cpu_id in self.killed | self.halted)
            if instruction.blobs:
                self.give_blobs(process, instruction.client, set(instruction.blobs))
            process.feed(instruction.frames, instruction.tokens)

    def ends(self, cpu_id, process):
        """It is ended for what it runs, which is cancelled, or has run for too long."""
        _, item, job = process.current
        session, call_id = self.owner(job)
        assert not process.pipe, "something may begin behind it"
        if session is not None:  # else its client has left, and nobody wants it
            late = self.due.get((session.serial, call_id, item), self.now + 1) <= self.now
            assert late or call_id in session.cancelled
        self.killed.add(cpu_id)
        self.ended.add(cpu_id)

    def give_blobs(self, process, name, blobs):
        known = process.blobs.setdefault(name, set())
        assert blobs <= self.sessions[name].there, "blobs that have not arrived"
        assert known.isdisjoint(blobs), "blobs that the process has"
        known |= blobs

    def drop(self, session, blobs):
        assert set(blobs) <= session.ended, "blobs that may be needed"
        for call_id, (function, _) in session.open.items():
            if self.dispatcher._clients[session.name].held.get(call_id):
                assert session.needs_of(call_id, function).isdisjoint(blobs)
        session.there.difference_update(blobs)

    def receive(self, name, message):
        session = self.sessions[name]
        match message:
            case Results():
                assert message.number <= session.results + 1, "results with a gap"
                if message.number == session.results + 1:
                    session.results += 1
                    for call_id, item, _, _, _ in message.outcomes:
                        assert item in session.open[call_id][1], "a second outcome"
                        session.open[call_id][1].discard(item)
                        if not session.open[call_id][1]:
                            del session.open[call_id]
            case Returned():
                assert message.draining == self.draining
                for call_id in message.calls:
                    _, items = session.open.pop(call_id)
                    assert not any((call_id, item) in session.started for item in items)
            case NotInitialized():
                assert not session.failed
                assert session.fails or message.status == EXCEPTION
                session.failed = True
            case Hello():
                assert message.results <= session.results
                assert message.group == session.group
                assert set(message.blobs) == session.there
                lost = session.open.keys() - set(message.holding)
                if not session.failed:
                    for call_id in lost:
                        assert session.attaching, "a call that is nowhere"
                        function, _ = session.open[call_id]
                        needs = session.needs_of(call_id, function)
                        assert not needs <= session.there, "a call that could run"
                for call_id in lost:
                    del session.open[call_id]
            case Printed():
                assert message.number <= session.results + 1, "output with a gap"
                session.results = max(session.results, message.number)

    def spawn(self, cpu_id):
        self.processes[cpu_id] = Process()
        self.killed.discard(cpu_id)
        self.dispatcher.ready(cpu_id)
        self.carry_out()

    # --- clients

    @precondition(lambda self: len(self.sessions) < 3 and not self.draining)
    @rule(
        limit=st.integers(1, 3),
        max_tasks=st.none() | st.integers(1, 4),
        initializer=SELDOM,
        again=st.booleans(),
    )
    def attach(self, limit, max_tasks, initializer, again):
        if not again or not self.names or f"client-{self.names}" in self.sessions:
            self.names += 1
        name = f"client-{self.names}"
        self.serials += 1
        initializer = b"initializer" if initializer else None
        self.sessions[name] = Session(self.serials, name, limit, max_tasks, initializer)
        self.dispatcher.attach(name, Attach(VERSIONS, 0, LEASE, initializer, max_tasks), self.now)
        self.dispatcher.hello(name, TEMPLATE)
        self.carry_out()
        assert self.dispatcher.clients == list(self.sessions)

    def draw(self, data):
        return self.sessions[data.draw(st.sampled_from(sorted(self.sessions)))]

    @precondition(lambda self: self.sessions)
    @rule(
        data=st.data(),
        calls=st.lists(CALLS, max_size=8),
        needs=st.lists(NEEDS, max_size=8),
        lost=SELDOM,
        limit=st.none() | st.sampled_from([0.05, 0.15, 1.0]),
    )
    def group(self, data, calls, needs, lost, limit):
        self.send_group(self.draw(data), calls, lost, needs, limit)

    @precondition(lambda self: self.sessions)
    @rule(
        data=st.data(),
        calls=st.lists(CALLS, min_size=1, max_size=8),
        seconds=st.sampled_from([0.1, 0.2]),
        read=st.booleans(),
        end=st.sampled_from(["late", "cancelled", "late and heard", "late and done"]),
    )
    def what_runs_is_ended(self, data, calls, seconds, read, end):
        """What has a limit runs, for too long or not, or is cancelled, whatever was heard of it."""
        session = self.draw(data)
        self.send_group(session, calls, lost=False, limit=0.15)
        for cpu_id in self.live():
            process = self.processes[cpu_id]
            if cpu_id not in self.killed | self.halted:
                for _ in range(data.draw(st.integers(1, 5))):
                    if process.current is None:
                        self.claim(process)
                    elif process.pipe:
                        self.finish(process, 10, fail=False)
                if process.said and read:
                    self.read_from(cpu_id)
        if end == "cancelled":
            self.cancel(data)
            return
        self.time_passes(late=False, away=False, seconds=seconds)
        for cpu_id in self.live():
            process = self.processes[cpu_id]
            if end != "late" and cpu_id in self.ended and process.current is not None:
                self.what_is_ended_says_something(data, result=end == "late and done")

    def blob(self, session, back):
        """One of the newest blobs, unless it has ended; or a new one, which is on its way."""
        number = session.blobs - back
        if back and number > 0 and number not in session.ended:
            return number
        session.blobs += 1
        session.coming.add(session.blobs)
        return session.blobs

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), items=st.integers(5, 40), short=st.booleans())
    def a_long_range(self, data, items, short):
        """After an item of the same function, so that its duration is known."""
        session = self.draw(data)
        self.send_group(session, [(1, 0)], lost=False)
        for cpu_id in self.live():
            process = self.processes[cpu_id]
            idle = cpu_id not in self.killed | self.halted and process.current is None
            if short and process.pipe and idle:
                self.claim(process)
                if process.current is not None:  # it may wait to be told to go on
                    self.finish(process, 20, fail=False)
                    self.read_from(cpu_id)
        self.send_group(session, [(1, items)], lost=False)

    def send_group(self, session, calls, lost, needs=(), limit=None):
        functions = {function: b"f" for function, _ in calls}
        new = {
            number: body for number, body in functions.items() if number not in session.functions
        }
        share = []
        session.group += 1 + lost
        for function, items in calls:
            session.next_call += 1
            if limit is not None:
                session.limits[session.next_call] = limit
            session.open[session.next_call] = (function, set(range(items or 1)))
            body = f"{session.serial}:{session.next_call}".encode()
            share.append((session.next_call, function, items, body))
        session.functions |= set(new)
        limits = {} if limit is None else {call[0]: limit for call in share}
        wanted = {}
        for call, backs in zip(share, needs, strict=False):
            if backs:
                wanted[call[0]] = [self.blob(session, back) for back in backs]
        if needs and new:
            function = min(new)
            wanted[-function] = session.needs[-function] = [self.blob(session, len(new))]
        session.needs |= {number: blobs for number, blobs in wanted.items() if number > 0}
        message = Group(session.group, new, [], {}, wanted, limits)
        self.dispatcher.group(session.name, message, (session.limit, share), self.now)
        self.carry_out()
        self.dispatcher.group(session.name, message, (session.limit, share), self.now)
        assert not self.dispatcher.take(), "the same group again"

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), function=st.integers(1, 3))
    def release(self, data, function):
        session = self.draw(data)
        if any(used == function for used, _ in session.open.values()) or session.failed:
            return
        session.group += 1
        session.functions.discard(function)
        session.needs.pop(-function, None)
        self.dispatcher.group(
            session.name, Group(session.group, {}, [function], {}, {}), (0, []), self.now
        )
        self.carry_out()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def unknown_function(self, data):
        session = self.draw(data)
        session.group += 1
        session.next_call += 1
        session.open[session.next_call] = (99, {0})
        share = (session.limit, [(session.next_call, 99, 0, b"")])
        self.dispatcher.group(session.name, Group(session.group, {}, [], {}, {}), share, self.now)
        self.carry_out()
        assert session.next_call not in session.open

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def recall(self, data):
        session = self.draw(data)
        calls = data.draw(st.lists(st.integers(1, session.next_call + 1), max_size=4))
        self.dispatcher.recall(session.name, Recall(calls))
        self.carry_out()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def cancel(self, data):
        """Submitted calls; those that have not begun come back, and the others are ended."""
        session = self.draw(data)
        single = sorted(call for call, (_, items) in session.open.items() if items == {0})
        if not single or session.failed:
            return
        calls = data.draw(st.lists(st.sampled_from(single), unique=True, min_size=1, max_size=4))
        session.cancelled.update(calls)
        self.dispatcher.cancel(session.name, Cancel([*calls, 999_999]))
        self.carry_out()
        self.dispatcher.flush()
        self.carry_out()
        for call_id in calls:
            if call_id in session.open:
                assert (call_id, 0) in session.started, "it has neither begun nor come back"

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), behind=st.integers(0, 2))
    def renew(self, data, behind):
        session = self.draw(data)
        message = Renew(session.group, max(0, session.results - behind), [])
        self.dispatcher.renew(session.name, message, self.now)
        self.carry_out()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data())
    def hello(self, data):
        session = self.draw(data)
        self.dispatcher.hello(session.name, TEMPLATE)
        self.carry_out()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), most=st.integers(1, 4))
    def blobs_arrive(self, data, most):
        """In any order."""
        session = self.draw(data)
        for _ in range(min(most, len(session.coming))):
            self.arrive(session, data.draw(st.sampled_from(sorted(session.coming))))

    def all_blobs_arrive(self):
        for session in self.sessions.values():
            for blob in sorted(session.coming):
                self.arrive(session, blob)

    def arrive(self, session, blob):
        session.coming.discard(blob)
        session.there.add(blob)
        self.dispatcher.arrived(session.name, blob)
        self.carry_out()

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), oldest=st.integers(1, 4))
    def blobs_end(self, data, oldest):
        """Those whose chunks have all been sent; calls that are there may still need them."""
        session = self.draw(data)
        functions = [number for number in session.needs if number < 0]
        needed = {blob for number in functions for blob in session.needs[number]}
        alive = set(range(1, session.blobs + 1)) - session.ended - session.coming - needed
        ending = sorted(alive)[:oldest]
        session.ended.update(ending)
        self.dispatcher.renew(session.name, Renew(session.group, session.results, ending), self.now)
        self.carry_out()

    @precondition(lambda self: self.sessions and not self.draining)
    @rule(data=st.data())
    def attach_again(self, data):
        """What was under way is lost, and sent anew with the calls that need it."""
        session = self.draw(data)
        session.attaching = True
        attach = Attach(VERSIONS, session.group, LEASE, session.initializer, session.max_tasks)
        self.dispatcher.attach(session.name, attach, self.now)
        self.dispatcher.hello(session.name, TEMPLATE)
        self.carry_out()
        session.attaching = False

    @precondition(lambda self: self.sessions)
    @rule(data=st.data(), signal=st.sampled_from([0, 9, 15]), really=SELDOM)
    def leave(self, data, signal, really):
        if not really:
            return
        session = self.draw(data)
        del self.sessions[session.name]
        self.dispatcher.drop(session.name, signal)
        self.carry_out()
        self.dispatcher.drop(session.name, signal)
        assert not self.dispatcher.take()

    @rule(late=SELDOM, away=st.booleans())
    def time_passes(self, late, away, seconds=0.1):
        seconds = 11.0 if late else seconds
        self.now += seconds
        if away:
            self.dispatcher.postpone(seconds)
        elif seconds > LEASE:
            self.sessions.clear()
        else:
            for name, session in self.sessions.items():
                self.dispatcher.renew(name, Renew(session.group, 0, []), self.now)
        self.dispatcher.tick(self.now)
        self.dispatcher.expire(self.now)
        self.carry_out()
        due = self.dispatcher.endings.due()
        assert due is None or due > self.now
        assert self.dispatcher.clients == list(self.sessions)

    @rule(really=SELDOM)
    def drain(self, really):
        if not really:
            return
        self.draining = True
        self.dispatcher.drain()
        self.carry_out()

    @rule()
    def flush(self):
        self.dispatcher.flush()
        self.carry_out()
        assert not self.dispatcher.has_outcomes()

    # --- processes

    def live(self):
        return sorted(cpu_id for cpu_id, process in self.processes.items() if process is not None)

    @rule(
        data=st.data(),
        steps=st.integers(1, 6),
        micros=MICROSECONDS,
        fail=SELDOM,
        read=st.booleans(),
    )
    def work(self, data, steps, micros, fail, read):
        """A process goes on: it may end what it runs, start more, and leave one running."""
        live = [
            cpu_id
            for cpu_id in self.live()
            if cpu_id not in self.killed | self.halted
            and (self.processes[cpu_id].pipe or self.processes[cpu_id].current)
        ]
        if not live:
            return
        cpu_id = data.draw(st.sampled_from(live))
        process = self.processes[cpu_id]
        for _ in range(steps):
            if process.current is None:
                self.claim(process)
            else:
                self.finish(process, micros, fail)
        if read and process.said:
            self.read_from(cpu_id)

    def claim(self, process):
        if not process.pipe or process.waits:
            return
        token = process.pipe.popleft()
        job = process.jobs[token]
        item = job.next
        job.next += 1
        job.left -= 1
        if not job.left:
            del process.jobs[token]
        process.current = (token, item, job)
        session, call_id = self.owner(job)
        assert session is not None, "an item of a client that has left"
        has = process.blobs.get(job.client, set())
        assert session.needs_of(call_id, job.function) <= has, "an item without what it needs"
        process.ran[session.serial] += 1
        if session.max_tasks is not None:
            assert process.ran[session.serial] <= session.max_tasks
        assert bool(session.initializer) == (job.client in process.initializers)
        if not process.initializers.get(job.client):
            self.begin(process)

    def begin(self, process):
        """The function of an item is called now, after the initializer."""
        token, item, job = process.current
        session, call_id = self.owner(job)
        limited = session is not None and call_id in session.limits
        if session is not None:
            assert (call_id, item) not in session.started, "an item that starts twice"
            session.started.add((call_id, item))
            assert limited == (token in process.timed)
        if limited:
            process.begun[token, item] = (session.serial, call_id, item), session.limits[call_id]
            process.said.append((token, item, kinds.BEGUN, 0, b""))

    def owner(self, job):
        """The session that a job belongs to, if it is still there, and the call's id."""
        serial, call_id = map(int, job.body.split(b":"))
        session = self.sessions.get(job.client)
        if session is not None and session.serial != serial:
            session = None
        return session, call_id

    def finish(self, process, micros, fail):
        token, item, job = process.current
        process.current = None
        if fail and process.initializers.get(job.client):  # it has not been run
            process.said.append((token, item, kinds.INITIALIZER_RAISED, 0, b"e"))
            return
        if process.initializers.get(job.client):
            process.initializers[job.client] = False
            process.said.append((token, item, kinds.INITIALIZED, 0, b""))
            process.current = (token, item, job)
            self.begin(process)
            process.current = None
        if fail:
            process.said.append((token, item, kinds.PRINTED, 1, b"text \xff"))
        body = b"r"
        if micros == 300:
            body = Shared(b"r")
            body.memory = range(BULKY)  # it has a length, and that is all that counts
            process.waits = True
        process.said.append((token, item, EXCEPTION if fail else RESULT, micros, body))

    @rule(data=st.data())
    def read(self, data):
        talking = [cpu_id for cpu_id in self.live() if self.processes[cpu_id].said]
        if talking:
            self.read_from(data.draw(st.sampled_from(talking)))

    def read_from(self, cpu_id):
        self.hear(cpu_id)
        self.carry_out()

    def hear(self, cpu_id):
        process = self.processes[cpu_id]
        said, process.said = process.said, []
        for token, item, status, *_ in said:
            if status == kinds.BEGUN:
                key, limit = process.begun[token, item]
                self.due[key] = self.now + limit
        self.dispatcher.frames(cpu_id, said, self.now)

    @precondition(lambda self: self.killed)
    @rule(data=st.data(), result=st.booleans())
    def what_is_ended_says_something(self, data, result):
        cpu_id = data.draw(st.sampled_from(sorted(self.killed)))
        process = self.processes[cpu_id]
        if process.current is None or cpu_id not in self.ended:
            return
        token, item, job = process.current
        if result:
            self.finish(process, 10, fail=False)
            self.read_from(cpu_id)
        elif not process.initializers.get(job.client):
            process.said.append((token, item, EXCEPTION, 10, b"r"))
            self.read_from(cpu_id)

    @rule(data=st.data(), really=SELDOM, number=st.sampled_from([None, 9, 11]))
    def crash(self, data, really, number):
        live = self.live()
        if live and really:
            self.end_process(data.draw(st.sampled_from(live)), number)

    @precondition(lambda self: self.killed)
    @rule()
    def killed_ones_end(self):
        self.end_process(min(self.killed))

    def end_process(self, cpu_id, number=None):
        process = self.processes[cpu_id]
        session = self.dies_initializing(cpu_id, number)
        self.processes[cpu_id] = None
        for some in (self.killed, self.halted, self.ended):
            some.discard(cpu_id)
        crashes = self.crashes()
        self.dispatcher.died(cpu_id, process.said, list(process.pipe), {"signal": number})
        ran = process.current is not None and self.owner(process.current[2])[0] is not None
        ran = ran and session is None
        assert self.crashes() - crashes == ran, "what ran has crashed, and nothing else"
        self.carry_out()
        assert session is None or session.failed or not session.fails, "nobody is told"

    def dies_initializing(self, cpu_id, number):
        """The client whose initializer a process dies in, by itself."""
        process = self.processes[cpu_id]
        if process.current is None or cpu_id in self.ended:
            return None
        session, call_id = self.owner(process.current[2])
        if session is None or not process.initializers.get(session.name):
            return None
        session.fails = session.fails or number != 9 or call_id in session.second_tries
        session.second_tries.add(call_id)
        return session

    def crashes(self):
        """Those that wait to be sent, and those that have been and are not confirmed."""
        return sum(
            outcome[2] == CRASHED
            for client in self.dispatcher._clients.values()
            for outcomes in (client.outcomes, *(sent.outcomes for sent in client._unconfirmed))
            for outcome in outcomes
        )

    @rule(data=st.data(), really=SELDOM)
    def halt(self, data, really):
        """Somebody stops a process."""
        going = [cpu_id for cpu_id in self.live() if cpu_id not in self.killed | self.halted]
        if not (going and really):
            return
        cpu_id = data.draw(st.sampled_from(going))
        process = self.processes[cpu_id]
        if process.said:
            self.read_from(cpu_id)
        if self.processes[cpu_id] is not process or cpu_id in self.killed:
            return  # what it has said was the last that it did
        self.halted.add(cpu_id)
        if process.current is not None:
            _, item, job = process.current
            session, call_id = self.owner(job)
            if session is not None and call_id in session.limits:
                key = session.serial, call_id, item
                if key not in self.due:
                    self.feared[cpu_id] = key
                    self.due[key] = self.now + session.limits[call_id]
        self.dispatcher.halted(cpu_id, self.now, stopped=True)
        self.carry_out()
        assert not process.pipe, "it keeps what others could run"

    @precondition(lambda self: self.halted)
    @rule()
    def go_on(self):
        cpu_id = min(self.halted)
        self.halted.discard(cpu_id)
        self.due.pop(self.feared.pop(cpu_id, None), None)
        self.dispatcher.halted(cpu_id, self.now, stopped=False)
        self.carry_out()

    @invariant()
    def what_is_halted_has_its_limit(self):
        for cpu_id in getattr(self, "halted", ()):
            process = self.processes[cpu_id]
            if process.current is not None and cpu_id not in self.killed:
                _, item, job = process.current
                session, call_id = self.owner(job)
                if session is not None and call_id in session.limits:
                    due = self.dispatcher.endings.due()
                    assert due is not None
                    assert due <= self.due[session.serial, call_id, item]

    @rule(data=st.data())
    def replaced(self, data):
        missing = [cpu_id for cpu_id, process in self.processes.items() if process is None]
        if missing:
            self.spawn(data.draw(st.sampled_from(missing)))

    # --- what must hold

    def slots(self):
        return self.dispatcher._slots.values()

    @invariant()
    def no_process_is_idle_without_need(self):
        if not hasattr(self, "dispatcher") or self.draining:
            return
        usable = [slot for slot in self.slots() if slot.ready and not slot.retiring | slot.halted]
        if all(slot.jobs for slot in usable):
            return
        for client in self.dispatcher._clients.values():
            if len(client.slots) < client.limit:
                assert client.kept.is_full or not client.queue
                for cpu_id in client.slots:
                    process = self.processes[cpu_id]
                    at_most_one = len(process.pipe) < 2
                    full = client.kept.is_full
                    assert full or at_most_one, "items wait while a process is idle"

    @invariant()
    def limits_are_kept(self):
        if hasattr(self, "dispatcher"):
            for name, session in self.sessions.items():
                assert len(self.dispatcher._clients[name].slots) <= session.limit

    @invariant()
    def no_more_is_kept_than_the_bound_and_one_outcome_for_each_process(self):
        if hasattr(self, "dispatcher"):
            most = MOST_KEPT + len(self.processes) * BULKY
            for client in self.dispatcher._clients.values():
                outcomes = [*client.outcomes]
                for sent in client._unconfirmed:
                    outcomes += sent.outcomes
                bulky = [outcome for outcome in outcomes if isinstance(outcome[4], Shared)]
                assert len(bulky) * BULKY < most
                assert client.kept.size >= len(bulky) * BULKY

    @invariant()
    def no_process_keeps_jobs_for_nothing(self):
        if hasattr(self, "dispatcher"):
            for slot in self.slots():
                process = self.processes[slot.cpu_id]
                if process is not None:
                    assert process.jobs.keys() <= slot.jobs.keys()

    def teardown(self):
        """Let everything end: no more faults."""
        if not hasattr(self, "dispatcher"):
            return
        while self.halted:
            self.go_on()
        self.all_blobs_arrive()
        for _ in range(20_000):
            for cpu_id, process in self.processes.items():
                if process is None:
                    self.spawn(cpu_id)
                elif cpu_id in self.killed:
                    self.end_process(cpu_id)
            self.dispatcher.flush()
            self.carry_out()
            for name, session in self.sessions.items():
                self.dispatcher.renew(name, Renew(session.group, session.results, []), self.now)
            running = [name for name, session in self.sessions.items() if not session.failed]
            if not any(self.sessions[name].open for name in running):
                break
            for cpu_id in self.live():
                process = self.processes[cpu_id]
                if process.current is None:
                    self.claim(process)
                if process.current is not None:
                    self.finish(process, 50, fail=False)
                if process.said:
                    self.read_from(cpu_id)
        for session in self.sessions.values():
            assert session.failed or not session.open, "items without an end"
        failed = any(session.failed for session in self.sessions.values())
        assert failed or not self.dispatcher.busy
        self.all_blobs_end()

    def all_blobs_end(self):
        for session in self.sessions.values():
            if not session.failed:
                ended = sorted(session.there - session.ended)
                session.ended.update(ended)
                renew = Renew(session.group, session.results, ended)
                self.dispatcher.renew(session.name, renew, self.now)
                self.carry_out()
                assert not session.there, "blobs that stay for nothing"


TestDispatcher = Machine.TestCase
TestDispatcher.settings = settings(
    max_examples=300,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    report_multiple_bugs=False,
    database=None,
    suppress_health_check=list(HealthCheck),
)
