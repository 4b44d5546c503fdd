"""Wakes the dispatcher when an item has run for as long as it may."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .dispatch import Dispatcher


class Watchdog:
    """See the module's text. One timer at most is set for each time that comes before all others.

    Args:
        loop: the agent's.
        dispatcher: knows what is due when.
        carry_out: does what the dispatcher wants.
    """

    def __init__(self, loop: Any, dispatcher: Dispatcher, carry_out: Callable[[], None]) -> None:
        self._loop = loop
        self._dispatcher = dispatcher
        self._carry_out = carry_out
        self._at: float | None = None

    def look(self) -> None:
        """Items may have begun: set the timer, if it is not early enough."""
        due = self._dispatcher.endings.due()
        if due is not None and (self._at is None or due < self._at):
            self._at = due
            self._loop.call_later(max(0.0, due - time.monotonic()), self._wake)

    def _wake(self) -> None:
        self._at = None
        self._dispatcher.expire(time.monotonic())
        self._carry_out()
