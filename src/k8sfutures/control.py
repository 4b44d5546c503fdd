"""What callers ask of the manager thread, and what an executor is made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

from .blobs import Blobs
from .config import Output
from .link import ClientLink, LinkEvent
from .maps import Map
from .pods import Credentials, PodSource


@dataclass(frozen=True, slots=True)
class Refused:
    """A call could not be pickled: its Future fails with this."""

    future: Future[Any]
    error: BaseException


@dataclass(frozen=True, slots=True)
class MapStarted:
    """A new map, whose first items have been added."""

    map: Map
    count: int
    chunksize: int | None


@dataclass(frozen=True, slots=True)
class MapExtended:
    """More items have been added."""

    map: Map
    count: int


@dataclass(frozen=True, slots=True)
class MapClosed:
    """Nobody will take the rest of the results."""

    map: Map


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Take nothing new, and end when all is done."""

    cancel: bool = False


@dataclass(frozen=True, slots=True)
class Terminate:
    """End the processes that run our calls, with this signal; every Future fails."""

    signal: int
    method: str


class Wake:
    """Calls have been submitted."""


WAKE: Final = Wake()

Control = Refused | MapStarted | MapExtended | MapClosed | Shutdown | Terminate | Wake


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an executor is made of; see `K8sRabbitExecutor` for the meaning of each."""

    name: str
    pool: str
    source: PodSource
    connect: Callable[[Credentials, str, str, Callable[[LinkEvent], None]], ClientLink]
    max_workers: int | None
    max_tasks_per_child: int | None
    initializer: bytes | None
    blobs: Blobs
    shape: Mapping[str, str]
    retries: int
    startup_timeout: float
    flush_window: float
    output: Output
