"""Which call a CPU process of this pod gets next, and what it is to forget of a client.

A part of the dispatcher, and pure like it.

How much a CPU process is given
    One item while its duration is unknown or long; tiny ones in runs of about `RUN` seconds,
    topped up at half, so that a process never waits for its agent. What a process has not
    started can be taken back at any time (its token pipe sees to it), and is, as soon as
    another process has nothing to do. So runs cost nothing in fairness, and a call never
    waits behind a long one while a CPU is free.

Clients take turns, run by run, and none has more processes at work than its limit. Of one that
does not take what its calls make, no more are started: see `kept`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any, Final

from ..messages import Call
from .frames import DROP, FUNCTIONS, GO_ON, INITIALIZE, JOBS, RELEASE, SURROUNDINGS
from .instructions import Drop, Feed, Instruction, Steal
from .kept import Room
from .ledger import RUN, Client, Row, Slot

LAST_TOKEN: Final = 0xFFFF_0000
"""Tokens start again from 1 above this one, so that a run always fits into 4 bytes each."""


class Assignment:
    """See the module's text.

    Args:
        cpu_ids: one CPU process each.
        memory: bytes that the pod may use, or None for no limit.
    """

    def __init__(self, cpu_ids: list[int], memory: int | None = None) -> None:
        self._room = Room(memory)
        self._slots = {cpu_id: Slot(cpu_id) for cpu_id in cpu_ids}
        self._clients: dict[str, Client] = {}
        self._turns: deque[str] = deque()
        self._next_token = 1
        self._now = 0.0
        self._out: list[Instruction] = []

    def _assign(self) -> None:
        """Give work to the processes that have too little of it."""
        ready = [
            slot
            for slot in self._slots.values()
            if slot.ready and not (slot.retiring or slot.doomed or slot.halted)
        ]
        # Those that have nothing come first: what was just taken back for them is theirs.
        idle = [slot for slot in ready if not slot.jobs]
        for at, slot in enumerate(idle):
            client = self._next_client()
            if client is None:
                self._rebalance(len(idle) - at)
                break
            self._give(slot, client)
        for slot in ready:
            if slot.client is not None and slot.work < RUN / 2:
                client = slot.client
                may = client.queue and not (client.gone or client.kept.is_full)
                if may and not self._others_wait(client):
                    self._give(slot, client)

    def _others_wait(self, client: Client) -> bool:
        return len(self._clients) > 1 and any(
            other.may_start for other in self._clients.values() if other is not client
        )

    def _next_client(self) -> Client | None:
        """The client whose turn it is, of those that wait and are below their limit."""
        for _ in range(len(self._turns)):
            name = self._turns[0]
            self._turns.rotate(-1)
            client = self._clients[name]
            if client.may_start:
                return client
        return None

    def _give(self, slot: Slot, client: Client) -> None:
        """A run of this client's items for this process, one at least."""
        if not slot.jobs:
            slot.since = self._now
        rows, tokens = slot.take_run(client, self._next_token)
        if not rows:
            return
        token = self._next_token + len(rows)
        self._next_token = token if token <= LAST_TOKEN else 1
        client.slots.add(slot.cpu_id)
        client.given += 1
        frames = self._go_on(slot) + slot.reporting_for(client)
        known = slot.functions.get(client.name)
        if known is None:
            known = slot.functions[client.name] = set()
            if client.surroundings is not None:
                frames.append((SURROUNDINGS, client.name, client.surroundings))
        needed = {row[1] for row in rows} - known
        known |= needed
        if client.initializer is not None and client.name not in slot.initialized:
            slot.initialized[client.name] = False
            frames.append((INITIALIZE, client.name, client.initializer))
        if needed:
            frames.append((FUNCTIONS, client.name, {n: client.functions[n] for n in needed}))
        if client.limits:
            frames += slot.timed_tokens(client, rows)
        frames.append((JOBS, client.name, rows))
        blobs = self._blobs_for(slot, rows) if client.needs else ()
        self._out.append(Feed(slot.cpu_id, frames, tokens, client.name, blobs))

    @staticmethod
    def _go_on(slot: Slot) -> list[tuple[Any, ...]]:
        """The frame for a process that waits for it."""
        waits, slot.waits = slot.waits, False
        return [(GO_ON, "")] if waits else []

    @staticmethod
    def _blobs_for(slot: Slot, rows: list[Row]) -> Collection[int]:
        """The blobs that these jobs need and their process does not have."""
        needed: set[int] = set()
        for job in (slot.jobs[row[0]] for row in rows):
            needed.update(job.client.needs.of(job.part.call))
            name = job.client.name
        known = slot.blobs.setdefault(name, set())
        needed -= known
        known |= needed
        return sorted(needed)

    def _rebalance(self, idle: int) -> None:
        """Processes have nothing to do and no call waits: take from those that have too much."""
        for slot in sorted(self._slots.values(), key=lambda slot: -slot.items):
            if not idle or slot.items < 2:
                return
            client = slot.client
            if client is None or client.gone or client.kept.is_full:
                continue
            if len(client.slots) < client.limit:
                self._out.append(Steal(slot.cpu_id, slot.items // 2))
                idle -= 1

    def _hold_or_go_on(self, slot: Slot) -> None:
        """Take back what is not to be started; where that is nothing, let the process go on."""
        if slot.client is not None and slot.client.kept.is_full:
            unstarted = slot.items if slot.waits else slot.items - 1
            if unstarted:
                self._out.append(Steal(slot.cpu_id, unstarted))
        elif slot.waits and slot.jobs:
            self._out.append(Feed(slot.cpu_id, self._go_on(slot), []))

    # --- what processes have

    def _at_work(self, client: Client) -> Iterator[Call]:
        """The calls of a client that processes have."""
        for cpu_id in client.slots:
            yield from (job.part.call for job in self._slots[cpu_id].jobs.values())

    def _drop_blobs(self, client: Client, released: list[int]) -> None:
        queued = (part.call for part in client.queue)
        gone = client.needs.release(released, chain(queued, self._at_work(client)))
        if not gone:
            return
        self._out.append(Drop(client.name, gone))
        for slot in self._slots.values():
            known = slot.blobs.get(client.name, set())
            if not known.isdisjoint(gone):
                known.difference_update(gone)
                self._out.append(Feed(slot.cpu_id, [(DROP, client.name, gone)], []))

    def _release(self, client: Client, functions: list[int]) -> None:
        # One that a call here still needs is kept: its client had given this pod up.
        queued = (part.call for part in client.queue)
        calls = chain(queued, client.needs.parked.values(), self._at_work(client))
        used = {call[1] for call in calls}
        functions = sorted(set(functions) - used)
        client.release(functions)
        for slot in self._slots.values():
            known = slot.functions.get(client.name)
            if known is not None and not known.isdisjoint(functions):
                known.difference_update(functions)
                self._out.append(Feed(slot.cpu_id, [(RELEASE, client.name, functions)], []))
