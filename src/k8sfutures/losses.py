"""Calls that were lost with their pods too often, and why: pure.

A pod is missed at the broker within seconds; why it went is for Kubernetes to say, and may take
some seconds more. A call that runs again does not wait for that; one that fails does, for a while,
since its exception is all that the user sees.
"""

from __future__ import annotations

from typing import Final

from .attempts import Attempt, called, listed, shortened
from .errors import PodLost
from .scheduler_events import Loss, Lost

PATIENCE: Final = 12.0
"""Seconds that a failure waits for the reasons of its pods. Kubernetes says in one or two that a
container has ended; that a node is gone takes it 40 by default."""

KEPT: Final = 1000
"""Pods whose reasons are remembered, and whose nodes are."""

NEVER: Final = float("inf")


class Losses:
    """See the module's text.

    Args:
        retries: how often a call may run again.
        explains: whether reasons may become known later.
    """

    def __init__(self, retries: int, *, explains: bool) -> None:
        self._retries = retries
        self._explains = explains
        self._reasons: dict[str, str] = {}
        self._nodes: dict[str, str] = {}
        self._unknown: set[str] = set()
        self._waiting: list[tuple[float, Lost, str]] = []  # when it fails, and its function's name

    def joined(self, pod: str, node: str) -> None:
        """A pod is there, on this node."""
        self._nodes[pod] = node
        while len(self._nodes) > KEPT:
            del self._nodes[next(iter(self._nodes))]

    def gone(self, pod: str, reason: str, *, explained: bool) -> None:
        """A pod is gone, for a reason that is known or only guessed."""
        if pod in self._reasons and pod not in self._unknown:
            return
        self._reasons[pod] = reason
        if explained:
            self._unknown.discard(pod)
        else:
            self._unknown.add(pod)
        while len(self._reasons) > KEPT:
            oldest = next(iter(self._reasons))
            del self._reasons[oldest]
            self._unknown.discard(oldest)

    def lost(self, order: Lost, now: float, function: str = "the function") -> None:
        """A call of this function is out of retries."""
        wait = self._explains and not self._unknown.isdisjoint(order.pods)
        self._waiting.append((now + PATIENCE if wait else now, order, function))

    def deadline(self) -> float:
        """When `take` has something, at the latest."""
        return min((due for due, _, _ in self._waiting), default=NEVER)

    def take(self, now: float) -> list[tuple[Lost, PodLost]]:
        """The calls that fail now, and with what."""
        if not self._waiting:
            return []
        ready = [
            (order, function)
            for due, order, function in self._waiting
            if now >= due or self._unknown.isdisjoint(order.pods)
        ]
        taken = {id(order) for order, _ in ready}
        self._waiting = [entry for entry in self._waiting if id(entry[1]) not in taken]
        return [(order, self._failure(order, function)) for order, function in ready]

    def take_all(self) -> list[tuple[Lost, PodLost]]:
        """All that wait still: there is no time left."""
        return self.take(NEVER)

    def attempt(self, loss: Loss, number: int = 0) -> Attempt:
        """What is known of a time that a call was lost with its pod."""
        reason = self._reason(loss.pod)
        node = self._nodes.get(loss.pod)
        return Attempt(number, loss.pod, node, None, loss.seconds, f"its pod was lost: {reason}")

    def _reason(self, pod: str) -> str:
        return self._reasons.get(pod, "for no reason that is known")

    def _failure(self, order: Lost, function: str) -> PodLost:
        pods = order.pods
        retries = self._retries if order.retries is None else order.retries
        losses = map(Loss, pods, order.seconds or (None,) * len(pods))
        attempts = [self.attempt(loss, number) for number, loss in enumerate(losses, 1)]
        index = None if order.map_item is None else order.map_item[1]
        several = "1 pod" if len(pods) == 1 else f"{len(pods)} pods"
        story = listed(
            [
                attempt._replace(outcome=self._reason(pod))
                for attempt, pod in shortened([*zip(attempts, pods, strict=True)])
            ]
        )
        culprit = "; it may be what ended them" if len(pods) > 1 else ""
        return PodLost(
            f"{called(function, index)} was lost with {several} and is not tried again "
            f"(retries={retries}){culprit}:{story}",
            pods=pods,
            reasons=tuple(map(self._reason, pods)),
            attempts=tuple(shortened(attempts)),
        )
