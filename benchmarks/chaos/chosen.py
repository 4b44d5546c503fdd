"""Kinds of work with `ex.options(...)` and `ex.cancel(..., running=True)`; see `kinds`."""

from __future__ import annotations

import itertools
import random
import re
import threading
import time
from concurrent.futures import CancelledError, Future
from typing import Any

from k8sfutures import CallCancelled, CallTimeout, PodLost, WorkerCrashed

from .checks import HANG, RETRIES, Checks, Counts, Violation

ALWAYS = 1000
"""So often fails what never succeeds."""

EXIT = 7
"""The code with which calls end their process that do."""


class ChosenKinds(Checks):
    """Each method is a kind of work, as in `kinds.Kinds`."""

    def limited(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls with a time limit, of which some would run for ten minutes."""
        timeout = chosen.uniform(0.2, 2)
        view = executor.options(timeout=timeout)
        endless = frozenset(chosen.sample(numbers, min(len(numbers), chosen.randint(0, 3))))
        if endless and chosen.random() < 0.3:
            return self._limited_items(view, timeout, numbers, endless)
        futures = [
            view.submit(self.calls.linger if number in endless else self.calls.square, number)
            for number in numbers
        ]
        counts: Counts = []
        for number, future in zip(numbers, futures, strict=True):
            error = self.error_of(future)
            if isinstance(error, WorkerCrashed):
                self.killed(number, error)
            elif isinstance(error, CallTimeout):
                self._is_over(number, error, timeout, held_up=number not in endless)
            elif number in endless or error is not None or future.result() != number * number:
                raise Violation(f"call {number} with timeout={timeout} ended with {error!r}")
            else:
                self.note("value")
                counts.append((number, 1, 1))
                continue
            counts.append((number, 0, 1))  # its process may have been stopped before it ran
        return counts

    def _limited_items(
        self, view: Any, timeout: float, numbers: range, endless: frozenset[int]
    ) -> Counts:
        """The same in a map, which the first error ends."""
        results = view.map(
            self.calls.square_or_linger, numbers, itertools.repeat(endless), timeout=HANG
        )
        counts: Counts = []
        try:
            for number in numbers:
                try:
                    got = next(results)
                except WorkerCrashed as error:
                    self.killed(number, error)
                    break
                except CallTimeout as error:
                    self._is_over(number, error, timeout, held_up=number not in endless)
                    break
                if got != number * number or number in endless:
                    raise Violation(f"item {number} with timeout={timeout} returned {got}")
                self.note("value")
                counts.append((number, 1, 1))
        finally:
            results.close()
        return counts + [(number, 0, 1) for number in numbers[len(counts) :]]

    def _is_over(self, number: int, error: CallTimeout, timeout: float, *, held_up: bool) -> None:
        """Check what a call says that was ended by its limit.

        It may be `held_up` although it does hardly anything: with its process, or with the machine.
        """
        if error.timeout != timeout or (error.seconds or 0) < timeout or error.pod is None:
            raise Violation(f"call {number} with timeout={timeout}: {vars(error)}")
        self.note("CallTimeout" + ", of a call that was held up" * held_up)

    def retried(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls that fail, and run again for as often as was chosen."""
        timeout = chosen.uniform(0.2, 0.6)
        planned: list[tuple[str, int, int, Future[Any]]] = []
        for number in numbers:
            how = chosen.choice(["raise", "raise", "exit", "linger"])
            times = chosen.choice([0, 1, 2, ALWAYS])
            retries = chosen.randint(0, 2) if times == ALWAYS else RETRIES + times
            view = executor.options(
                retries=retries,
                retry_on=self._kind(how),
                timeout=timeout if how == "linger" else None,
            )
            future = view.submit(self.calls.fail_until, number, times, how)
            planned.append((how, times, retries, future))
        counts: Counts = []
        for number, (how, times, retries, future) in zip(numbers, planned, strict=True):
            error = self.error_of(future)
            if how != "exit" and isinstance(error, WorkerCrashed):
                self.killed(number, error)
                counts.append((number, 0, retries + 1))
            elif times == ALWAYS:
                self._gave_up(number, how, retries, error)
                # One whose process was killed or stopped in time does not know that it ran.
                counts.append((number, 0, retries + 1))
            elif error is not None or future.result() <= times:
                raise Violation(
                    f"call {number} was to succeed after {times} times {how!r}, and ended with "
                    f"{future.result() if error is None else error!r}"
                )
            else:
                self.note("value, after retries" if times else "value")
                counts.append((number, times + 1, times + 1 if how == "raise" else retries + 1))
        return counts

    def _kind(self, how: str) -> type[BaseException]:
        planned: type[BaseException] = self.calls.Planned
        return {"raise": planned, "exit": WorkerCrashed, "linger": CallTimeout}[how]

    def _gave_up(self, number: int, how: str, retries: int, error: BaseException | None) -> None:
        """Check the story of a call that has failed as often as it may."""
        if type(error) is PodLost:
            count = len(error.attempts)
        elif type(error) is not self._kind(how):
            raise Violation(f"call {number} ({how}, retries={retries}) ended with {error!r}")
        elif isinstance(error, CallTimeout | WorkerCrashed):
            count = len(error.attempts)
        else:
            told = re.search(r"k8sfutures: attempt (\d+) of ", "\n".join(error.__notes__))
            count = int(told[1]) if told else 1
        # The story of a single attempt is the exception itself.
        if max(count, 1) != retries + 1:
            raise Violation(f"call {number} ({how}, retries={retries}) tells of {count} attempts")
        if isinstance(error, WorkerCrashed) and error.exitcode != EXIT:
            self.killed(number, error)
        else:
            self.note(f"{type(error).__name__}, after all retries")

    def ended(self, executor: Any, chosen: random.Random, numbers: range) -> Counts:
        """Calls that are cancelled while they run or wait at a pod, among others that go on."""
        endless = frozenset(chosen.sample(numbers, min(len(numbers), chosen.randint(1, 4))))
        futures = {
            number: executor.submit(
                self.calls.linger if number in endless else self.calls.square, number
            )
            for number in numbers
        }
        threading.Event().wait(chosen.uniform(0, 1.5))
        counts: Counts = []
        for number in endless:
            future, began = futures[number], time.monotonic()
            cancelled = executor.cancel(future, running=True)
            seconds = time.monotonic() - began
            if seconds > HANG / 2:
                raise Violation(f"it took {seconds:.0f} s to cancel call {number}")
            counts.append((number, 0, 1))
            if cancelled != (future.done() and self._was_cancelled(future)):
                raise Violation(f"cancelling call {number} said {cancelled}: {future!r}")
            if not cancelled:
                error = self.error_of(future)
                if not isinstance(error, WorkerCrashed):
                    raise Violation(f"call {number} cannot be cancelled; it ended with {error!r}")
                self.killed(number, error)
        rest = [number for number in numbers if number not in endless]
        counts += [(n, self.is_value(n, futures[n], n * n), 1) for n in rest]
        return counts

    def _was_cancelled(self, future: Future[Any]) -> bool:
        """Whether that is what it says, at once and to everyone."""
        try:
            error = future.exception(0)
        except CancelledError:  # it was never sent
            self.note("CancelledError")
            return True
        if isinstance(error, CallCancelled):
            self.note("CallCancelled")
        return isinstance(error, CallCancelled)
