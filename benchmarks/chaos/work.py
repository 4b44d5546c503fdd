"""What a client of the soak does: rounds of work of random kinds, several at once."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import logging
import os
import random
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TextIO

from k8sfutures import BrokerRefused, K8sRabbitExecutor, WorkerCrashed

from .checks import HANG, RETRIES, WORKERS, Counts
from .kinds import KINDS, SIZES, Kinds

AT_ONCE = 5
"""Pieces of work in a round."""

GAP = 8.0
"""Seconds without a turn after which this process counts as having been suspended: pods drop the
work of a client whose queue is gone after 10."""


class _Losses(logging.Handler):
    """Hears which pods the executors give up, and when."""

    def __init__(self, tell: Callable[..., None]) -> None:
        super().__init__()
        self.at: list[float] = []
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, str) and record.msg.startswith("pod %s is lost"):
            self.at.append(time.monotonic())
            pod, calls, reason = record.args  # type: ignore[misc]
            self._tell("lost", pod=str(pod), calls=calls, reason=str(reason)[:200])


class _Steady(logging.Formatter):
    """Has the time of a clock that does not jump."""

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return f"{time.monotonic():.3f}"


class _Watched(K8sRabbitExecutor):
    """Knows the Futures that somebody may wait for."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.given: weakref.WeakSet[Future[Any]] = weakref.WeakSet()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.given.add(future)
        return future


class Workload:
    """See the module's text.

    Args:
        calls: the module that has the functions which are called.
        seed: of all that is chosen.
        name: of this client.
        spared: a file with what tells the pod that calls are not to kill.
        told: lines of JSON go here.
    """

    def __init__(self, calls: Any, seed: int, name: str, spared: str, told: TextIO) -> None:
        self._random = random.Random(seed)
        self._told = told
        self._telling = threading.Lock()
        self._ids = itertools.count(1)
        self._stop = threading.Event()
        self._suspended: list[float] = []
        self._tick = time.monotonic()
        self._refused: BrokerRefused | None = None
        self._losses = _Losses(self._tell)
        self._kinds = Kinds(calls, spared, self._tell)
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_Steady(f"%(asctime)s {name} %(message)s"))
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        logging.getLogger("k8sfutures.session").addHandler(self._losses)
        for target in (self._watch_stdin, self._watch_clock):
            threading.Thread(target=target, daemon=True).start()

    def _tell(self, kind: str, **fields: Any) -> None:
        with self._telling:
            self._told.write(
                json.dumps({"at": round(time.monotonic(), 3), "kind": kind, **fields}) + "\n"
            )

    def _watch_stdin(self) -> None:
        while sys.stdin.buffer.raw.read(1):  # type: ignore[union-attr]
            pass
        self._stop.set()

    def _watch_clock(self) -> None:
        while True:
            self._look_at_clock()
            self._tick = time.monotonic()
            threading.Event().wait(0.5)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if now - self._tick > GAP:
            self._suspended.append(now)

    def _ids_for(self, count: int) -> range:
        first = next(self._ids)
        for _ in range(count - 1):
            next(self._ids)
        return range(first, first + count)

    def run(self) -> None:
        """Rounds of work, until told to stop."""
        with ThreadPoolExecutor(AT_ONCE - 1) as threads:
            while True:
                self._refused = None
                try:
                    self._rounds(threads)
                    break
                except BrokerRefused as error:
                    self._tell("refused", words=str(error)[:300])
                if self._stop.wait(1):
                    break
        self._tell("ended")

    def _rounds(self, threads: ThreadPoolExecutor) -> None:
        """Rounds of work with one executor, as long as it is of use."""
        with _Watched(WORKERS, retries=RETRIES) as executor:
            try:
                self._kinds.burst(executor, self._random, self._ids_for(50))
                self._quiet()
                while not self._stop.is_set():
                    self._round(executor, threads)
                    if self._refused is not None:
                        raise self._refused
                    self._quiet()
            except BrokerRefused:
                # Not one is left out.
                if wait(list(executor.given), HANG).not_done:
                    self._tell("hang", what="a call of an executor that was refused", first=0)
                raise
            self._use_all(executor)

    def _round(self, executor: K8sRabbitExecutor, threads: ThreadPoolExecutor) -> None:
        kinds = self._random.choices(*zip(*KINDS.items(), strict=True), k=AT_ONCE)
        seeds = [self._random.random() for _ in kinds]
        done = [
            threads.submit(self._work, executor, kind, seed)
            for kind, seed in zip(kinds, seeds, strict=True)
        ]
        for one in done:
            one.result()

    def _use_all(self, executor: K8sRabbitExecutor) -> None:
        """See that every CPU that there is runs calls: none is left with what was ended."""
        where = self._kinds.calls.where
        seen: set[object] = set()
        deadline = time.monotonic() + HANG
        while True:
            cpus = max(1, executor._manager.statistics().slots)  # noqa: SLF001
            if len(seen) >= cpus:
                return
            if time.monotonic() > deadline:
                self._tell("violation", what=f"of {cpus} CPUs only {len(seen)} run calls")
                return
            try:
                futures = [executor.submit(where) for _ in range(cpus)]
                seen.update(future.result(HANG) for future in futures)
            except WorkerCrashed:
                self._kinds.note("WorkerCrashed, of a process that was killed")
            except FutureTimeoutError:
                self._tell("hang", what="a call after the faults", first=0, count=1)
                return

    def _work(self, executor: K8sRabbitExecutor, kind: str, seed: float) -> None:
        chosen = random.Random(seed)
        count = SIZES.get(kind, 1)
        with self._telling:
            numbers = self._ids_for(chosen.randint(1, count))
        begun = time.monotonic()
        self._tell("begun", what=kind, first=numbers[0], count=len(numbers))
        try:
            counts = getattr(self._kinds, kind)(executor, chosen, numbers)
        except BrokerRefused as error:
            self._refused = error
            most = 1 + 2 * RETRIES if kind == "retried" else 1
            counts = [(number, 0, most) for number in numbers]
        except FutureTimeoutError:
            self._tell("hang", what=kind, first=numbers[0], count=len(numbers))
            return
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            self._tell("violation", what=f"{kind} {numbers}: {words[:1500]}")
            counts = [(number, 0, 1) for number in numbers]
        self._look_at_clock()
        again = sum(at >= begun for at in (*self._losses.at, *self._suspended))
        rows = [
            (group[0][0], len(group), least, most + again * (most > 0))
            for (least, most), group in _runs(counts)
        ]
        self._tell("done", what=kind, first=numbers[0], count=len(numbers), rows=rows)

    def _quiet(self) -> None:
        """Between two rounds nothing is under way: what is used now, is kept."""
        gc.collect()
        # Blocks that are free, and that the C library keeps: for each thread's arena as much as
        # 62 MiB, since it got used to bulk.
        ctypes.CDLL(None).malloc_trim(0)
        self._tell("quiet", outcomes=self._kinds.outcomes, **usage(os.getpid()))


def _runs(counts: Counts) -> Iterator[tuple[tuple[int, int], Counts]]:
    """Calls of adjacent numbers with the same least and most, together."""
    ordered = sorted(counts)
    keyed = [((at - row[0], row[1], row[2]), row) for at, row in enumerate(ordered)]
    for (_, least, most), group in itertools.groupby(keyed, lambda pair: pair[0]):
        yield (least, most), [row for _, row in group]


def usage(pid: int) -> dict[str, int]:
    """Memory (KiB), open files and threads of a process; nothing where it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as lines:  # noqa: PTH123
            found = dict(line.split(":", 1) for line in lines if ":" in line)
        return {
            "memory": int(found["VmRSS"].split()[0]),
            "files": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208
            "threads": int(found["Threads"]),
        }
    except (OSError, KeyError):
        return {}
