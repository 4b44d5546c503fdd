"""Where a call runs. By itself, as a pod's agent has no need of what exceptions need."""

from __future__ import annotations

from typing import NamedTuple


class Place(NamedTuple):
    """Where a call runs."""

    pod: str
    node: str
    cpu_id: int
