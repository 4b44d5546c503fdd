"""What the user is told where calls wait because all CPUs are at work for other clients. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Final

from .attempts import in_words
from .client_names import in_words as client_in_words
from .messages import Occupied

FRESH: Final = 2.5
"""Seconds for which what a pod has said of that holds; it says so every second."""

NAMED: Final = 3
"""Other clients that are named."""


class Queueing:
    """See the module's text."""

    def __init__(self) -> None:
        self._said: dict[str, tuple[float, Occupied]] = {}  # by pod, and when
        self._told = False  # of this wait
        self._told_end = False  # and for how long it will be

    def heard(self, pod: str, message: Occupied, pods: Collection[str], now: float) -> str | None:
        """A pod says that our calls wait there.

        Args:
            pod: which.
            message: what it says.
            pods: those that have calls of ours.
            now: the time.

        Returns:
            What to tell the user; None where that has been told, or where calls run elsewhere.
        """
        said = {one: it for one, it in self._said.items() if now - it[0] < FRESH}
        if not said:  # another wait
            self._told = self._told_end = False
        said[pod] = now, message
        self._said = said
        if not said.keys() >= set(pods):
            return None
        cpus, left = self._holders()
        knows_end = bool(left)
        if self._told and (self._told_end or not knows_end):
            return None
        self._told, self._told_end = True, knows_end
        return _words(len(said), cpus, left)

    def _holders(self) -> tuple[Counter[str], dict[str, float]]:
        """CPUs of each other client; and when they are free, of those that do not answer."""
        cpus: Counter[str] = Counter()
        left: dict[str, float] = {}
        for _, message in self._said.values():
            for client, count, seconds in message.holders:
                cpus[client] += count
                if seconds >= 0:
                    left[client] = max(seconds, left.get(client, 0.0))
        return cpus, left


def _words(pods: int, cpus: Counter[str], left: dict[str, float]) -> str:
    all_of_them = f"all {cpus.total()} CPUs" if cpus.total() > 1 else "the only CPU"
    where = "their pod" if pods == 1 else f"their {pods} pods"
    others = "another client" if len(cpus) == 1 else f"{len(cpus)} other clients"
    # Those that do not answer come first: the wait is for them.
    order = sorted(cpus, key=lambda client: (client not in left, -cpus[client]))
    named = [_one(client, cpus[client], left.get(client)) for client in order[:NAMED]]
    work = "work" if cpus.total() > 1 else "works"
    return f"calls wait: {all_of_them} of {where} {work} for {others}: {'; '.join(named)}"


def _one(client: str, cpus: int, left: float | None) -> str:
    who = f"{client_in_words(client)} ({cpus} CPU{'s' if cpus > 1 else ''})"
    if left is None:
        return who
    return f"{who} does not answer, and is given up in {in_words(max(0.1, left))} unless it does"
