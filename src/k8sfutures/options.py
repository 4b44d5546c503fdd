"""What a user chooses for some calls of an executor: retries, what is retried, and a time limit."""

from __future__ import annotations

from typing import Any, Final, Self

from .scheduler_events import Limits
from .values import dataclass

LONGEST: Final = 1e9
"""Seconds of the longest time limit: 30 years. Every timer takes that."""


@dataclass(frozen=True, slots=True)
class Options:
    """See `K8sRabbitExecutor.options`; None, and no types, for what is as the executor has it."""

    retries: int | None = None
    retry_on: tuple[type[BaseException], ...] = ()
    timeout: float | None = None

    @classmethod
    def of(cls, retries: object, retry_on: object, timeout: object) -> Self:
        """Check what a user has given.

        Args:
            retries: as for `K8sRabbitExecutor.options`; likewise the others.
            retry_on: one type, or several.
            timeout: in seconds.

        Raises:
            TypeError: one has the wrong type.
            ValueError: one has a value that cannot work.
        """
        if retries is not None:
            if not isinstance(retries, int) or isinstance(retries, bool):
                raise TypeError(f"retries must be an integer or None, not {retries!r}")
            if retries < 0:
                raise ValueError(f"retries must be >= 0, not {retries}")
        types: tuple[Any, ...] = retry_on if isinstance(retry_on, tuple) else (retry_on,)
        for one in types:
            if not (isinstance(one, type) and issubclass(one, BaseException)):
                raise TypeError(
                    f"retry_on must be an exception type or a tuple of them; {one!r} is none"
                )
        if timeout is not None:
            if not isinstance(timeout, int | float) or isinstance(timeout, bool):
                raise TypeError(f"timeout must be a number of seconds or None, not {timeout!r}")
            if not 0 < timeout <= LONGEST:
                raise ValueError(
                    f"timeout must be above 0 and at most {LONGEST:g} seconds, not "
                    f"{timeout!r:.40}; leave it out for no limit"
                )
            timeout = float(timeout)
        return cls(retries, types, timeout)

    @property
    def limits(self) -> Limits:
        """What the scheduler is to know of them."""
        return Limits(self.retries, self.timeout)

    def is_idle(self, retries: int) -> bool:
        """Whether nothing runs again for what was chosen, as no retries are left for it.

        Args:
            retries: of a call for which none were chosen.
        """
        return bool(self.retry_on) and not (retries if self.retries is None else self.retries)

    def over(self, other: Options | None) -> Options:
        """These where they are given, else the other's."""
        if other is None:
            return self
        return Options(
            other.retries if self.retries is None else self.retries,
            self.retry_on or other.retry_on,
            other.timeout if self.timeout is None else self.timeout,
        )
