"""Calls that wait for calls of their own pool, and hold its CPUs meanwhile: found, to be told.

A call can make an executor on the pool that it runs on. Where every CPU has such a call, none of
them gets what it waits for. Pure, as the dispatcher is that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .ledger import Client, Slot

HELD_AFTER: Final = 3.0
"""Seconds that calls of such an executor wait before it is told."""


class Nested:
    """See the module's text.

    Args:
        pod: the name of this pod.
        slots: the dispatcher's, by CPU id.
        clients: its clients, by name.
    """

    def __init__(self, pod: str, slots: Mapping[int, Slot], clients: Mapping[str, Client]) -> None:
        self._pod = pod
        self._slots = slots
        self._clients = clients

    def held(self, now: float) -> list[str]:
        """Those that are to be told; asked every second.

        Args:
            now: the time.

        Returns:
            The clients that were made in a call and have waited for a CPU, while each one of this
            pod had a call that has made a client.
        """
        waiting = [
            name
            for name, client in self._clients.items()
            if client.within is not None and client.waited(now) >= HELD_AFTER
        ]
        if not waiting:
            return []
        within = [client.within for client in self._clients.values()]
        if all(
            slot.client is not None and (self._pod, slot.cpu_id) in within
            for slot in self._slots.values()
        ):
            return waiting
        return []
