"""What the dispatcher wants done; its agent carries it out, in order."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..messages import Message
from ..values import dataclass


@dataclass(frozen=True, slots=True)
class Feed:
    """Write blobs of a client to a CPU process, then frames, then tokens into its pipe."""

    cpu_id: int
    frames: list[tuple[Any, ...]]
    tokens: list[int]
    client: str = ""
    blobs: Collection[int] = ()


@dataclass(frozen=True, slots=True)
class Steal:
    """Take up to this many tokens out of a CPU process's pipe, and tell `stolen` which."""

    cpu_id: int
    count: int


@dataclass(frozen=True, slots=True)
class Kill:
    """Send a signal to a CPU process."""

    cpu_id: int
    signal: int


@dataclass(frozen=True, slots=True)
class End:
    """Read what a CPU process has said, then ask `Endings.decide` whether to end it."""

    cpu_id: int


@dataclass(frozen=True, slots=True)
class Retire:
    """Close the channels of an idle CPU process, so that it ends; start another."""

    cpu_id: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a client."""

    client: str
    message: Message


@dataclass(frozen=True, slots=True)
class Drop:
    """No call of this client needs these blobs any more."""

    client: str
    blobs: list[int]


Instruction = Feed | Steal | Kill | End | Retire | Send | Drop
