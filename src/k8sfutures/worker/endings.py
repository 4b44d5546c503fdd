"""Items that are ended before they have: under way for too long, or wanted no more. Pure.

A CPU process is ended with the one item that it runs, and with nothing else. What the agent knows
of it is older than what it does, so that takes two steps. The agent takes back every token that
the process has not taken; then it reads once more what the process has said. A process says what
became of an item before it takes the next token. So if the item has no outcome even then, it is
what runs, none can have begun behind it, and the process can go. Else it is left alone.

Here is, too, whom a process costs what that dies by itself: the item that ran; or, where that was
still waiting for its client's initializer, the client, all of whose calls would go the same way.
But a process may have been killed from outside just then: so the item gets a second one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from ..messages import CANCELLED, CRASHED, TIMEOUT
from .frames import INITIALIZED
from .instructions import End, Instruction, Send, Steal

if TYPE_CHECKING:
    from .ledger import Client, Job, Slot


FROM_OUTSIDE: Final = frozenset({SIGKILL, SIGTERM})
"""Signals by which a process may have died that has done nothing wrong: out of memory, for one."""


class Begun(NamedTuple):
    """An item that may run for so many seconds, and until then.

    One that is only `feared` may have been stopped before it has begun.
    """

    token: int
    item: int
    limit: float
    due: float
    feared: bool = False


class Ending(NamedTuple):
    """Why an item's process is ended, and how long the item was allowed to run."""

    token: int
    item: int | None  # none where it is whatever item of the call
    why: str
    limit: float | None = None


class Endings:
    """See the module's text.

    Args:
        slots: the dispatcher's, by CPU id.
    """

    def __init__(self, slots: Mapping[int, Slot]) -> None:
        self._slots = slots
        self.timed: set[int] = set()
        """CPU ids of the processes that have begun an item with a limit; some have ended it."""

    def goes_on(self, slot: Slot, token: int, item: int, status: int, job: Job, now: float) -> None:
        """A process has initialized a client, or calls the function of an item with a limit."""
        slot.since = now
        if status == INITIALIZED:
            slot.initialized[job.client.name] = True
        else:
            self._limit(slot, token, item, job, now)

    def halt(self, slot: Slot, *, stopped: bool) -> list[Instruction]:
        """Somebody has stopped a process, or lets it go on; returns what to do."""
        slot.halted = stopped
        if stopped:
            return [Steal(slot.cpu_id, slot.items)]
        if slot.begun is not None and slot.begun.feared:
            slot.begun = None  # it says itself what it begins
        return []

    def taken_back(self, slot: Slot, now: float) -> None:
        """What a process that was stopped still has may never begin: its time begins now."""
        if slot.halted and slot.jobs and not _runs(slot, slot.begun):
            token, job = next(reversed(slot.jobs.items()))
            self._limit(slot, token, job.next, job, now, feared=True)

    def _limit(
        self, slot: Slot, token: int, item: int, job: Job, now: float, *, feared: bool = False
    ) -> None:
        limit = job.client.limits.get(job.part.call[0])
        if limit is not None and not job.client.gone:
            slot.begun = Begun(token, item, limit, now + limit, feared)
            self.timed.add(slot.cpu_id)

    def due(self) -> float | None:
        """When `expire` is to be called, at the latest; None for no such time."""
        begun = [self._slots[cpu_id].begun for cpu_id in self.timed]
        return min((one.due for one in begun if one is not None), default=None)

    def expire(self, now: float) -> list[Instruction]:
        """Begin to end the items that have run for too long; returns what to do."""
        out: list[Instruction] = []
        for cpu_id in sorted(self.timed):
            slot = self._slots[cpu_id]
            begun = slot.begun
            if begun is not None and _runs(slot, begun):
                if begun.due > now:
                    continue
                out += _doom(slot, Ending(begun.token, begun.item, TIMEOUT, begun.limit))
            slot.begun = None
            self.timed.discard(cpu_id)
        return out

    def cancel(self, client: Client, calls: Iterable[int]) -> list[Instruction]:
        """Begin to end these calls of a client, so far as processes have them.

        Args:
            client: whose.
            calls: their ids.

        Returns:
            What to do. A call that has not begun comes back with its token (`Client.unwanted`).
        """
        out: list[Instruction] = []
        wanted = set(calls)
        for cpu_id in sorted(client.slots):
            slot = self._slots[cpu_id]
            for token, job in slot.jobs.items():
                if job.part.call[0] in wanted:
                    client.unwanted.add(job.part.call[0])
                    out += _doom(slot, Ending(token, None, CANCELLED))
        return out

    def decide(self, cpu_id: int) -> bool:
        """Whether a process is to go, now that all that it has said is known; see `End`."""
        slot = self._slots[cpu_id]
        doomed, slot.doomed = slot.doomed, []
        for ending in doomed:
            job = slot.jobs.get(ending.token)
            if job is not None and ending.item in {None, job.next}:
                slot.ending = ending
                slot.retiring = True
                return True
        return False

    def to_try_again(self, slot: Slot, story: Mapping[str, Any]) -> list[int]:
        """What of a process that has died did not begin, by no fault of its client's, it seems.

        Args:
            slot: of the process; what it had not taken is not there any more.
            story: how it died.

        Returns:
            Tokens, as often as they have items.
        """
        if slot.ending is not None or story.get("signal") not in FROM_OUTSIDE:
            return []
        tokens: list[int] = []
        for token, job in slot.jobs.items():
            if _waits(slot, job) and job.part.call[0] not in job.client.unlucky:
                job.client.unlucky.add(job.part.call[0])
                tokens += [token] * (job.part.stop - job.next)
        return tokens

    def died(self, slot: Slot, story: dict[str, Any], now: float) -> list[Instruction]:
        """A process has died, with the item that it ran: its client is told.

        Args:
            slot: of the process.
            story: how it died; see `crashes`.
            now: the time.

        Returns:
            What to do.
        """
        out: list[Instruction] = []
        for token, job in slot.jobs.items():
            client = job.client
            if client.gone:
                continue
            body = msgpack.packb(story | _account_of(slot, token, job, now))
            if slot.ending is None and _waits(slot, job):
                out += (Send(client.name, one) for one in client.fail(slot.cpu_id, CRASHED, body))
                continue
            for item in range(job.next, job.part.stop):
                client.finish(job.part.call, item, CRASHED, 0, body)
        return out


def _waits(slot: Slot, job: Job) -> bool:
    """Whether an item waits until its client's initializer has returned."""
    return not slot.initialized.get(job.client.name, True)


def _runs(slot: Slot, begun: Begun | None) -> bool:
    """Whether an item that had begun has no outcome yet."""
    job = None if begun is None else slot.jobs.get(begun.token)
    return begun is not None and job is not None and job.next == begun.item


def _doom(slot: Slot, ending: Ending) -> list[Instruction]:
    if slot.ending is not None:
        return []  # it is on its way out, and has nothing else
    slot.doomed.append(ending)
    return [Steal(slot.cpu_id, slot.items), End(slot.cpu_id)] if len(slot.doomed) == 1 else []


def _account_of(slot: Slot, token: int, job: Job, now: float) -> dict[str, Any]:
    """What is known of an item that ran as its process died, beside how that died."""
    output, stack = slot.words.last_lines((token, job.next))
    account: dict[str, Any] = {"output": output, "stack": stack}
    account["seconds"] = max(0.0, now - slot.since)
    if slot.ending is not None:
        account |= {"ended": slot.ending.why, "limit": slot.ending.limit}
    return account
