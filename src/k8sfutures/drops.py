"""Says that messages were dropped, and not more often than anybody could read."""

from __future__ import annotations

from typing import Final

QUIET: Final = 1.0
"""Seconds between two lines in the log: who can publish at the broker must not fill a disk."""


class Drops:
    """Counts the messages that were dropped. Pure."""

    def __init__(self) -> None:
        self.last = ""
        """Why the last one was."""
        self._untold = 0
        self._quiet_until = 0.0

    def note(self, reason: str, now: float) -> str:
        """One more was dropped.

        Args:
            reason: why.
            now: a clock's seconds.

        Returns:
            What to log; "" where it is too soon, and the next line will count this one too.
        """
        self.last = reason
        self._untold += 1
        if now < self._quiet_until:
            return ""
        self._quiet_until = now + QUIET
        told, self._untold = self._untold, 0
        more = f" (and {told - 1} more before it)" if told > 1 else ""
        return f"dropped a message: {reason}{more}"
