"""How a client or a pod sees the broker: two small interfaces, and what they tell.

`Endpoint` is what the agent uses on its own event loop, and what `ClientLink` wraps for the
manager in a thread of its own. The real ones are in `amqp`; `testing` has both in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from .errors import ExecutorBroken
from .values import dataclass


@dataclass(frozen=True, slots=True)
class LinkUp:
    """The queue is there: messages go out and come in from now on."""


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The broker is gone, or was not reached; the link goes on trying.

    Attributes:
        error: what to tell the user, should it stay so.
    """

    error: ExecutorBroken


@dataclass(frozen=True, slots=True)
class LinkBlocked:
    """The broker takes no messages for now, be it from us alone or from all; it sends them still.

    Attributes:
        reason: in its words.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class LinkFree:
    """The broker takes messages again; what was sent meanwhile goes out."""


@dataclass(frozen=True, slots=True)
class LinkFailed:
    """The link has given up: trying again cannot help."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Received:
    """A message arrived; its bytes have not been looked at."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Unroutable:
    """A message could not be delivered: this peer's queue does not exist."""

    peer: str


@dataclass(frozen=True, slots=True)
class NobodyThere:
    """An urgent broadcast reached nobody: the pool has no pods at the broker."""


LinkEvent = (
    LinkUp | LinkDown | LinkBlocked | LinkFree | LinkFailed | Received | Unroutable | NobodyThere
)


class Endpoint(Protocol):
    """One side's place at the broker. Everything here belongs to one event loop's thread."""

    def open(self) -> None:
        """Connect, and go on connecting whenever the connection is lost."""

    def send(self, peer: str, body: bytes) -> None:
        """Publish to one peer; lost without a word while the link is down."""

    def broadcast(self, body: bytes) -> None:
        """Publish to every pod of the pool (from a client), or every client (from a pod)."""

    def close(self, done: Callable[[], None]) -> None:
        """Send what is under way, leave the broker, then call `done`."""


class ClientLink(Protocol):
    """A client's link. Its methods may be called from any thread, and never block."""

    def start(self) -> None:
        """Begin to connect; events go to the function given at construction."""

    def send(self, pod: str, body: bytes) -> None:
        """Publish to one pod."""

    def broadcast(self, body: bytes, *, urgent: bool = False) -> None:
        """Publish to every pod of the pool; an urgent message tells where there are none."""

    def broadcast_to(self, pool: str, body: bytes) -> None:
        """Publish to every pod of another pool."""

    def close(self) -> None:
        """Send what is under way and leave the broker; `join` waits for that."""

    def join(self, timeout: float) -> None:
        """Wait until the link has ended."""
