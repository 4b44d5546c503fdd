"""What always holds for the dispatcher's records; tests check it after every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from .ledger import Client, Slot


def check(slots: Mapping[int, Slot], clients: Mapping[str, Client]) -> None:
    """Check what must always hold; an AssertionError says what does not.

    Args:
        slots: the dispatcher's, by CPU id.
        clients: its clients, by name.
    """
    for slot in slots.values():
        items = sum(job.part.stop - job.next for job in slot.jobs.values())
        assert items == slot.items, f"CPU {slot.cpu_id} has {items} items, not {slot.items}"
        assert slot.ready or not slot.jobs, f"CPU {slot.cpu_id} has work and no process"
        if slot.ending is not None:
            assert slot.jobs.keys() <= {slot.ending.token}, f"CPU {slot.cpu_id} is ended, with more"
        assert not (slot.waits and slot.jobs), f"CPU {slot.cpu_id} waits with work"
    for client in clients.values():
        at_work = [slot for slot in slots.values() if slot.client is client]
        assert {slot.cpu_id for slot in at_work} == client.slots, f"{client.name}'s processes"
        assert client.limits.keys() <= client.held.keys(), f"{client.name}: limits of what is gone"
        assert client.unwanted <= client.held.keys(), f"{client.name}: unwanted what is gone"
        held: Counter[int] = Counter()
        for part in client.queue:
            held[part.call[0]] += part.items
        for job in (job for slot in at_work for job in slot.jobs.values()):
            held[job.part.call[0]] += job.part.stop - job.next
        for call in client.needs.parked.values():
            held[call[0]] += call[2] or 1
        kept = client.kept.size
        assert kept >= 0, f"{client.name}: {kept} bytes of outcomes"
        assert client.busy or not kept, f"{client.name}: {kept} bytes of no outcome"
        assert client.failed or held == client.held, f"{client.name}: {held} != {client.held}"
