"""How often a call has run, and what became of it each time: the story in the exception. Pure.

Two things make a call run again: its pod was lost, which the scheduler sees to by itself, or it
has failed with something that the user has chosen (``retry_on``), which is decided here. Both count
against the same number of retries. A call that runs again for what it raised has an id of its own
each time: what a pod may still say of the time before then means nothing to anyone.
"""

from __future__ import annotations

import contextlib
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from .errors import CallFailed, CallTimeout, PodLost, WorkerCrashed
from .options import Options
from .scheduler_events import Limits, Loss, Retried, Settle
from .values import dataclass

if TYPE_CHECKING:
    from .functions import PickledFunction
    from .messages import Call

T = TypeVar("T")

FIRST: Final = 3
LAST: Final = 17
"""Attempts that are told of, at the two ends: there may be thousands."""

LONGEST: Final = 200
"""Characters of what is told of one."""

Key = int | tuple[int, int]
"""A call's id, or an item's (map id, index)."""


class Attempt(NamedTuple):
    """One time that a call ran.

    Attributes:
        number: counts from 1.
        pod: where; None where unknown, as in the following.
        node: likewise.
        cpu_id: likewise.
        seconds: how long it ran; of a pod that was lost, how long that had the call.
        outcome: what became of it, in words.
    """

    number: int
    pod: str | None
    node: str | None
    cpu_id: int | None
    seconds: float | None
    outcome: str

    def __str__(self) -> str:
        node = f" on node {self.node}" if self.node else ""
        after = "" if self.seconds is None else f", after {in_words(self.seconds)}"
        return f"{self.number}. {self.pod}{node}{after}: {self.outcome}"


def called(function: str, index: int | None = None) -> str:
    """What to call a call in an error: an item of a map is named by its place there.

    Args:
        function: the function's name.
        index: of the item, or None where it was submitted.
    """
    return f"the call of {function}" if index is None else f"item {index} of the map of {function}"


def in_words(seconds: float) -> str:
    """A time for people: with two digits where it is short."""
    if seconds < 9.95:
        return f"{seconds:.2g} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def shortened(attempts: list[T]) -> list[T]:
    """The first and the last of many."""
    return attempts[:FIRST] + attempts[-LAST:] if len(attempts) > FIRST + LAST else attempts


def listed(attempts: list[Attempt]) -> str:
    """One line for each, and one where some are left out."""
    lines = []
    before = 0
    for attempt in attempts:
        if attempt.number > before + 1:
            lines.append(f"\n  … {attempt.number - before - 1} more")
        lines.append(f"\n  {attempt}")
        before = attempt.number
    return "".join(lines)


@dataclass(slots=True)
class _Trial:
    """A call that may run again for what it raises, or has."""

    options: Options
    call: Call | None = None
    function: PickledFunction | None = None
    told: list[Attempt] = field(default_factory=list)
    count: int = 0
    raised: int = 0
    losses: int = 0  # of those that were told

    def tell(self, attempts: list[Attempt]) -> None:
        for attempt in attempts:
            self.count += 1
            self.told.append(attempt._replace(number=self.count))
        self.told = shortened(self.told)


class Attempts:
    """See the module's text.

    Args:
        retries: how often a call may run again where nothing else was chosen for it.
        attempt_of: tells of a pod that was lost.
        next_id: a new call id.
    """

    def __init__(
        self, retries: int, attempt_of: Callable[[Loss], Attempt], next_id: Callable[[], int]
    ) -> None:
        self._retries = retries
        self._attempt_of = attempt_of
        self._next_id = next_id
        self._trials: dict[Key, _Trial] = {}
        self._in_use: Counter[int] = Counter()
        self._held_back: set[int] = set()
        self._dropped: list[int] = []

    def __bool__(self) -> bool:
        """Whether there is anything to forget."""
        return bool(self._trials)

    def begin(self, options: Options, call: Call, function: PickledFunction) -> Limits:
        """A call is submitted; returns what the scheduler is to know of it."""
        if options.retry_on:
            self._keep(call[0], _Trial(options, call, function))
        return options.limits

    def _keep(self, key: Key, trial: _Trial) -> None:
        self._trials[key] = trial
        if trial.function is not None:
            function = trial.function.id
            self._in_use[function] += 1
            if function in self._dropped:  # it was in use all the time
                self._dropped.remove(function)
                self._held_back.add(function)

    def forget(self, key: Key) -> None:
        """A call or an item is done."""
        self._take(key)

    def forget_map(self, map_id: int) -> None:
        """Nobody waits for the items of a map."""
        for key in [key for key in self._trials if type(key) is tuple and key[0] == map_id]:
            self._take(key)

    def _take(self, key: Key) -> _Trial | None:
        trial = self._trials.pop(key, None)
        if trial is not None and trial.function is not None:
            function = trial.function.id
            self._in_use[function] -= 1
            if not self._in_use[function]:
                del self._in_use[function]
                if function in self._held_back:
                    self._held_back.discard(function)
                    self._dropped.append(function)
        return trial

    def hold_back(self, function: int) -> bool:
        """Whether a function that nobody uses now may be used again by a call that fails."""
        if function not in self._in_use:
            return False
        self._held_back.add(function)
        return True

    def take_dropped(self) -> list[int]:
        """The functions that were held back, and that nothing uses any more."""
        dropped, self._dropped = self._dropped, []
        return dropped

    def failed(
        self, key: Key, error: BaseException, settle: Settle, options: Options | None = None
    ) -> Retried | None:
        """A call or an item has failed.

        Args:
            key: which.
            error: with what; gets the story of its attempts, if it fails for good.
            settle: what the scheduler said of it.
            options: of an item's map.

        Returns:
            What runs again, or None where it has failed for good.
        """
        lost = settle.lost.get(key, ())
        trial = self._take(key)
        if trial is None:
            if not (lost or (options is not None and options.retry_on)):
                return None
            trial = _Trial(options or Options())
        chosen = trial.options
        retries = self._retries if chosen.retries is None else chosen.retries
        trial.tell([self._attempt_of(loss) for loss in lost[trial.losses :]])
        trial.losses = len(lost)
        trial.tell([attempt_with(error, settle.pod)])
        trial.raised += 1
        if trial.count > retries or not _is_one_of(error, chosen.retry_on):
            _add_story(error, trial, retries)
            return None
        limits = Limits(retries - trial.raised, chosen.timeout)
        if trial.call is None:
            self._keep(key, trial)
            return Retried(None, key if isinstance(key, tuple) else None, limits, lost)
        trial.call = (self._next_id(), *trial.call[1:])
        self._keep(trial.call[0], trial)
        return Retried(trial.call, None, limits, lost)

    def lost(self, key: Key, error: PodLost) -> None:
        """A call or an item is lost for good: it gets the story of its other attempts, too."""
        trial = self._take(key)
        if trial is not None and trial.told:
            trial.tell(list(error.attempts[trial.losses :]))
            retries = trial.options.retries
            _add_story(error, trial, self._retries if retries is None else retries)


def _is_one_of(error: BaseException, types: tuple[type[BaseException], ...]) -> bool:
    """As ``except`` decides it: no code of the user's is asked."""
    return not set(types).isdisjoint(type(error).__mro__)


def _add_story(error: BaseException, trial: _Trial, retries: int) -> None:
    if trial.count < 2:
        return
    if isinstance(error, CallFailed | CallTimeout):
        error.attempts = tuple(trial.told)  # type: ignore[union-attr]
    number = f"{trial.count} of {max(retries + 1, trial.count)}"
    with contextlib.suppress(Exception):  # its class is the user's, and may forbid it
        error.add_note(f"k8sfutures: attempt {number}; those before:{listed(trial.told[:-1])}")


def attempt_with(error: BaseException, pod: str | None, number: int = 0) -> Attempt:
    """One time that a call ran, and failed.

    Args:
        error: with what.
        pod: where, or None where unknown.
        number: of the attempt.
    """
    ours = isinstance(error, CallFailed | CallTimeout)
    prefix = "" if ours else "k8s_"
    node, cpu_id = (getattr(error, f"{prefix}{name}", None) for name in ("node", "cpu_id"))
    seconds = getattr(error, "seconds", None) if ours else None
    return Attempt(
        number,
        pod,
        node if isinstance(node, str) else None,
        cpu_id if isinstance(cpu_id, int) else None,
        seconds,
        _told(error),
    )


def ending_in_words(number: int | None, code: int | None) -> str:
    """How a process ended.

    Args:
        number: of the signal that has killed it, or None.
        code: that it has exited with, if it was not killed.
    """
    if number is None:
        return f"exited with code {code}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = "of no name"
    return f"was killed by signal {number} ({name})"


def _told(error: BaseException) -> str:
    """What became of a call, in one line."""
    if isinstance(error, WorkerCrashed):
        return f"its CPU process {ending_in_words(error.signal, error.exitcode)}"
    if isinstance(error, CallTimeout) and error.timeout is not None:
        return f"it ran for longer than timeout={error.timeout:g} s"
    name = type(error).__name__
    try:
        text = str(error)
    except (Exception, SystemExit):  # it is the user's
        text = "(its text cannot be had)"
    line = " ".join(text[: 4 * LONGEST].split())
    line = f"{line[:LONGEST]}…" if len(line) > LONGEST else line
    verb = "" if isinstance(error, CallFailed | CallTimeout) else "raised "
    return f"{verb}{name}: {line}" if line else f"{verb}{name}"
