"""What the dispatcher remembers: clients with what is held of them, and CPU processes."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any, Final

from ..messages import (
    EXCEPTION,
    GROUP_LIMIT,
    Attach,
    Call,
    Hello,
    Message,
    NotInitialized,
    Outcome,
    Printed,
    Renew,
    Results,
)
from ..values import dataclass
from .endings import Begun, Ending
from .frames import REPORTING, TIMED
from .kept import Kept, Room
from .needs import Needs
from .said import Said, Words
from .shared_memory import Shared

RUN: Final = 0.005
"""Seconds of work in a run: 50 times what the way from the agent to a process takes."""

LONGEST_RUN: Final = 256
"""Items; 1 KiB of tokens, which a pipe takes in one write."""

SHORTEST: Final = 10e-6
"""Seconds; below this the pipe is what takes the time."""

FOLLOW: Final = 0.2
"""Weight of the newest duration in the running mean."""

Row = tuple[int, int, int, int, int, bytes | None]
"""A job as its process is told: see `frames.JOBS`."""


@dataclass(slots=True)
class Part:
    """A call, or the items ``start`` to ``stop`` of a range of a map."""

    call: Call
    start: int
    stop: int

    @property
    def items(self) -> int:
        """How many they are."""
        return self.stop - self.start


class Client:
    """A client whose lease runs: what waits and runs for it, and what it has not confirmed."""

    def __init__(self, name: str, attach: Attach, room: Room) -> None:
        self.name = name
        self.initializer = attach.initializer
        self.max_tasks = attach.max_tasks_per_child
        self.lease = attach.lease
        self.reporting = attach.reporting
        self.surroundings = attach.surroundings
        self.within = attach.within
        self.deadline = 0.0
        self.limit = 0
        self.group = 0
        self._waits_since: float | None = None
        self._given_then = 0
        self.given = 0  # how often a process was given work of it
        self.gone = False
        self.leaving = False  # gone, but what its calls say as they end is for it still
        self.failed = False  # its initializer has
        self.failure: Message | None = None  # what it is told of that
        self.functions: dict[int, bytes] = {}
        self.queue: deque[Part] = deque()
        self.held: dict[int, int] = {}  # call id -> items without outcome
        self.durations: dict[int, float] = {}
        self.limits: dict[int, float] = {}  # call id -> seconds that its items may run
        self.unwanted: set[int] = set()  # calls that are cancelled, and that a process has
        self.needs = Needs(attach.initializer)
        self.unlucky: set[int] = set()  # calls for which its initializer was killed once
        self.slots: set[int] = set()  # CPU ids at work for this client
        self.outcomes: list[Outcome] = []  # of the next results
        self.said = Said()
        self.kept = Kept(room)
        self._number = 0
        self._unconfirmed: deque[Results | Printed] = deque()
        self._unheard: dict[int, int] = {}  # cost of what calls have said, by number

    @property
    def busy(self) -> bool:
        """Whether anything is held of it."""
        return bool(self.held or self.outcomes or self._unconfirmed)

    @property
    def may_start(self) -> bool:
        """Whether a call of it waits that may run now."""
        return bool(self.queue) and len(self.slots) < self.limit and not self.kept.is_full

    def waited(self, now: float) -> float:
        """Seconds for which calls of it have waited and none has run, as seen at this look."""
        if self.slots or not self.queue:
            self._waits_since = None
            return 0.0
        if self._waits_since is None or self._given_then != self.given:
            self._waits_since, self._given_then = now, self.given
        return now - self._waits_since

    def finish(self, call: Call, item: int, status: int, micros: int, body: bytes) -> None:
        """An item has an outcome."""
        call_id = call[0]
        self.said.ended(call_id, item)
        self.outcomes.append((call_id, item, status, micros, body))
        self.kept.made += len(body) + len(body.memory) if type(body) is Shared else len(body)
        left = self.held.get(call_id, 1) - 1
        if left:
            self.held[call_id] = left
        else:  # as `forget` does it, which is called less often
            self.held.pop(call_id, None)
            self.needs.finished(call_id)
            if self.limits or self.unwanted:
                self.forget(call_id)
        if status <= EXCEPTION:
            took = micros * 1e-6
            before = self.durations.get(call[1])
            self.durations[call[1]] = took if before is None else before + (took - before) * FOLLOW

    def fail(self, cpu_id: int, status: int, body: bytes) -> list[Message]:
        """Its initializer has failed: none of its calls will run; returns what it is told."""
        if self.failed:
            return []
        self.failed = True
        self.queue.clear()
        self.failure = NotInitialized(cpu_id, status, body)
        return [*self.results(), self.failure]

    def forget(self, call_id: int) -> None:
        """A call is not here any more."""
        self.held.pop(call_id, None)
        self.needs.finished(call_id)
        if self.limits:
            self.limits.pop(call_id, None)
        if self.unwanted:
            self.unwanted.discard(call_id)

    def release(self, functions: list[int]) -> None:
        """No call will use these functions again."""
        for function in functions:
            self.functions.pop(function, None)
            self.durations.pop(function, None)
        self.needs.forget_functions(functions)

    def results(self) -> Iterator[Message]:
        """What has gathered since the last time."""
        if self.said.lines:
            self._number += 1
            lines, self._unheard[self._number] = self.said.take()
            printed = Printed(self._number, lines)
            self._unconfirmed.append(printed)
            yield printed
        for outcomes in _portions(self.outcomes):
            self._number += 1
            results = Results(self._number, outcomes)
            self._unconfirmed.append(results)
            yield results
        if self.outcomes:
            self.kept.sent(self._number)
            self.outcomes = []

    def renew(self, message: Attach | Renew, now: float) -> None:
        """It is alive, has sent groups up to that number, and wants to hear this."""
        self.deadline = now + self.lease
        self.group = max(self.group, message.group)
        if message.reporting != self.reporting:
            self.reporting = message.reporting
        self.said.renew(now, sum(self._unheard.values()))

    def confirm(self, number: int) -> None:
        """The client has what was sent up to this number."""
        while self._unconfirmed and self._unconfirmed[0].number <= number:
            self._unheard.pop(self._unconfirmed.popleft().number, None)
        self.kept.confirmed(number)

    def hello(self, template: Hello) -> Iterator[Message]:
        """What is held of it, then everything that it has not confirmed, or may not have heard."""
        holding = set(self.held)
        for sent in self._unconfirmed:
            if type(sent) is Results:
                holding.update(outcome[0] for outcome in sent.outcomes)
        holding.update(outcome[0] for outcome in self.outcomes)
        yield dataclasses.replace(
            template,
            reply=True,
            group=self.group,
            holding=sorted(holding),
            results=self._number - len(self._unconfirmed),
            blobs=sorted(self.needs.have),
        )
        yield from self._unconfirmed
        if self.failure is not None:
            yield self.failure

    def begin_anew(self) -> None:
        """It attaches again: what it had sent in part is lost, and the calls that wait for it."""
        for call_id in self.needs.begin_anew():
            self.forget(call_id)

    def waiting(self) -> list[int]:
        """Ids of the calls that wait, for a process or for what they need."""
        return [*(part.call[0] for part in self.queue), *self.needs.parked]

    def take_whole(self, calls: Iterable[int]) -> list[int]:
        """Take these calls out of the queue, those that are there; returns their ids."""
        wanted = set(calls)
        taken = {part.call[0]: None for part in self.queue if part.call[0] in wanted}
        if taken:
            self.queue = deque(part for part in self.queue if part.call[0] not in taken)
        taken |= dict.fromkeys(wanted.intersection(self.needs.parked))
        for call_id in taken:
            self.forget(call_id)
        return list(taken)


@dataclass(slots=True)
class Job:
    """What a token is about, as its CPU process has it."""

    client: Client
    part: Part
    next: int  # the item whose outcome comes next
    charge: float  # of one item
    shortened: bool = False  # the process was given more items than are left to it


@dataclass(slots=True)
class Slot:
    """A CPU process, and what it has been given."""

    cpu_id: int
    ready: bool = False
    client: Client | None = None  # whose items it has
    jobs: dict[int, Job] = field(default_factory=dict)
    items: int = 0
    work: float = 0.0
    functions: dict[str, set[int]] = field(default_factory=dict)
    blobs: dict[str, set[int]] = field(default_factory=dict)
    initialized: dict[str, bool] = field(default_factory=dict)  # client -> whether it is done
    reporting: dict[str, bytes | None] = field(default_factory=dict)  # what it was told
    words: Words = field(default_factory=Words)
    ran: dict[str, int] = field(default_factory=dict)  # client -> items, where it has a limit
    retiring: bool = False
    halted: bool = False  # by a signal of somebody's
    since: float = 0.0  # about when the item that runs has begun
    begun: Begun | None = None  # an item with a limit
    doomed: list[Ending] = field(default_factory=list)  # to be decided, see `Endings`
    ending: Ending | None = None  # what its process is being ended for
    waits: bool = False  # its process starts nothing before it hears `GO_ON`

    def forget(self, client: str) -> None:
        """Its process has nothing of this client any more, or is told so."""
        self.functions.pop(client, None)
        self.blobs.pop(client, None)
        self.reporting.pop(client, None)
        self.initialized.pop(client, None)
        self.ran.pop(client, None)

    def reporting_for(self, client: Client) -> list[tuple[Any, ...]]:
        """The frame that says what a client wants to hear, if the process has not been told."""
        if self.reporting.get(client.name) is client.reporting:
            return []
        self.reporting[client.name] = client.reporting
        return [(REPORTING, client.name, client.reporting)]

    def timed_tokens(self, client: Client, rows: list[Row]) -> list[tuple[Any, ...]]:
        """The frame that says which of these jobs have a limit, if any has."""
        limits = client.limits
        tokens = [row[0] for row in rows if self.jobs[row[0]].part.call[0] in limits]
        return [(TIMED, client.name, tokens)] if tokens else []

    def take_run(self, client: Client, token: int) -> tuple[list[Row], list[int]]:
        """Take a run of items out of a client's queue.

        Args:
            client: whose items this process has, if it has any.
            token: the first that is free.

        Returns:
            The jobs as they are told to the process, and a token for each item.
        """
        most = LONGEST_RUN - self.items
        if client.max_tasks is not None:
            most = min(most, client.max_tasks - self.ran.get(client.name, 0) - self.items)
        queue, durations = client.queue, client.durations
        rows: list[Row] = []
        tokens: list[int] = []
        while queue and most > 0 and (not self.jobs or self.work < RUN):
            part = queue[0]
            call = part.call
            each = durations.get(call[1])
            charge = RUN if each is None else max(SHORTEST, each)
            if self.jobs and self.work + charge > RUN:
                break
            count = max(1, min(part.items, most, int((RUN - self.work) / charge)))
            if count == part.items:
                queue.popleft()
            else:
                queue[0] = Part(call, part.start + count, part.stop)
                part = Part(call, part.start, part.start + count)
            self.jobs[token] = Job(client, part, part.start, charge)
            self.items += count
            self.work += charge * count
            most -= count
            rows.append((token, call[1], call[2], part.start, part.stop, call[3]))
            tokens.extend([token] * count)
            token += 1
        if rows:
            self.client = client
        return rows, tokens

    def take_back(self, token: int, count: int) -> Part:
        """The last items of a job, which have not started."""
        job = self.jobs[token]
        part = job.part
        self.items -= count
        self.work -= job.charge * count
        back = Part(part.call, part.stop - count, part.stop)
        part.stop -= count
        job.shortened = True
        return back


def _portions(outcomes: list[Outcome]) -> Iterator[list[Outcome]]:
    """Cut outcomes into messages of a size that every broker takes."""
    portion: list[Outcome] = []
    size = 0
    for outcome in outcomes:
        size += len(outcome[4] or b"")
        portion.append(outcome)
        if size > GROUP_LIMIT:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
