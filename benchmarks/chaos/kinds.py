"""Kinds of work; each does it, checks what comes back, and says how often what may have run."""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import CancelledError, Future, as_completed
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

from k8sfutures import (
    BrokerRefused,
    K8sRabbitExecutor,
    PodLost,
    WorkerCrashed,
    WorkersTerminated,
)

from .checks import HANG, MEMORY, RETRIES, WORKERS, Counts, Violation
from .chosen import ChosenKinds

CRASHES = {"_exit": (None, 7), "segfault": (11, None), "SIGKILL": (9, None), "SIGABRT": (6, None)}
"""Ways in which a call ends its process; signal and exit code that the exception must have."""

KINDS = {
    "burst": 6,
    "long": 3,
    "raising": 3,
    "crashing": 3,
    "printing": 3,
    "bulky": 3,
    "shared": 2,
    "map": 8,
    "callbacks": 3,
    "definitions": 2,
    "cancelled": 3,
    "limited": 3,
    "retried": 3,
    "ended": 3,
    "unpicklable": 1,
    "guest": 3,
    "program": 0.5,
    "initialized": 1,
    "poisonous": 0.15,
    "greedy": 2 if MEMORY else 0,
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
    "callbacks": 60,
    "definitions": 30,
    "cancelled": 150,
    "limited": 60,
    "retried": 10,
    "ended": 60,
    "guest": 60,
    "program": 100,
    "initialized": 30,
    "poisonous": 20,
}
"""The most calls of each."""


class Kinds(ChosenKinds):
    """Each method is a kind of work.

    Its arguments are an executor, what it chooses with, and the numbers of its calls. It raises a
    `Violation`, or an exception that was not to be, where anything is wrong.
    """

    def burst(self, executor: Any, _: random.Random, numbers: range) -> Counts:
        """Many calls at once that do hardly anything."""
        futures = [executor.submit(self.calls.square, number) for number in numbers]
        return self.are_squares(numbers, futures)

    def long(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls that a fault finds running."""
        futures = [
            executor.submit(self.calls.nap, number, chosen.uniform(0.1, 1.5)) for number in numbers
        ]
        return self.are_values(numbers, futures, list(numbers))

    def raising(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Exceptions of several kinds."""
        words = [chosen.choice(["exit", "memory", "own"]) for _ in numbers]
        futures = [
            executor.submit(self.calls.fail, number, word)
            for number, word in zip(numbers, words, strict=True)
        ]
        kinds = {"exit": SystemExit, "memory": MemoryError, "own": self.calls.Planned}
        counts = []
        for number, word, future in zip(numbers, words, futures, strict=True):
            error = self.error_of(future)
            if isinstance(error, WorkerCrashed):
                self.killed(number, error)
                counts.append((number, 0, 1))
                continue
            if error is None or type(error) is not kinds[word] or str(number) not in str(error):
                raise Violation(f"call {number} ({word}) ended with {error!r}")
            if word == "own" and not isinstance(error.__cause__, KeyError):
                raise Violation(f"call {number} lost its cause: {error.__cause__!r}")
            self.note(type(error).__name__)
            counts.append((number, 1, 1))
        return counts

    def crashing(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls that end their process, among others that must not suffer."""
        hows: list[str | None] = [
            chosen.choice(list(CRASHES)) if chosen.random() < 0.1 else None for _ in numbers
        ]
        hows[0] = chosen.choice(list(CRASHES))
        futures = [
            executor.submit(self.calls.square, number)
            if how is None
            else executor.submit(self.calls.crash, number, how)
            for number, how in zip(numbers, hows, strict=True)
        ]
        counts = []
        for number, how, future in zip(numbers, hows, futures, strict=True):
            if how is None:
                counts.append((number, self.is_value(number, future, number * number), 1))
                continue
            error = self.error_of(future)
            if not isinstance(error, WorkerCrashed):
                raise Violation(f"call {number} ({how}) ended with {error!r}")
            if (error.signal, error.exitcode) != CRASHES[how]:
                self.killed(number, error)  # by another, before it could
                counts.append((number, 0, 1))
            else:
                self.note("WorkerCrashed, by the call itself")
                counts.append((number, 0 if how == "SIGKILL" else 1, 1))
        return counts

    def printing(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls that print."""
        lines = [chosen.randint(0, 200) for _ in numbers]
        futures = [
            executor.submit(self.calls.talk, number, count)
            for number, count in zip(numbers, lines, strict=True)
        ]
        return self.are_values(numbers, futures, lines)

    def bulky(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Big arguments and big results."""
        datas = [chosen.randbytes(1000) * chosen.choice([50, 300, 3000]) for _ in numbers]
        futures = [
            executor.submit(self.calls.echo, number, data)
            for number, data in zip(numbers, datas, strict=True)
        ]
        return self.are_values(numbers, futures, [data[::-1] for data in datas])

    def shared(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """One big argument of many calls."""
        shared = bytearray(chosen.randbytes(1000) * 2000)
        futures = [executor.submit(self.calls.total, number, shared) for number in numbers]
        return self.are_values(numbers, futures, [sum(shared[::4096])] * len(numbers))

    def map(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """A map: taken to its end or not, of items that raise or crash or not, in chunks or not."""
        how = chosen.choice(["whole", "whole", "failing", "crashing", "closed", "hasty"])
        bad = frozenset([chosen.choice(numbers)]) if how in {"failing", "crashing"} else frozenset()
        function = {
            "failing": self.calls.square_or_fail,
            "crashing": self.calls.square_or_crash,
        }.get(how)
        timeout = chosen.uniform(0, 0.1) if how == "hasty" else HANG
        options = {
            "chunksize": chosen.choice([None, None, 1, 7, 40]),
            "buffersize": chosen.choice([None, None, 8, 100]),
            "timeout": timeout,
        }
        items: Iterable[int] = (number for number in numbers)  # they can be taken only once
        if function is None:
            results = executor.map(self.calls.square, items, **options)
        else:
            results = executor.map(function, items, itertools.repeat(bad), **options)
        counts: Counts = []
        try:
            for number in numbers:
                if how == "closed" and number - numbers[0] > len(numbers) // 2:
                    break
                try:
                    got = next(results)
                except WorkerCrashed as error:
                    if number not in bad:
                        self.killed(number, error)
                    counts.append((number, 0, 1))
                    break
                except self.calls.Planned:
                    if number not in bad:
                        raise
                    self.note("Planned")
                    counts.append((number, 1, 1))
                    break
                except FutureTimeoutError:
                    if how != "hasty":
                        raise
                    self.note("TimeoutError of a map")
                    break
                if got != number * number or number in bad:
                    raise Violation(f"item {number} of a map returned {got}")
                self.note("value")
                counts.append((number, 1, 1))
        finally:
            results.close()
        # Those behind an error, or that nobody took, may have run.
        return counts + [(number, 0, 1) for number in numbers[len(counts) :]]

    def callbacks(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Each callback is called once, and submits another call; `as_completed` has all."""
        slow = chosen.choice(numbers) if chosen.random() < 0.1 else None
        takes = chosen.uniform(1, 15)
        middle = (len(numbers) + 1) // 2
        first, second = numbers[:middle], numbers[middle:]
        told: Counter[int] = Counter()
        all_told = threading.Event()
        more: dict[int, Future[Any]] = {}
        refused: list[BrokerRefused] = []

        def done(number: int) -> None:
            told[number] += 1
            if number == slow:
                time.sleep(takes)
            try:
                if number + middle in second:
                    more[number + middle] = executor.submit(self.calls.square, number + middle)
            except BrokerRefused as error:
                refused.append(error)
            if len(told) == middle:
                all_told.set()

        futures = [executor.submit(self.calls.square, number) for number in first]
        for number, future in zip(first, futures, strict=True):
            future.add_done_callback(lambda _, number=number: done(number))
        completed = list(as_completed(futures, HANG))
        if len(completed) != middle or set(completed) != set(futures):
            raise Violation(f"as_completed gave {len(completed)} of {middle} Futures")
        counts = self.are_squares(first, futures)
        if not all_told.wait(HANG):
            raise FutureTimeoutError
        if refused:
            raise refused[0]
        counts += self.are_squares(second, [more[number] for number in second])
        if set(told.values()) != {1}:
            raise Violation(f"callbacks were called {told} times")
        return counts

    def definitions(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """What is defined in ``__main__`` or in a function travels by value, and is one class."""
        calls = self.calls
        step, note = chosen.randint(1, 9), calls.note

        def closure(number: int) -> int:
            note(number)
            return number + step

        counts: Counts = []
        futures: list[tuple[str, Future[Any]]] = []
        for number in numbers:
            how = chosen.choice(["closure", "point", "colour", "steps"])
            if how == "closure":
                future = executor.submit(closure, number)
            elif how == "point":
                future = executor.submit(calls.Point(number, 1).moved, number, step)
            elif how == "steps":
                future = executor.submit(calls.steps, number, step)
            else:
                future = executor.submit(calls.other_colour, number, calls.Colour.RED)
            futures.append((how, future))
        for number, (how, future) in zip(numbers, futures, strict=True):
            value = {
                "closure": number + step,
                "point": calls.Point(number + step, 1),
                "colour": calls.Colour.BLUE,
                "steps": list(range(number, number + step)),
            }[how]
            counts.append((number, self.is_value(number, future, value), 1))
            if counts[-1][1] and type(future.result()) is not type(value):
                raise Violation(f"call {number} returned a {type(future.result())} of another kind")
        return counts

    def cancelled(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls that are cancelled where they can be."""
        futures = [executor.submit(self.calls.nap, number, 0.005) for number in numbers]
        cancelled = {number: chosen.random() < 0.5 for number in numbers}
        for number, future in zip(numbers, futures, strict=True):
            cancelled[number] = cancelled[number] and future.cancel()
        for _ in filter(None, cancelled.values()):
            self.note("CancelledError")
        return [
            (number, 0, 0) if cancelled[number] else (number, self.is_value(number, one, number), 1)
            for number, one in zip(numbers, futures, strict=True)
        ]

    def unpicklable(self, executor: Any, _: random.Random, numbers: range) -> Counts:
        """An argument that cannot travel is an error on its Future alone."""
        before = executor.submit(self.calls.square, numbers[0])
        error = self.error_of(executor.submit(self.calls.echo, numbers[0], threading.Lock()))
        if not isinstance(error, TypeError):
            raise Violation(f"a lock as an argument ended with {error!r}")
        self.note("TypeError")
        return [(numbers[0], self.is_value(numbers[0], before, numbers[0] ** 2), 1)]

    def guest(self, _: Any, chosen: random.Random, numbers: range) -> Counts:
        """An executor of its own on the same pods, and its end."""
        end = chosen.choice(["with", "with", "cancel", "kill", "terminate", "drop"])
        executor = K8sRabbitExecutor(
            chosen.choice([WORKERS, 1]),
            max_tasks_per_child=chosen.choice([None, None, 5]),
            retries=RETRIES,
            output=chosen.choice(["marked", "plain", "off"]),
        )
        futures = [executor.submit(self.calls.square, number) for number in numbers]
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
            return self.are_squares(numbers, futures)
        counts: Counts = []
        for number, future in zip(numbers, futures, strict=True):
            try:
                counts.append((number, self.is_value(number, future, number**2), 1))
            except CancelledError:
                self.note("CancelledError")
                # One that was sent, and came back with a pod, can be cancelled, too.
                counts.append((number, 0, 1))
            except WorkersTerminated:
                if end == "cancel":
                    raise
                self.note("WorkersTerminated")
                counts.append((number, 0, 1))
        return counts

    def program(self, _: Any, _chosen: random.Random, numbers: range) -> Counts:
        """A program of its own that ends while its calls run."""
        words = [self.calls.LEDGER, str(numbers[0]), str(numbers[-1])]
        command = [sys.executable, "-m", "benchmarks.chaos.program", *words]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running:
            assert running.stdout is not None
            timer = threading.Timer(HANG, running.kill)
            timer.start()
            said = running.stdout.read()
            running.wait()  # before its standard input is closed, which would end it
            timer.cancel()

        if running.returncode == -9:
            raise FutureTimeoutError
        told = json.loads(said)
        if running.returncode or told["wrong"]:
            raise Violation(f"a program ended with {running.returncode}: {said[:500]}")
        for number, pid, signal, pod in told["crashed"]:
            self.killed(number, WorkerCrashed(pid=pid, signal=signal, pod=pod))
        for _number in told["right"]:
            self.note("value")
        if told["refused"]:
            raise BrokerRefused(f"a program: calls {told['refused']}")
        # It is not told which pods its executor gave up.
        right = set(told["right"])
        return [(number, int(number in right), 1 + RETRIES) for number in numbers]

    def initialized(self, _: Any, chosen: random.Random, numbers: range) -> Counts:
        """What an initializer has set up is there for its executor's calls, and for no others."""
        word = f"ready {chosen.random()}"
        with K8sRabbitExecutor(
            WORKERS, initializer=self.calls.prepare, initargs=(word,), retries=RETRIES
        ) as executor:
            futures = [executor.submit(self.calls.prepared, number) for number in numbers]
            return self.are_values(numbers, futures, [word] * len(numbers))

    def poisonous(self, _: Any, _chosen: random.Random, numbers: range) -> Counts:
        """A call that kills its pods, among others that must come back."""
        spared = Path(self.spared).read_text()
        if not spared:
            return []  # the one is not known yet
        poison, rest = numbers[0], numbers[1:]
        with (
            K8sRabbitExecutor(WORKERS, retries=1) as bad,
            K8sRabbitExecutor(WORKERS, retries=RETRIES) as good,
        ):
            futures = [good.submit(self.calls.square, number) for number in rest]
            culprit = bad.submit(self.calls.poison, poison, spared)
            error = self.error_of(culprit)
            if isinstance(error, WorkerCrashed):
                self.killed(poison, error)
            elif not (isinstance(error, PodLost) and len(error.pods) == 2) and (
                error is not None or culprit.result() != "spared"
            ):
                raise Violation(f"a call that kills its pods ended with {error!r}")
            else:
                self.note("value" if error is None else type(error).__name__)
            return [(poison, 0, 2), *self.are_squares(rest, futures)]

    def greedy(self, executor: Any, _: random.Random, numbers: range) -> Counts:
        """A call that uses up the memory of its pod: the kernel ends it, or all of the pod."""
        spared = Path(self.spared).read_text()
        if not spared:
            return []
        (number,) = numbers
        future = executor.options(retries=0).submit(self.calls.take, number, spared, 2 * MEMORY)
        error = self.error_of(future)
        if isinstance(error, WorkerCrashed) and error.out_of_memory:
            if error.memory_limit != MEMORY or (error.memory_peak or 0) < MEMORY / 2:
                raise Violation(f"call {number} is out of memory: {vars(error)}")
            self.note("WorkerCrashed, out of memory")
        elif isinstance(error, WorkerCrashed):
            self.killed(number, error)
        elif isinstance(error, PodLost):
            out = "OOMKilled" in str(error)
            self.note("PodLost, out of memory" if out else "PodLost, of another cause")
        elif error is not None or future.result() != "spared":
            raise Violation(
                f"call {number} that uses up the memory of its pod ended with {error!r}"
            )
        else:
            self.note("value")
        return [(number, 0, 1)]
