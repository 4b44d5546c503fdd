"""What every call of the soak must come to, and how its end is checked."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from k8sfutures import BrokerRefused, WorkerCrashed

HANG = 240.0
"""Seconds after which a call that has no outcome hangs. Faults that silence a connection or stop a
process take tens of seconds to be found, and several can hit one call, one after another."""

RETRIES = 10
"""Of the executors whose calls must come back whatever happens to pods."""

WORKERS = int(os.environ["CHAOS_WORKERS"]) if "CHAOS_WORKERS" in os.environ else None
"""CPUs to use at once; None for all."""

MEMORY = int(os.environ.get("CHAOS_MEMORY", "0"))
"""Bytes that a pod may have; 0 for no limit."""

Counts = list[tuple[int, int, int]]
"""Numbers of calls, and how often each must have run, and may have where nothing was lost."""


class Violation(Exception):
    """An outcome that must not be."""


class Checks:
    """See the module's text.

    Args:
        calls: the module that has the functions which are called.
        spared: a file with what tells the pod that calls are not to kill.
        tell: says something to whoever has started this process.
    """

    def __init__(self, calls: Any, spared: str, tell: Callable[..., None]) -> None:
        self.calls = calls
        self.spared = spared
        self._tell = tell
        self._lock = threading.Lock()
        self.outcomes: Counter[str] = Counter()
        """How many of each kind have come: values, and exceptions by their class."""

    def note(self, outcome: str) -> None:
        """Count an outcome."""
        with self._lock:
            self.outcomes[outcome] += 1

    def is_value(self, number: int, future: Future[Any], value: object) -> int:
        """Check a result; returns how often the call must at least have run."""
        try:
            got = future.result(HANG)
        except WorkerCrashed as error:
            self.killed(number, error)
            return 0
        if got != value:
            raise Violation(f"call {number} returned {str(got)[:80]} instead of {str(value)[:80]}")
        self.note("value")
        return 1

    def killed(self, number: int, error: WorkerCrashed) -> None:
        """Somebody must have killed that process: whoever has started us knows."""
        self.note("WorkerCrashed, of a process that was killed")
        self._tell("crashed", number=number, pid=error.pid, signal=error.signal, pod=error.pod)

    def are_values(self, numbers: range, futures: list[Any], values: list[Any]) -> Counts:
        """Check results of calls that run once."""
        return [
            (number, self.is_value(number, future, value), 1)
            for number, future, value in zip(numbers, futures, values, strict=True)
        ]

    def are_squares(self, numbers: range, futures: list[Any]) -> Counts:
        """Check results of `square`."""
        return self.are_values(numbers, futures, [number * number for number in numbers])

    def error_of(self, future: Future[Any]) -> BaseException | None:
        """What a call that is to raise has raised, or None; that we are refused, it raises."""
        error = future.exception(HANG)
        if isinstance(error, BrokerRefused):
            raise error
        return error
