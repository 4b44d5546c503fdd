"""What a client of the soak does, and what must come of it."""

from __future__ import annotations

import gc
import itertools
import json
import logging
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TextIO

from k8sfutures import (
    K8sRabbitExecutor,
    PodLost,
    WorkerCrashed,
    WorkersTerminated,
)

HANG = 240.0
"""Seconds after which a call that has no outcome hangs."""

GAP = 8.0
"""Seconds without a turn after which this process counts as having been suspended: pods drop the
work of a client whose queue is gone after 10."""

CRASHES = {"_exit": (None, 7), "segfault": (11, None), "SIGKILL": (9, None), "SIGABRT": (6, None)}


class Violation(Exception):
    """An outcome that must not be."""


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


class Workload:
    """See the module's text.

    Args:
        calls: the module that has the functions which are called.
        seed: of all that is chosen.
        name: of this client.
        spared: a file with the pid of an agent that calls are not to kill.
        told: lines of JSON go here.
    """

    def __init__(self, calls: Any, seed: int, name: str, spared: str, told: TextIO) -> None:
        self._calls = calls
        self._random = random.Random(seed)
        self._spared = spared
        self._told = told
        self._telling = threading.Lock()
        self._ids = itertools.count(1)
        self._stop = threading.Event()
        self._suspended: list[float] = []
        self._tick = time.monotonic()
        self._losses = _Losses(self._tell)
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format=f"%(asctime)s {name} %(message)s"
        )
        logging.getLogger("k8sfutures.session").addHandler(self._losses)
        for target in (self._watch_stdin, self._watch_clock):
            threading.Thread(target=target, daemon=True).start()

    def _tell(self, kind: str, **fields: Any) -> None:
        with self._telling:
            self._told.write(
                json.dumps({"at": round(time.monotonic(), 3), "kind": kind, **fields}) + "\n"
            )

    def _watch_stdin(self) -> None:
        while sys.stdin.buffer.raw.read(1):  # type: ignore[attr-defined]
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

    # --- rounds

    def run(self) -> None:
        """Rounds of work, until told to stop."""
        with ThreadPoolExecutor(4) as threads, K8sRabbitExecutor(retries=10) as executor:
            self._burst(executor, self._random, self._ids_for(50))
            self._quiet()
            while not self._stop.is_set():
                kinds = self._random.choices(list(KINDS), list(KINDS.values()), k=5)
                seeds = [self._random.random() for _ in kinds]
                done = [
                    threads.submit(self._work, executor, kind, seed)
                    for kind, seed in zip(kinds, seeds, strict=True)
                ]
                for one in done:
                    one.result()
                del done
                self._quiet()
        self._tell("ended")

    def _work(self, executor: K8sRabbitExecutor, kind: str, seed: float) -> None:
        chosen = random.Random(seed)
        count = SIZES.get(kind, 1)
        with self._telling:
            numbers = self._ids_for(chosen.randint(1, count))
        begun = time.monotonic()
        self._tell("begun", what=kind, first=numbers[0], count=len(numbers))
        try:
            counts = getattr(self, f"_{kind}")(executor, chosen, numbers)
        except FutureTimeoutError:
            self._tell("hang", what=kind, first=numbers[0], count=len(numbers))
            return
        except Exception as error:
            words = f"{type(error).__name__}: {error}"
            self._tell("violation", what=f"{kind} {numbers}: {words[:1500]}")
            counts = [(number, 0, 1) for number in numbers]
        self._look_at_clock()
        again = sum(at >= begun for at in (*self._losses.at, *self._suspended))
        counts = counts or [(number, 1, 1) for number in numbers]
        rows = [
            (group[0][0], len(group), least, most + again * (most > 0))
            for (least, most), group in _runs(counts)
        ]
        self._tell("done", what=kind, count=len(numbers), rows=rows)

    def _quiet(self) -> None:
        """Between two rounds nothing is under way: what is used now, is kept."""
        gc.collect()
        self._tell("quiet", **usage(os.getpid()))

    # --- what can be expected

    def _is_value(self, number: int, future: Future[Any], value: object) -> int:
        """Check a result; returns how often the call must at least have run."""
        try:
            got = future.result(HANG)
        except WorkerCrashed as error:
            self._killed(number, error)
            return 0
        if got != value:
            raise Violation(f"call {number} returned {str(got)[:80]} instead of {str(value)[:80]}")
        return 1

    def _killed(self, number: int, error: WorkerCrashed) -> None:
        """Somebody must have killed that process: whoever has started us knows."""
        self._tell("crashed", number=number, pid=error.pid, signal=error.signal, pod=error.pod)

    # --- kinds of work; each returns (number, least, most) of runs, or None for 1 and 1

    def _burst(self, executor: Any, _: random.Random, numbers: range) -> list[Any]:
        futures = [executor.submit(self._calls.square, number) for number in numbers]
        return self._squares(numbers, futures)

    def _squares(self, numbers: range, futures: list[Any]) -> list[Any]:
        return [
            (number, self._is_value(number, future, number * number), 1)
            for number, future in zip(numbers, futures, strict=True)
        ]

    def _long(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        futures = [
            executor.submit(self._calls.nap, number, chosen.uniform(0.1, 1.5)) for number in numbers
        ]
        return [
            (number, self._is_value(number, future, number), 1)
            for number, future in zip(numbers, futures, strict=True)
        ]

    def _raising(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        words = [chosen.choice(["exit", "memory", "own"]) for _ in numbers]
        futures = [
            executor.submit(self._calls.fail, number, word)
            for number, word in zip(numbers, words, strict=True)
        ]
        kinds = {"exit": SystemExit, "memory": MemoryError, "own": self._calls.Planned}
        counts = []
        for number, word, future in zip(numbers, words, futures, strict=True):
            error = self._error_of(future)
            if isinstance(error, WorkerCrashed):
                self._killed(number, error)
                counts.append((number, 0, 1))
                continue
            if type(error) is not kinds[word] or str(number) not in str(error):
                raise Violation(f"call {number} ({word}) ended with {error!r}")
            if word == "own" and not isinstance(error.__cause__, KeyError):
                raise Violation(f"call {number} lost its cause: {error.__cause__!r}")
            counts.append((number, 1, 1))
        return counts

    def _error_of(self, future: Future[Any]) -> BaseException | None:
        return future.exception(HANG)

    def _crashing(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        hows: list[str | None] = [
            chosen.choice(list(CRASHES)) if chosen.random() < 0.1 else None for _ in numbers
        ]
        hows[0] = chosen.choice(list(CRASHES))
        futures = [
            executor.submit(self._calls.square, number)
            if how is None
            else executor.submit(self._calls.crash, number, how)
            for number, how in zip(numbers, hows, strict=True)
        ]
        counts = []
        for number, how, future in zip(numbers, hows, futures, strict=True):
            if how is None:
                counts.append((number, self._is_value(number, future, number * number), 1))
                continue
            error = self._error_of(future)
            if not isinstance(error, WorkerCrashed):
                raise Violation(f"call {number} ({how}) ended with {error!r}")
            if (error.signal, error.exitcode) != CRASHES[how]:
                self._killed(number, error)  # by another, before it could
                counts.append((number, 0, 1))
            else:
                counts.append((number, 0 if how == "SIGKILL" else 1, 1))
        return counts

    def _printing(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        lines = [chosen.randint(0, 200) for _ in numbers]
        futures = [
            executor.submit(self._calls.talk, number, count)
            for number, count in zip(numbers, lines, strict=True)
        ]
        return [
            (number, self._is_value(number, future, count), 1)
            for number, future, count in zip(numbers, futures, lines, strict=True)
        ]

    def _bulky(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        datas = [chosen.randbytes(1000) * chosen.choice([50, 300, 3000]) for _ in numbers]
        futures = [
            executor.submit(self._calls.echo, number, data)
            for number, data in zip(numbers, datas, strict=True)
        ]
        return [
            (number, self._is_value(number, future, data[::-1]), 1)
            for number, future, data in zip(numbers, futures, datas, strict=True)
        ]

    def _shared(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        shared = bytearray(chosen.randbytes(1000) * 2000)
        expected = self._calls_total(shared)
        futures = [executor.submit(self._calls.total, number, shared) for number in numbers]
        return [
            (number, self._is_value(number, future, expected), 1)
            for number, future in zip(numbers, futures, strict=True)
        ]

    @staticmethod
    def _calls_total(shared: bytearray) -> int:
        return sum(memoryview(shared)[::4096])

    def _map(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        how = chosen.choice(["whole", "whole", "failing", "crashing", "closed"])
        bad = frozenset([chosen.choice(numbers)]) if how in {"failing", "crashing"} else frozenset()
        function = {
            "failing": self._calls.square_or_fail,
            "crashing": self._calls.square_or_crash,
        }.get(how)
        options = {
            "chunksize": chosen.choice([None, None, 1, 7, 40]),
            "buffersize": chosen.choice([None, None, 8, 100]),
            "timeout": HANG,
        }
        if function is None:
            results = executor.map(self._calls.square, numbers, **options)
        else:
            results = executor.map(function, numbers, itertools.repeat(bad), **options)
        counts: list[Any] = []
        try:
            for number in numbers:
                if how == "closed" and number - numbers[0] > len(numbers) // 2:
                    break
                try:
                    got = next(results)
                except WorkerCrashed as error:
                    if number not in bad:
                        self._killed(number, error)
                    counts.append((number, 0, 1))
                    break
                except self._calls.Planned:
                    if number not in bad:
                        raise
                    counts.append((number, 1, 1))
                    break
                if got != number * number or number in bad:
                    raise Violation(f"item {number} of a map returned {got}")
                counts.append((number, 1, 1))
        finally:
            results.close()
        # Those behind an error, or that nobody took, may have run.
        return counts + [(number, 0, 1) for number in numbers[len(counts) :]]

    def _cancelled(self, executor: Any, chosen: random.Random, numbers: range) -> list[Any]:
        futures = [executor.submit(self._calls.nap, number, 0.005) for number in numbers]
        counts = []
        cancelled = {number: chosen.random() < 0.5 for number in numbers}
        for number, future in zip(numbers, futures, strict=True):
            cancelled[number] = cancelled[number] and future.cancel()
        for number, future in zip(numbers, futures, strict=True):
            if cancelled[number]:
                counts.append((number, 0, 0))
            else:
                counts.append((number, self._is_value(number, future, number), 1))
        return counts

    def _unpicklable(self, executor: Any, _: random.Random, numbers: range) -> list[Any]:
        before = executor.submit(self._calls.square, numbers[0])
        error = self._error_of(executor.submit(self._calls.echo, numbers[0], threading.Lock()))
        if not isinstance(error, TypeError):
            raise Violation(f"a lock as an argument ended with {error!r}")
        least = self._is_value(numbers[0], before, numbers[0] ** 2)
        return [(numbers[0], least, 1)] + [(number, 0, 0) for number in numbers[1:]]

    def _guest(self, _: Any, chosen: random.Random, numbers: range) -> list[Any]:
        """An executor of its own, and its end."""
        end = chosen.choice(["with", "with", "cancel", "kill", "terminate", "drop"])
        executor = K8sRabbitExecutor(
            chosen.choice([None, 1]),
            max_tasks_per_child=chosen.choice([None, None, 5]),
            retries=10,
            output=chosen.choice(["marked", "plain", "off"]),
        )
        futures = [executor.submit(self._calls.square, number) for number in numbers]
        futures[0].exception(HANG)
        if end == "with":
            executor.shutdown()
        elif end == "cancel":
            executor.shutdown(cancel_futures=True)
        elif end == "drop":
            del executor
        else:
            getattr(executor, f"{end}_workers")()
        if end in {"with", "drop"}:
            return self._squares(numbers, futures)
        counts = []
        for number, future in zip(numbers, futures, strict=True):
            try:
                counts.append((number, self._is_value(number, future, number**2), 1))
            except CancelledError:
                # One that was sent, and came back with a pod, can be cancelled, too.
                counts.append((number, 0, 1))
            except WorkersTerminated:
                if end == "cancel":
                    raise
                counts.append((number, 0, 1))
        return counts

    def _initialized(self, _: Any, chosen: random.Random, numbers: range) -> list[Any]:
        word = f"ready {chosen.random()}"
        with K8sRabbitExecutor(
            initializer=self._calls.prepare, initargs=(word,), retries=10
        ) as executor:
            futures = [executor.submit(self._calls.prepared, number) for number in numbers]
            return [
                (number, self._is_value(number, future, word), 1)
                for number, future in zip(numbers, futures, strict=True)
            ]

    def _poisonous(self, _: Any, _chosen: random.Random, numbers: range) -> list[Any]:
        """A call that kills its pods, among others that must come back."""
        poison, rest = numbers[0], numbers[1:]
        with K8sRabbitExecutor(retries=1) as bad, K8sRabbitExecutor(retries=10) as good:
            futures = [good.submit(self._calls.square, number) for number in rest]
            culprit = bad.submit(self._calls.poison, poison, self._spared)
            error = self._error_of(culprit)
            if isinstance(error, WorkerCrashed):
                self._killed(poison, error)
            elif not (isinstance(error, PodLost) and len(error.pods) == 2) and (
                error is not None or culprit.result() != "spared"
            ):
                raise Violation(f"a call that kills its pods ended with {error!r}")
            return [(poison, 0, 2), *self._squares(rest, futures)]


KINDS = {
    "burst": 6,
    "long": 3,
    "raising": 3,
    "crashing": 3,
    "printing": 3,
    "bulky": 3,
    "shared": 2,
    "map": 8,
    "cancelled": 3,
    "unpicklable": 1,
    "guest": 3,
    "initialized": 1,
    "poisonous": 0.15,
}
"""How often each kind of work is chosen."""

SIZES = {
    "burst": 400,
    "long": 5,
    "raising": 30,
    "crashing": 30,
    "printing": 10,
    "bulky": 6,
    "shared": 12,
    "map": 1500,
    "cancelled": 150,
    "guest": 60,
    "initialized": 30,
    "poisonous": 20,
}
"""The most calls of each."""


def _runs(counts: list[Any]) -> Iterator[tuple[tuple[int, int], list[Any]]]:
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
