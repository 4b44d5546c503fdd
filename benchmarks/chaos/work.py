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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TextIO

from k8sfutures import K8sRabbitExecutor

from .checks import RETRIES, WORKERS, Counts
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


class Workload:
    """See the module's text.

    Args:
        calls: the module that has the functions which are called.
        seed: of all that is chosen.
        name: of this client.
        spared: a file with the pid of an agent that calls are not to kill; "" where they cannot.
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
        self._losses = _Losses(self._tell)
        self._kinds = Kinds(calls, spared, self._tell)
        self._weights = {kind: how for kind, how in KINDS.items() if spared or kind != "poisonous"}
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
        with (
            ThreadPoolExecutor(AT_ONCE - 1) as threads,
            K8sRabbitExecutor(WORKERS, retries=RETRIES) as executor,
        ):
            self._kinds.burst(executor, self._random, self._ids_for(50))
            self._quiet()
            while not self._stop.is_set():
                kinds = self._random.choices(*zip(*self._weights.items(), strict=True), k=AT_ONCE)
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
            counts = getattr(self._kinds, kind)(executor, chosen, numbers)
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
