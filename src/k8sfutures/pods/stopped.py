"""Local pods that somebody has stopped: they run nothing, and nobody else gets their CPUs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..machine import is_stopped

LOOK_EVERY: Final = 1.0
"""Seconds between two looks at pods that are stopped."""

LOOKS = 30
"""Looks after which one is ended that was stopped at each. The broker has closed its connection by
then, as it misses its heartbeats, so its clients have given it up. Looks are counted, not seconds:
who looks may have been stopped as well."""


class StoppedPods:
    """See the module's text; kept by one client, of the pods of its pool."""

    def __init__(self) -> None:
        self._looks: dict[str, int] = {}
        self._next = 0.0

    def pause(self) -> float | None:
        """Seconds until the next look; None where nothing is to be looked at."""
        return LOOK_EVERY if self._looks else None

    def find(self, pids: Mapping[str, int], now: float) -> list[str]:
        """Look for pods that are stopped.

        Args:
            pids: process ids of the agents of all pods that run, by the pods' names.
            now: the time.

        Returns:
            For each that was not known to be stopped, what to tell people.
        """
        new = [name for name, pid in pids.items() if name not in self._looks and is_stopped(pid)]
        if new and not self._looks:
            self._next = now + LOOK_EVERY
        self._looks |= dict.fromkeys(new, 0)
        return [
            f"the local pod {name} (process {pids[name]}) is stopped by a signal and holds its "
            f"CPUs; it is ended unless it goes on within {LOOKS * LOOK_EVERY:g} s (kill -CONT "
            f"{pids[name]})"
            for name in new
        ]

    def overdue(self, pids: Mapping[str, int], now: float) -> list[str]:
        """Look again, if it is time.

        Args:
            pids: as for `find`.
            now: the time.

        Returns:
            The names of those that are to be ended.
        """
        if now < self._next:
            return []
        self._next = now + LOOK_EVERY
        for name in list(self._looks):
            if name in pids and is_stopped(pids[name]):
                self._looks[name] += 1
            else:
                del self._looks[name]
        return [name for name, looks in self._looks.items() if looks >= LOOKS]
