"""What the dispatcher wants done; its agent carries it out, in order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..messages import Message


@dataclass(frozen=True, slots=True)
class Feed:
    """Write these frames to a CPU process, then these tokens into its pipe."""

    cpu_id: int
    frames: list[tuple[Any, ...]]
    tokens: list[int]


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
class Retire:
    """Close the channels of an idle CPU process, so that it ends; start another."""

    cpu_id: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message to a client."""

    client: str
    message: Message


Instruction = Feed | Steal | Kill | Retire | Send
