"""When the client asks for more pods than have answered: pure.

Asking is not free (on Kubernetes the API's client is imported, and the cluster is looked over),
so it is done when CPUs are known to be missing, or once it may be that they are: pods that are
there have had the time to answer, or work has been waiting for long.
"""

from __future__ import annotations

from typing import Final

from .pods import Need

ANSWER: Final = 0.5
"""Seconds that pods which are at the broker have to answer before others are asked for."""

SETTLE: Final = 0.3
"""Seconds after an answer in which others may come."""

AGAIN: Final = 15.0
"""Seconds between two looks for CPUs that were missing before, while work waits."""

LOOKS = 30
"""Looks, one a second, after which a pod that was given up and has not come back is to be ended: by
then, one that had only lost the broker would have found it again. They are counted instead of the
time, since who looks may have been stopped as well."""

NEVER: Final = float("inf")


class Demand:
    """See the module's text.

    Args:
        cpus: how many the client wants in all, or None for all there are.
        eager: whether to ask before the broker has said who is there.
        after_broker: whether to ask only once it has been reached.
    """

    def __init__(self, cpus: int | None, eager: bool, *, after_broker: bool = False) -> None:
        self._cpus = cpus
        self._eager = eager
        self._attached: dict[str, int] = {}
        self._complete = 0  # CPUs of the whole pool, as far as its pods know
        self._answered: set[str] = set()  # ever
        self._unexplained: dict[str, int] = {}  # pod -> looks since it was lost
        self._answering = False  # there are pods at the broker, whether they have answered or not
        self._ask = eager
        self._waits = after_broker
        self._ask_when_busy = False
        self._check_at = NEVER

    @property
    def have(self) -> int:
        """CPUs that have answered."""
        return sum(self._attached.values())

    def has_answered(self, pod: str) -> bool:
        """Whether a pod has ever answered."""
        return pod in self._answered

    def called(self, now: float) -> None:
        """The broker has been reached, and the pods there have been called."""
        self._waits = False
        self._answering = True
        self._unexplained = dict.fromkeys(self._unexplained, 0)  # they could not be heard
        self._check_at = min(self._check_at, now + ANSWER)

    def nobody(self) -> None:
        """There are none."""
        self._answering = False
        self._check_at = NEVER
        self._ask = self._ask or (not self._attached and not self._eager)

    def joined(self, pod: str, cpus: int, complete: int, now: float) -> None:
        """A pod has answered."""
        self._answering = True
        self._unexplained.pop(pod, None)
        self._attached[pod] = cpus
        self._answered.add(pod)
        self._complete = max(self._complete, complete)
        self._check_at = now + SETTLE if self._is_short() else NEVER

    def left(self, pod: str, *, explained: bool) -> None:
        """A pod takes no calls any more, for a reason that is known or not."""
        if pod in self._answered:  # and once more, after it has drained: now its CPUs are free
            self._ask_when_busy = True
        if self._attached.pop(pod, None) is not None:
            self._answering = self._answering and bool(self._attached)
        if not explained:
            self._unexplained.setdefault(pod, 0)

    def explained(self, pod: str) -> None:
        """It is known now why a pod is gone."""
        self._unexplained.pop(pod, None)

    def listen(self) -> list[str]:
        """A second has passed in which every pod could have been heard.

        Returns:
            Pods that were lost for no known reason, and are to be called once more now.
        """
        for pod in self._unexplained:
            self._unexplained[pod] += 1
        looks = self._unexplained.values()
        self._ask_when_busy = self._ask_when_busy or LOOKS in looks
        return [pod for pod, count in self._unexplained.items() if count == LOOKS // 2]

    def freed(self) -> None:
        """A pod has ended that was not attached: its CPUs can be had now."""
        # Others look for them by and by.
        self._ask_when_busy = self._ask_when_busy or self._eager

    def ask(self) -> None:
        """Pods that were to come will not; who has no work can do without them."""
        self._ask_when_busy = True

    def deadline(self) -> float:
        """When `take` may have something to ask for."""
        return self._check_at

    def take(self, now: float, *, busy: bool) -> Need | None:
        """What to ask for now, if anything.

        Args:
            now: the time.
            busy: whether any call waits or runs.
        """
        if busy and self._ask_when_busy:
            self._ask, self._ask_when_busy = True, False
        if now >= self._check_at:
            self._check_at = NEVER
            self._ask = self._ask or self._is_short()
        if not self._ask or self._waits:
            return None
        self._ask = False
        return Need(
            self._cpus,
            dict(self._attached),
            frozenset(self._answered),
            frozenset(self._unexplained),
            answering=self._answering and not self._attached,
            silent=frozenset(pod for pod, looks in self._unexplained.items() if looks >= LOOKS),
        )

    def waiting(self, now: float) -> None:
        """Work waits for CPUs: look again, by and by, for those that were missing."""
        if self._check_at == NEVER and not self._eager and self._attached and self._is_short():
            self._check_at = now + AGAIN

    def _is_short(self) -> bool:
        if not self._attached:
            return not self._eager
        if self._eager:
            return False
        if self._cpus is not None:
            return self.have < self._cpus
        return self.have < self._complete or not self._complete
