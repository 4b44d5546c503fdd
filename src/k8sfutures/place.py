"""Where a call runs. By itself, as a pod's agent has no need of what exceptions need."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a call runs."""

    pod: str
    node: str
    cpu_id: int


class _Here:
    """This process: what in it is made in a call, finds out where."""

    place: Place | None = None


def here() -> Place | None:
    """Where the call runs in which this is asked; None outside of calls."""
    return _Here.place


def is_here(place: Place) -> None:
    """This process runs calls, at this place."""
    _Here.place = place
