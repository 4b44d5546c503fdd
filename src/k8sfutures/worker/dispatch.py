"""Which CPU process of this pod runs what: the agent's decisions, as a pure state machine.

The agent feeds `Dispatcher` with what its clients and its CPU processes say, and carries out
the instructions that come back. No sockets, processes or clocks in here: time is an argument.

Exactly once
    An outcome is kept until its client confirms it, and sent again when the client or the
    broker comes back. A call whose process died is reported as crashed, and is never started
    again here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any, Final

from ..messages import (
    EXCEPTION,
    Attach,
    Call,
    Cancel,
    Group,
    Held,
    Hello,
    Left,
    Message,
    Recall,
    Renew,
    Returned,
)
from .assignment import Assignment
from .endings import Endings
from .frames import BEGUN, FORGET, INITIALIZER_RAISED, LEAVE, PRINTED
from .instructions import Feed, Instruction, Kill, Retire, Send, Steal
from .invariants import check
from .ledger import RUN, Client, Part, Slot
from .nested import Nested
from .occupancy import Occupancy
from .said import Sayings
from .shared_memory import Shared

SIGINT: Final = 2
SIGKILL: Final = 9


class Dispatcher(Assignment):
    """See the module's text.

    Args:
        cpu_ids: one CPU process each.
        pod: the name of this pod.
        memory: bytes that the pod may use, or None for no limit.
    """

    def __init__(self, cpu_ids: list[int], pod: str = "", memory: int | None = None) -> None:
        super().__init__(cpu_ids, memory)
        self._nested = Nested(pod, self._slots, self._clients)
        self._draining = False
        self._leaving: set[Client] = set()
        self.said = Sayings(self._slots)
        self.endings = Endings(self._slots)
        self.occupancy = Occupancy(self._slots, self._clients)

    # --- what the agent asks

    @property
    def clients(self) -> list[str]:
        """Names of the clients whose lease runs."""
        return list(self._clients)

    @property
    def busy(self) -> bool:
        """Whether any call runs, waits, or has an outcome that its client does not have."""
        return any(client.busy for client in self._clients.values())

    def is_at_work(self) -> bool:
        """Whether any process has items, so that an outcome will follow."""
        return any(slot.items for slot in self._slots.values())

    def take(self) -> list[Instruction]:
        """The instructions since the last time, in order."""
        out, self._out = self._out, []
        return out

    def has_outcomes(self) -> bool:
        """Whether `flush` would send anything."""
        return any(
            client.outcomes or client.said.lines
            for client in chain(self._clients.values(), self._leaving)
        )

    # --- clients

    def attach(self, name: str, message: Attach, now: float) -> None:
        """A client is there, or there again: it is told by `hello` what is held of it."""
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = Client(name, message, self._room)
            self._room.divide(len(self._clients))
            self._turns.append(name)
        client.begin_anew()
        client.lease = message.lease
        client.renew(message, now)

    def hello(self, name: str, template: Hello) -> None:
        """Tell a client what is held of it, then everything that it has not confirmed.

        Args:
            name: the client.
            template: with the pod's own fields filled in.
        """
        self._send(name, *self._clients[name].hello(template))

    def _send(self, name: str, *messages: Message) -> None:
        self._out += (Send(name, message) for message in messages)

    def group(self, name: str, message: Group, share: tuple[int, list[Call]], now: float) -> None:
        """Work from a client that is attached; `share` is this pod's, its bodies complete."""
        client = self._clients.get(name)
        if client is None or message.number <= client.group:
            return
        client.group = message.number
        client.deadline = now + client.lease
        self._now = now
        client.functions.update(message.functions)
        if message.released:
            self._release(client, message.released)
        limit, calls = share
        if calls:
            client.limit = limit
        if self._draining:
            self._send(name, Returned([call[0] for call in calls], True))
            return
        queue, held, functions, needs = client.queue, client.held, client.functions, client.needs
        needs.note(message.needs, calls)
        limits = message.limits
        unusable: list[int] = []
        for call in calls:
            if call[0] in held:
                continue  # it was lost with us, by what the client knew, and we have it still
            if call[1] not in functions:
                unusable.append(call[0])  # that came before our lease ended
                needs.finished(call[0])
                continue
            held[call[0]] = items = call[2] or 1
            if limits and call[0] in limits:
                client.limits[call[0]] = limits[call[0]]
            if not (needs and needs.park(call)):
                queue.append(Part(call, 0, items))
        if unusable:
            self._send(name, Returned(unusable, False))
        if client.failed:
            queue.clear()
        self._feed()

    def arrived(self, name: str, blob: int) -> None:
        """A blob of a client is there, and all of it."""
        client = self._clients.get(name)
        if client is not None:
            ready = client.needs.arrived(blob)
            if not client.failed:
                client.queue.extend(Part(call, 0, call[2] or 1) for call in ready)
            self._feed()

    def renew(self, name: str, message: Renew, now: float) -> None:
        """A client is alive; what it confirms is dropped."""
        client = self._clients.get(name)
        if client is None:
            return
        was_full = client.kept.is_full
        client.confirm(message.results)
        client.renew(message, now)
        self._drop_blobs(client, message.released)
        if was_full:
            self._feed()

    def recall(self, name: str, message: Recall) -> None:
        """Give back those of these calls of which no process has anything."""
        client = self._clients.get(name)
        if client is not None:
            self._return(client, message.calls)

    def cancel(self, name: str, message: Cancel) -> None:
        """Give back those of these calls that have not started, and end those that run."""
        client = self._clients.get(name)
        if client is not None:
            self._return(client, message.calls)
            self._out += self.endings.cancel(client, message.calls)

    def expire(self, now: float) -> None:
        """End the items that have run for longer than they may."""
        self._now = now
        self._out += self.endings.expire(now)

    def decide(self, cpu_id: int) -> bool:
        """Whether a process is to be ended, after an `End`."""
        goes = self.endings.decide(cpu_id)
        self._feed()
        return goes

    def _return(self, client: Client, calls: list[int]) -> None:
        """Return those of these calls that wait; the outcomes that some items have go first."""
        at_work = {call[0] for call in self._at_work(client)}
        returned = client.take_whole(call_id for call_id in calls if call_id not in at_work)
        if returned:
            self._send(client.name, *client.results(), Returned(returned, self._draining))

    def drop(self, name: str, signal: int) -> None:
        """A client leaves: forget it; with a signal, end the processes that run its calls."""
        client = self._clients.pop(name, None)
        if client is None:
            return
        self._room.divide(len(self._clients))
        client.gone = True
        if signal == SIGINT:
            client.leaving = True
            self._leaving.add(client)
        self._turns.remove(name)
        for slot in self._slots.values():
            if slot.client is client:
                self._out.append(Steal(slot.cpu_id, slot.items))
                if signal:
                    self._out.append(Kill(slot.cpu_id, signal))
                    slot.retiring = True
            if name in slot.initialized:
                # What its initializer set up must not be there for the next client.
                slot.retiring = True
            elif (name in slot.functions or name in slot.blobs) and not slot.retiring:
                self._out.append(Feed(slot.cpu_id, [(LEAVE, name)], []))
            slot.forget(name)
            self._retire_if_due(slot)
        self._left(client)
        self._feed()

    def tick(self, now: float, ending: Collection[int] = ()) -> None:
        """Drop the clients whose lease has run out; hold back no words; tell who cannot go on."""
        self.said.tick(ending)
        for client in list(self._clients.values()):
            if client.deadline < now:
                self.drop(client.name, SIGKILL)
        for name in self._nested.held(now):
            self._send(name, Held())

    def postpone(self, seconds: float) -> None:
        """Leases do not run while the broker is away: nobody could have renewed them."""
        for client in self._clients.values():
            client.deadline += seconds

    def drain(self) -> None:
        """Finish what runs, give back the rest, take nothing new."""
        self._draining = True
        for slot in self._slots.values():
            if slot.items > 1:
                self._out.append(Steal(slot.cpu_id, slot.items - 1))
        for client in self._clients.values():
            self._send(client.name, Returned([], True))
        self._return_rest()

    def _return_rest(self) -> None:
        for client in self._clients.values():
            waiting = client.waiting()
            if waiting:
                self._return(client, waiting)

    # --- CPU processes

    def ready(self, cpu_id: int, now: float = 0.0) -> None:
        """A CPU process has been started."""
        self._now = now
        self._slots[cpu_id] = Slot(cpu_id, ready=True)
        self._feed()

    def halted(self, cpu_id: int, now: float, *, stopped: bool) -> None:
        """Somebody has stopped a CPU process, whose last words are known, or lets it go on."""
        self._now = now
        self._out += self.endings.halt(self._slots[cpu_id], stopped=stopped)
        self._feed()

    def frames(
        self, cpu_id: int, frames: list[tuple[int, int, int, int, bytes]], now: float = 0.0
    ) -> None:
        """What a CPU process said."""
        slot = self._slots[cpu_id]
        self._now = now
        self._take_frames(slot, frames)
        self._free_if_empty(slot)
        if (
            slot.items > 1
            and slot.client is not None
            and frames[-1][3] * 1e-6 * slot.items > 4 * RUN
            and self._others_wait(slot.client)
        ):
            # It was given more than it should have, as far as one can say now.
            self._out.append(Steal(cpu_id, slot.items - 1))
        self._hold_or_go_on(slot)
        self._feed()

    def _take_frames(self, slot: Slot, frames: list[tuple[int, int, int, int, bytes]]) -> None:
        jobs, ending, items = slot.jobs, slot.ending, slot.items
        for token, item, status, number, body in frames:
            if status == PRINTED:
                self.said.heard(slot, token, item, number, body)
                continue
            if type(body) is Shared:
                slot.waits = True
            job = jobs.get(token)
            if job is None:
                continue
            if status >= BEGUN:
                self.endings.goes_on(slot, token, item, status, job, self._now)
                continue
            if ending is not None and status == EXCEPTION and ending.token == token:
                continue  # of what its end made it raise; that it was ended is its outcome
            if slot.words.held:
                self.said.release(slot)
            client = job.client
            slot.items -= 1
            slot.work -= job.charge
            job.next = item + 1
            if job.next == job.part.stop:
                self._end_job(slot, token)
            if client.gone:
                continue
            if status == INITIALIZER_RAISED:
                self._send(client.name, *client.fail(slot.cpu_id, EXCEPTION, body))
                continue
            client.finish(job.part.call, item, status, number, body)
            if client.max_tasks is not None:
                slot.ran[client.name] = ran = slot.ran.get(client.name, 0) + 1
                slot.retiring = slot.retiring or ran >= client.max_tasks
        if slot.items != items:
            slot.since = self._now

    def _end_job(self, slot: Slot, token: int) -> None:
        if slot.jobs.pop(token).shortened and slot.ready:
            self._out.append(Feed(slot.cpu_id, [(FORGET, "", [token])], []))

    def _free_if_empty(self, slot: Slot) -> None:
        if slot.jobs:
            return
        slot.work, slot.items = 0.0, 0
        if slot.client is not None:
            client, slot.client = slot.client, None
            client.slots.discard(slot.cpu_id)
            self._left(client)
        self._retire_if_due(slot)

    def _left(self, client: Client) -> None:
        """The last process of a client that has left may have ended: nothing is said any more."""
        if client.leaving and not client.slots:
            client.leaving = False
            self._leaving.discard(client)
            self._send(client.name, *client.results(), Left())

    def stolen(self, cpu_id: int, tokens: list[int]) -> None:
        """These tokens were taken back: their items have not started, and wait again.

        None means that the process was faster; its outcomes are on their way.
        """
        slot = self._slots[cpu_id]
        if tokens:
            self._take_back(slot, tokens)
            self._free_if_empty(slot)
            self._feed()
        self.endings.taken_back(slot, self._now)

    def _take_back(self, slot: Slot, tokens: list[int]) -> None:
        for token, count in reversed(Counter(tokens).items()):
            job = slot.jobs[token]
            back = slot.take_back(token, count)
            if job.next == job.part.stop:
                self._end_job(slot, token)
            client = job.client
            if not (client.gone or client.failed):
                client.queue.appendleft(back)
                if client.unwanted:
                    self._return(client, [*client.unwanted])

    def died(
        self,
        cpu_id: int,
        frames: list[tuple[int, int, int, int, bytes]],
        unclaimed: list[int],
        story: dict[str, Any],
        words: Iterable[tuple[int, bytes]] = (),
        now: float = 0.0,
    ) -> None:
        """A CPU process is gone.

        Args:
            cpu_id: which.
            frames: the last that it said.
            unclaimed: the tokens that were left in its pipe: those items had not started.
            story: how it died, for the item that ran; see `crashes`.
            words: what was left in its output pipes, by stream.
            now: the time.
        """
        slot = self._slots[cpu_id]
        slot.ready = False
        self._now = now
        self._take_frames(slot, frames)
        for stream, data in words:
            self.said.printed(cpu_id, stream, data)
        if not slot.jobs:
            self.said.release(slot)  # there is no exception that could tell it
        self._take_back(slot, unclaimed)
        self._take_back(slot, self.endings.to_try_again(slot, story))
        self._out += self.endings.died(slot, story, now)
        slot.jobs.clear()
        self._free_if_empty(slot)
        self._slots[cpu_id] = Slot(cpu_id)
        self._feed()

    def _retire_if_due(self, slot: Slot) -> None:
        if slot.retiring and slot.ready and not slot.jobs:
            self._slots[slot.cpu_id] = Slot(slot.cpu_id)
            slot.ready = False
            self._out.append(Retire(slot.cpu_id))

    # --- results

    def flush(self) -> None:
        """Hand out one message of results for each client that has any."""
        for client in chain(self._clients.values(), self._leaving):
            if client.outcomes or client.said.lines:
                self._send(client.name, *client.results())

    def _feed(self) -> None:
        if self._draining:
            self._return_rest()
        else:
            self._assign()

    # --- for tests

    def validate(self) -> None:
        """Check what must always hold; an AssertionError says what does not."""
        check(self._slots, self._clients)
