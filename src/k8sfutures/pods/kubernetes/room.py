"""Where there is no room for pods: whether to wait for some, and what to say: pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...config import is_pool_name
from ...values import dataclass
from .capacity import Holding, Node
from .placement import Size, why_not

YIELD_PATIENCE: Final = 6.0
"""Seconds that idle pods of other pools have to end, and Kubernetes to notice, for a client that
has some CPUs and wants more. One that has none waits for ``startup_timeout``."""

LOOK_AGAIN: Final = 3.0
"""Seconds between two looks for room, while pods of ours hold it: unused ones are asked again."""

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Wait:
    """Room may come: pods of k8sfutures hold it.

    Attributes:
        until: when to look again.
        begins: whether this is the first of several.
        patience: seconds that the whole waiting may take.
        ask: pools whose unused pods may be asked to end.
    """

    until: float
    begins: bool
    patience: float
    ask: tuple[str, ...]


class Room:
    """See the module's text.

    Args:
        pool: the client's pool.
        size: of its pods.
        startup_timeout: seconds that a client without any pod waits.
    """

    def __init__(self, pool: str, size: Size, startup_timeout: float) -> None:
        self._pool = pool
        self._size = size
        self._startup_timeout = startup_timeout
        self._until = NEVER

    def begin(self) -> None:
        """The client wants CPUs anew: waiting begins anew."""
        self._until = NEVER

    def may_grow(self, nodes: Sequence[Node]) -> bool:
        """Whether others of ours have CPUs that may become free for the pool."""
        return any(
            holding.pool != self._pool or holding.namesake for holding in _usable_holdings(nodes)
        )

    def wait(self, nodes: Sequence[Node], now: float, *, nothing: bool) -> Wait | None:
        """Whether to wait for CPUs that pods of ours hold; some are asked, some end by themselves.

        Args:
            nodes: with what is held there.
            now: the time.
            nothing: whether the client has no pod at all.

        Returns:
            None where there is nothing to wait for, or it has taken too long.
        """
        held = _usable_holdings(nodes)
        # A namesake's pods are at another broker, where they cannot be asked.
        others = {
            holding.pool
            for holding in held
            if holding.pool != self._pool and is_pool_name(holding.pool)
        }
        # Our own pool's may be ending still; who has some pods does not wait for those.
        if not others and not (nothing and held):
            return None
        begins = self._until == NEVER
        patience = self._startup_timeout if nothing else YIELD_PATIENCE
        if begins:
            self._until = now + patience
        if now >= self._until:
            return None
        return Wait(min(now + LOOK_AGAIN, self._until), begins, patience, tuple(sorted(others)))

    def words(self, nodes: Sequence[Node]) -> str:
        """Why there is none, and what to do, for people."""
        text = f"no node has room for a pod: {why_not(nodes, self._size)}"
        held = [holding for node in nodes for holding in node.holdings]
        if any(holding.namesake for holding in held):
            text += (
                f"; those pods of pool {self._pool} were made for another broker or another "
                "secret than this client has (settings amqp_url, pod_amqp_url and secret), so "
                "that they cannot be used"
            )
        if held:
            text += "; a pool that is not needed ends by k8sfutures pool delete NAME"
        return text


def _usable_holdings(nodes: Sequence[Node]) -> list[Holding]:
    return [holding for node in nodes if not node.refusal for holding in node.holdings]
