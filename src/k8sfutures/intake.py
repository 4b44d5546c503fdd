"""What callers hand to the manager thread, from any thread."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any, Final

from .blobs import Blobs
from .control import WAKE, Control, MapExtended, MapStarted, Refused, Shutdown
from .errors import ExecutorBroken
from .functions import Functions, PickledFunction
from .link import LinkEvent
from .maps import Map
from .messages import Call
from .options import Options
from .pods import PodEvent
from .postponed import Written

NEVER: Final = float("inf")
CLOSE_TIMEOUT: Final = 5.0
"""Seconds for the link, the provisioning thread and the output to end at shutdown."""

HURRY: Final = 0.5
"""The same after a Ctrl-C, which may have come in the middle of a start."""

News = Control | LinkEvent | PodEvent | Written
"""What the manager thread is told."""


class Intake:
    """The manager's side that callers see: what they submit waits here until it is taken.

    Args:
        blobs: of the executor.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._inbox: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._submitted: deque[tuple[Future[Any], Call, PickledFunction]] = deque()
        self._woken = False
        self._flush_at = NEVER
        # Re-entrant: a garbage collection inside it may end a map's iterator, which posts.
        self._lock = threading.RLock()
        self.closed = False
        """Whether it takes nothing new."""
        self.broken: ExecutorBroken | None = None
        """Why the executor can run nothing any more, if so."""
        self.call_ids = itertools.count(1)
        """Ids of submitted calls; one that runs again for what it raised gets another."""
        self.chosen: dict[int, Options] = {}
        """Of calls that have any, by id; put in before the call is submitted."""
        self.interrupted = False
        """Whether a Ctrl-C ends it."""
        self.ended = threading.Event()
        """Set when the manager thread has let go of everything."""
        self.blobs = blobs
        self.functions = Functions(blobs)

    @property
    def patience(self) -> float:
        """Seconds for each of the other threads to end."""
        return HURRY if self.interrupted else CLOSE_TIMEOUT

    def submit(self, future: Future[Any], call: Call, function: PickledFunction) -> bool:
        """Queue a call; returns whether it was taken, which it is not after shutdown."""
        with self._lock:
            if self.closed:
                return False
            self._submitted.append((future, call, function))
        if not self._woken:
            self._woken = True
            self._inbox.put(WAKE)
        return True

    def post(self, control: Control) -> bool:
        """Queue anything else; returns whether it was taken: new work is not after shutdown."""
        with self._lock:
            if self.closed and isinstance(control, MapStarted | Refused):
                return False
            self._inbox.put(control)
        return True

    def _is_flush(self, window: float, *, hurry: bool) -> bool:
        """Whether to take now what was submitted, or to let more gather first."""
        self._woken = False
        if self._submitted and window > 0:
            now = time.monotonic()
            if self._flush_at == NEVER:
                self._flush_at = now + window
            if now < self._flush_at and not hurry:
                return False
            self._flush_at = NEVER
        return True

    def extend(self, map_: Map, items: list[tuple[Any, ...]]) -> bool:
        """Add items to a map; returns whether they were taken: they are not after shutdown."""
        with self._lock:
            if not self.closed:
                map_.add(items)
                self._inbox.put(MapExtended(map_, len(items)))
            return not self.closed

    def _left_over(self) -> Iterator[News]:
        """What is in the inbox, after all else."""
        with contextlib.suppress(queue.Empty):
            while True:
                yield self._inbox.get_nowait()

    def close(self, *, cancel: bool = False) -> None:
        """Take nothing new; end when all is done."""
        with self._lock:
            self.closed = True
            self._inbox.put(Shutdown(cancel))
