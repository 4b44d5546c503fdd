"""Calls that may be what ends their pods: each runs alone on a pod. Pure.

Calls that are lost with one pod wait together, and would go to the next pod together: a culprit
that ends every pod would take its neighbours along to the end of their retries. So a call that
was lost more than once has its last try alone: no other call of this client is on that pod, and
what fails in the end has been lost on its own.

Not sooner, since a pod that runs one call is a pod that runs nothing else, and most losses have
another cause: where nodes come and go, a call may well be lost twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from .messages import Call
from .scheduler_events import Limits, Loss
from .scheduler_records import Durations, Pod


class Isolation:
    """See the module's text.

    Args:
        retries: how often a call whose pod was lost is dispatched again, where nothing else was
            chosen for it.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self.waiting: deque[Call] = deque()
        """Suspects that no pod has yet."""
        self.active = False
        """Whether there is anything to decide: suspects wait, or pods are reserved for some."""

    def is_suspect(self, lost: tuple[Loss, ...], limits: Limits | None) -> bool:
        """Whether a call that was lost with these pods, and has such limits, is to run alone."""
        retries = self._retries if limits is None or limits.retries is None else limits.retries
        return len(lost) >= max(2, retries)

    def add(self, call: Call) -> None:
        """A suspect waits, before the others."""
        self.waiting.appendleft(call)
        self.active = True

    def keep(self, wanted: Callable[[Call], bool]) -> list[Call]:
        """Forget the suspects that wait and are not wanted any more; returns those."""
        gone = [call for call in self.waiting if not wanted(call)]
        if gone:
            self.waiting = deque(filter(wanted, self.waiting))
        return gone

    def assign(
        self, pods: Iterable[Pod], durations: Durations, group: int, now: float
    ) -> dict[str, list[Call]]:
        """Give suspects to pods of their own.

        Args:
            pods: all of them.
            durations: of calls.
            group: what the suspects go with.
            now: the time.

        Returns:
            Pod to its suspect.
        """
        shares = {}
        for pod in self._reserve(list(pods)):
            call = self.waiting.popleft()
            pod.suspect = call[0]
            charge = durations.charge(call[1], call[2] or 1, len(call[3] or b""))
            pod.take(call, charge, group, now)
            shares[pod.name] = [call]
        return shares

    def _reserve(self, pods: list[Pod]) -> list[Pod]:
        """Reserve pods for suspects, and release those that are not needed any more.

        A reserved pod is given nothing until it is empty, then one suspect, and nothing else
        until that has ended. At most half of the pods are reserved (but one, if there is one):
        calls that nobody suspects go on. Returns those that are empty, for a suspect each that
        waits.
        """
        usable = [pod for pod in pods if pod.limit and not pod.draining]
        serving = {pod.name for pod in pods if pod.suspect in pod.in_flight}
        most = max(1, len(usable) // 2)
        count = max(0, min(most - len(serving), len(self.waiting)))
        # The one that is empty first; the count of a reserved one only falls, so it will be.
        candidates = sorted(
            (pod for pod in usable if pod.name not in serving),
            key=lambda pod: (len(pod.in_flight), not pod.reserved),
        )
        chosen = candidates[:count]
        kept = serving.union(pod.name for pod in chosen)
        for pod in pods:
            pod.reserved = pod.name in kept
        self.active = bool(self.waiting or kept)
        return [pod for pod in chosen if not pod.in_flight]
