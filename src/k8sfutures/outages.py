"""Whether the broker is there, and what the user is told of it: that it goes, and that it is back.

Each of these is told once. Pure, but for the log.
"""

from __future__ import annotations

import logging
from typing import Final

from .attempts import in_words
from .errors import ExecutorBroken

logger = logging.getLogger(__name__)

QUIET: Final = 5.0
"""Seconds that a first connection may take before the user is told that we wait. Should it fail in
the end, the exception says why; to say the same here would be to say it twice."""

RETURN: Final = 15.0
"""Seconds that pods have to find the broker again after it was away."""

NEVER: Final = float("inf")


class Outages:
    """See the module's text.

    Args:
        timeout: seconds that the user lets us wait for the first connection.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._address = ""
        self._was_up = False
        self._quiet_until = NEVER
        self._since: float | None = None  # when the broker went, or was first looked for
        self._told = False  # that it is not there
        self._told_of_reruns = True  # of those after the last time that it was away
        self.error: ExecutorBroken | None = None
        """Why it is not there, if so."""
        self.blocked: str | None = None
        """Why it takes no messages, if so."""

    @property
    def blocked_in_words(self) -> str:
        """That it takes no messages, to be added to a sentence; "" where it does."""
        if not self.blocked:
            return ""
        return f"; the broker accepts no messages ({self.blocked}): give its machine more of it"

    @property
    def hears(self) -> bool:
        """Whether pods could be heard, if they spoke."""
        return self.error is None and self.blocked is None

    def connecting(self, address: str, now: float) -> None:
        """A first connection is tried, to this address (without a password)."""
        self._address = address
        self._since, self._quiet_until = now, now + QUIET

    def up(self, now: float) -> None:
        """It is there, or there again."""
        if self._told and self._since is not None:
            logger.warning(
                "the connection to the broker at %s is %s after %s",
                *(self._address, "back" if self._was_up else "there"),
                in_words(now - self._since),
            )
        if self._was_up:
            self._told_of_reruns = False
        self.error = self.blocked = self._since = None
        self._was_up, self._told = True, False
        self._quiet_until = now

    def down(self, error: ExecutorBroken, now: float) -> bool:
        """It is gone, or not there yet; True when that is new."""
        new, self.error = self.error is None, error
        if self._since is None:
            self._since = now
        if now >= self._quiet_until:
            self._quiet_until = NEVER
            self._told = True
            if self._was_up:
                logger.warning("%s (trying again)", error)
            else:
                logger.warning(
                    "waiting for the broker at %s, for at most startup_timeout=%g s",
                    *(self._address, self._timeout),
                )
        return new

    def forgotten(self, pod: str, calls: int) -> None:
        """A pod has let go of us meanwhile, and of so many calls: they run again."""
        if not calls:
            return
        level = logging.INFO if self._told_of_reruns else logging.WARNING
        self._told_of_reruns = True  # the first pod is enough to be told of
        logger.log(
            level,
            "pod %s has not heard from this client for so long that it has let go of it: %d calls "
            "that it had run again, and some of what they have printed may be lost",
            *(pod, calls),
        )


class Startup:
    """When work without any pod becomes an error.

    Args:
        timeout: seconds that the user lets it wait.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._since: float | None = None

    def deadline(self, now: float, *, is_alone: bool) -> float:
        """When it does; `NEVER` unless there is work, and no pod.

        Args:
            now: the time.
            is_alone: whether that is so now.
        """
        if not is_alone:
            self._since = None
            return NEVER
        if self._since is None:
            self._since = now
        return self._since + self._timeout
