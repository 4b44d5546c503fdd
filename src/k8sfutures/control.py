"""What callers ask of the manager thread, and what an executor is made of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import field
from typing import Any, Final

from .attempts import called
from .blobs import Blobs
from .config import Output
from .errors import CallCancelled
from .functions import PickledFunction
from .link import ClientLink, LinkEvent
from .maps import Map
from .place import Place
from .pods import Credentials, PodSource
from .scheduler_events import Cancelled
from .values import dataclass

ANSWER: Final = 1.0
"""Seconds to wait for an answer before looking whether there is anyone to give it."""


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


class CancelRequest:
    """Cancel a call that has been sent out; whoever asks waits for the answer.

    Args:
        future: its Future.
    """

    def __init__(self, future: Future[Any]) -> None:
        self.future = future
        self.answered = threading.Event()
        self.cancelled = False

    def find(self, futures: Mapping[int, Future[Any]], unless: Callable[[int], bool]) -> int | None:
        """The number of the call, if it is among these, and unless that is so of it."""
        found = next((number for number, one in futures.items() if one is self.future), None)
        return None if found is None or unless(found) else found

    def failure(self, pod: str | None, function: str) -> CallCancelled:
        """What its Future gets, where this pod has the call of that function."""
        where = f"while pod {pod} had it" if pod else "before it ran again"
        return CallCancelled(f"{called(function)} was cancelled {where}", pod=pod)

    def wait(self, thread: threading.Thread) -> bool:
        """Wait for the answer of a thread, if that lives; returns whether it is cancelled."""
        while not self.answered.wait(ANSWER) and thread.is_alive():
            pass
        return self.cancelled

    def answer(self, *, cancelled: bool) -> None:
        """Say what became of it."""
        self.cancelled = cancelled
        self.answered.set()


class Wake:
    """Calls have been submitted."""


WAKE: Final = Wake()

Control = (
    Refused
    | MapStarted
    | MapExtended
    | MapClosed
    | Shutdown
    | Terminate
    | CancelRequest
    | Cancelled
    | Wake
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an executor is made of; see `K8sRabbitExecutor` for the meaning of each."""

    name: str
    pool: str
    source: PodSource
    connect: Callable[[Credentials, str, str, Callable[[LinkEvent], None]], ClientLink]
    max_workers: int | None
    max_tasks_per_child: int | None
    initializer: PickledFunction | None
    surroundings: bytes = field(repr=False)
    within: Place | None
    blobs: Blobs
    shape: Mapping[str, str]
    retries: int
    startup_timeout: float
    flush_window: float
    output: Output
