"""Where pods run: a small interface, and one module for each answer.

A `PodSource` belongs to the provisioning thread; it may block. It never touches the broker's
messages: pods announce themselves there, and the manager hears them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Protocol

from ..address import parse_amqp_url
from ..errors import ExecutorBroken
from ..tls import Tls
from ..values import dataclass


@dataclass(frozen=True, slots=True)
class PodEnded:
    """A pod has ended, by whatever cause; also told later, of one that was lost for no known cause.

    Attributes:
        pod: its name.
        reason: what is known of why, for people.
        failed: whether it is known to have failed, rather than to have come to its end, and
            nothing else is on its way: where no pod has answered, none will.
    """

    pod: str
    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class PodsFailed:
    """Pods cannot be started; trying again would not help."""

    error: ExecutorBroken


@dataclass(frozen=True, slots=True)
class StartupNews:
    """How far the pods have come that are starting, for people; replaces what was said before."""

    text: str


@dataclass(frozen=True, slots=True)
class CpusHeld:
    """CPUs are missing that pods of these other pools have: those without a client may end."""

    pools: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Credentials:
    """How to reach the broker, and the key that signs the pool's messages."""

    url: str
    key: bytes
    tls: Tls | None = None

    @property
    def address(self) -> str:
        """The broker's URL without the password."""
        return parse_amqp_url(self.url).safe

    def __repr__(self) -> str:
        return "Credentials(...)"


PodEvent = PodEnded | PodsFailed | StartupNews | CpusHeld | Credentials


@dataclass(frozen=True, slots=True)
class Need:
    """What the client is short of.

    Attributes:
        cpus: how many it wants in all, or None for all that can be had.
        attached: the pods that have answered, with the CPUs of each.
        answered: every pod that has ever answered this client.
        unexplained: pods that were lost without anybody knowing why; `PodEnded` tells.
        answering: whether pods are at the broker of which none has answered yet.
        silent: those of the unexplained that could have come back by now, and have not: where they
            are there still, they hold CPUs for nobody, and are to be ended.
    """

    cpus: int | None = None
    attached: Mapping[str, int] = field(default_factory=dict)
    answered: frozenset[str] = frozenset()
    unexplained: frozenset[str] = frozenset()
    answering: bool = False
    silent: frozenset[str] = frozenset()


class PodSource(Protocol):
    """Starts pods and notices their ends. Methods run on the provisioning thread, or say so."""

    eager: bool
    """Whether pods are to be looked for, and started, before the broker has said who is there."""

    after_broker: bool
    """Whether no pod is to be started before the broker has been reached: it is another's, and what
    is wrong with its address would be wrong for pods, too."""

    explains: bool
    """Whether the cause of a pod's loss may become known some seconds after the loss itself."""

    def credentials(self) -> Credentials:
        """Find or start the broker.

        Raises:
            ExecutorBroken: there is none, and none can be started.
        """

    def ensure(self, credentials: Credentials, need: Need) -> None:
        """Start the pods that are missing from the pool, if any.

        Raises:
            ExecutorBroken: they cannot be started, and none is attached.
        """

    def watch(self, emit: Callable[[PodEvent], None]) -> None:
        """Wait until something is to be told (by `emit`) or `wake` is called, then return."""

    def wake(self) -> None:
        """Make `watch` return; from any thread."""

    def retire(self) -> None:
        """Start no pods any more, not even those that are just being started; from any thread."""

    def close(self) -> None:
        """Let go of everything but the pods, which stay warm."""

    def delete_pool(self) -> int:
        """Ask every pod of the pool to end; from any thread. Returns how many were asked."""
