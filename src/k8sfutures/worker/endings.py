"""Items that are ended before they have: under way for too long, or wanted no more. Pure.

A CPU process is ended with the one item that it runs, and with nothing else. What the agent knows
of it is older than what it does, so that takes two steps. The agent takes back every token that
the process has not taken; then it reads once more what the process has said. A process says what
became of an item before it takes the next token. So if the item has no outcome even then, it is
what runs, none can have begun behind it, and the process can go. Else it is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..messages import CANCELLED, TIMEOUT
from .instructions import End, Instruction, Steal

if TYPE_CHECKING:
    from .ledger import Client, Job, Slot


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

    def begun(self, slot: Slot, token: int, item: int, job: Job, now: float) -> None:
        """A process calls the function of an item that has a limit."""
        slot.since = now
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


def _runs(slot: Slot, begun: Begun | None) -> bool:
    """Whether an item that had begun has no outcome yet."""
    job = None if begun is None else slot.jobs.get(begun.token)
    return begun is not None and job is not None and job.next == begun.item


def _doom(slot: Slot, ending: Ending) -> list[Instruction]:
    if slot.ending is not None:
        return []  # it is on its way out, and has nothing else
    slot.doomed.append(ending)
    return [Steal(slot.cpu_id, slot.items), End(slot.cpu_id)] if len(slot.doomed) == 1 else []


def account_of(slot: Slot, token: int, job: Job, now: float) -> dict[str, Any]:
    """What is known of an item that ran as its process died, beside how that died.

    Args:
        slot: of the process.
        token: of the item.
        job: likewise.
        now: the time.

    Returns:
        Fields of a crash's story; see `crashes`.
    """
    output, stack = slot.words.last_lines((token, job.next))
    account: dict[str, Any] = {"output": output, "stack": stack}
    account["seconds"] = max(0.0, now - slot.since)
    if slot.ending is not None:
        account |= {"ended": slot.ending.why, "limit": slot.ending.limit}
    return account
