"""Outcomes that wait, on the manager thread, until what their calls have said is written.

A pod sends what a call says before its outcome, and in this order both come here. But the one is
written by a thread of its own (see `output`), and the Future of the other would be resolved
meanwhile: a program that prints each result would often print it before the lines of its call. So
the outcome of a call some of whose words are not written yet is settled only then. It is the
Future alone that waits: the scheduler has had the outcome, and the CPU has its next call.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Final

from .outages import NEVER
from .output import Printer
from .scheduler_events import Arrived, Settle
from .values import dataclass

PATIENCE: Final = 1.0
"""Seconds that an outcome waits. A terminal that is stopped, or a handler that takes its time,
holds up no Future for longer; nor any other, before it goes on."""

UNKNOWN: Final = "the function"
"""What to call a function whose name is not known any more."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was to be written before this outcome, by number, has been."""

    number: int


class Postponed:
    """See the module's text.

    Args:
        printer: writes what calls say.
        put: takes a `Written`, on the printer's thread; brings it to the manager's.
    """

    def __init__(self, printer: Printer, put: Callable[[Written], None]) -> None:
        self._printer = printer
        self._put = put
        self._numbers = itertools.count(1)
        self._settles: deque[tuple[int, float, Settle]] = deque()  # with number, and until when
        self._is_stuck = False  # has not written in time, and nothing since
        self.names: dict[int, str] = {}
        """Of functions whose calls wait here: nobody else may know them any more."""

    @property
    def deadline(self) -> float:
        """When the first of them has waited for too long."""
        return self._settles[0][1] if self._settles else NEVER

    def divide(self, event: Arrived) -> tuple[Arrived | None, Arrived | None]:
        """Outcomes that can be settled at once, and those that are to be postponed."""
        ready, late = self._printer.divide(event.outcomes)
        if self._is_stuck or not late:
            return event, None
        return Arrived(event.pod, ready) if ready else None, Arrived(event.pod, late)

    def has(self, call: int) -> bool:
        """Whether the outcome of a submitted call waits here."""
        return any(row[0] == call for _, _, settle in self._settles for row in settle.calls)

    def add(self, settle: Settle, now: float, name_of: Callable[[int], str]) -> None:
        """Have outcomes wait for all that calls have said so far.

        Args:
            settle: has them.
            now: the time.
            name_of: the name of a function.
        """
        number = next(self._numbers)
        if not self._settles:
            self.names.clear()
        self.names.update({row[1]: name_of(row[1]) for row in settle.calls})
        self._settles.append((number, now + PATIENCE, settle))
        self._printer.then(lambda: self._put(Written(number)))

    def written(self, number: int) -> list[Settle]:
        """All before the outcome of this number is written; returns those that are due."""
        self._is_stuck = False
        return self._take(lambda one, _until: one <= number)

    def expired(self, now: float) -> list[Settle]:
        """Those that have waited for too long."""
        due = self._take(lambda _number, until: until <= now)
        self._is_stuck = self._is_stuck or bool(due)
        return due

    def rest(self) -> list[Settle]:
        """All of them; none waits any more."""
        return self._take(lambda _number, _until: True)

    def _take(self, is_due: Callable[[int, float], bool]) -> list[Settle]:
        due: list[Settle] = []
        while self._settles and is_due(*self._settles[0][:2]):
            due.append(self._settles.popleft()[2])
        return due
