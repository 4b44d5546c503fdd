"""A warm pool, as its users see it."""

from __future__ import annotations

from collections.abc import Callable


class Pool:
    """The warm pool of an executor: ``executor.pool``.

    Args:
        name: the pool's.
        delete: ends its pods, and returns how many were asked.
    """

    def __init__(self, name: str, delete: Callable[[], int]) -> None:
        self._name = name
        self._delete = delete

    @property
    def name(self) -> str:
        """The pool's name."""
        return self._name

    def delete(self) -> int:
        """Remove the pool now, instead of when it has been unused for ``warm_for``.

        Its pods finish the calls that run, on Kubernetes within 30 s, and end; what they had not
        started comes back. An executor that still has calls, this one or another client's, has
        new pods started for them.

        Returns:
            How many pods were asked to end.

        Raises:
            ClusterError: Kubernetes could not be asked, or refused.
        """
        return self._delete()

    def __repr__(self) -> str:
        return f"<Pool {self._name!r}>"
