"""Which clients wait because every CPU process of this pod is at work for others: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .ledger import Client, Slot

WAIT: Final = 0.9
"""Seconds that a client waits before it is told why: by the second of the agent's ticks, which come
every second, and so after one to two seconds."""


class Occupancy:
    """See the module's text.

    Args:
        slots: the dispatcher's, by CPU id.
        clients: the dispatcher's, by name.
    """

    def __init__(self, slots: Mapping[int, Slot], clients: Mapping[str, Client]) -> None:
        self._slots = slots
        self._clients = clients
        self._since: dict[tuple[str, int], float] = {}

    @property
    def is_scarce(self) -> bool:
        """Whether any client waited for others at the last look."""
        return bool(self._since)

    def deadline(self, client: str) -> float:
        """When the lease of a client ends."""
        return self._clients[client].deadline

    def look(self, now: float) -> dict[str, dict[str, int]]:
        """Look who waits.

        Args:
            now: the time.

        Returns:
            For each client that has waited for long enough, the others and how many CPU processes
            are at work for each.
        """
        # What runs of one that has left is being ended: nobody waits long for that.
        clients = [slot.client for slot in self._slots.values()]
        holders = Counter(client.name for client in clients if client and not client.gone)
        is_full = holders.total() == len(self._slots)
        waiting = [
            (name, client.given)
            for name, client in self._clients.items()
            if is_full and client.may_start and not client.failed and name not in holders
        ]
        self._since = {one: self._since.get(one, now) for one in waiting}
        return {
            name: dict(holders.most_common())
            for (name, _), since in self._since.items()
            if now - since >= WAIT
        }
