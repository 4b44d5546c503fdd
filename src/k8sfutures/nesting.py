"""Executors that are made in a call, on the pool that it runs on: when they cannot go on."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from .place import Place

logger = logging.getLogger(__name__)

RECENT: Final = 2.5
"""Seconds for which it counts that a pod is held; it says so every second."""


class Nesting:
    """Hears of pods that their CPUs are held, and warns once.

    Args:
        within: where the call runs that has made the executor; None elsewhere.
        pool: the name of the executor's pool.
    """

    def __init__(self, within: Place | None, pool: str) -> None:
        self._within = within
        self._pool = pool
        self._heard: dict[str, float] = {}
        self._told = False

    @property
    def within(self) -> tuple[str, int] | None:
        """Pod and CPU id, for `Attach`."""
        return None if self._within is None else (self._within.pod, self._within.cpu_id)

    def held(self, pod: str, waiting: Collection[str], now: float) -> None:
        """A pod says that each of its CPUs is held, see `messages.Held`.

        Args:
            pod: its name.
            waiting: the pods that have calls of this executor.
            now: the time.
        """
        self._heard[pod] = now
        if self._told or self._within is None:
            return
        if all(now - self._heard.get(name, -RECENT) < RECENT for name in waiting):
            self._told = True
            logger.warning(
                "an executor that was made in a call (on pod %s, CPU id %d) finds no CPU for its "
                "own calls: each CPU of pool %r is held by a call that has made an executor on it, "
                "too. As long as those wait for calls of theirs, nothing goes on. Leave CPUs free "
                "for the inner calls (max_workers of the outer executor), give the inner executor "
                "another pool (setting pool), or use a ProcessPoolExecutor or threads in the call",
                *(self._within.pod, self._within.cpu_id, self._pool),
            )
