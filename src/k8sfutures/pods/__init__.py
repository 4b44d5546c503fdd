"""Where pods run: a small interface, and one module for each answer.

A `PodSource` belongs to the provisioning thread; it may block. It never touches the broker's
messages: pods announce themselves there, and the manager hears them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import ExecutorBroken


@dataclass(frozen=True, slots=True)
class PodEnded:
    """A pod has ended, by whatever cause.

    Attributes:
        pod: its name.
        reason: what is known of why, for people.
        failed: whether it is known to have failed, rather than to have come to its end.
    """

    pod: str
    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class PodsFailed:
    """Pods cannot be started; trying again would not help."""

    error: ExecutorBroken


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the broker, and the key that signs the pool's messages."""

    url: str
    key: bytes

    def __repr__(self) -> str:
        return "Credentials(...)"


PodEvent = PodEnded | PodsFailed | Credentials


class PodSource(Protocol):
    """Starts pods and notices their ends. Every method runs on the provisioning thread."""

    def credentials(self) -> Credentials:
        """Find or start the broker.

        Raises:
            ExecutorBroken: there is none, and none can be started.
        """

    def ensure(self, credentials: Credentials) -> None:
        """Start the pods that are missing from the pool, if any.

        Raises:
            ExecutorBroken: they cannot be started.
        """

    def watch(self, emit: Callable[[PodEvent], None]) -> None:
        """Wait until a pod ends (tell it by `emit`) or `wake` is called, then return."""

    def wake(self) -> None:
        """Make `watch` return; from any thread."""

    def close(self) -> None:
        """Let go of everything but the pods, which stay warm."""
