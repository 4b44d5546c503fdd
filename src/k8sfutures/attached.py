"""What a client knows of a pod that has answered. Pure."""

from __future__ import annotations

from dataclasses import field
from typing import Final

from .arrivals import Arrivals
from .freight import Freight
from .values import dataclass

GRACE: Final = 3.0
"""Seconds that a pod whose queue is gone has to come back, if only its connection was lost."""


@dataclass(slots=True)
class AttachedPod:
    """See the module's text.

    Attributes:
        name: its name.
        arrivals: what it sends.
        missing_since: when its queue was found to be gone, if it is.
        grace: seconds that it then has to come back.
        freight: what is bulky on its way there.
        asked: what it holds of ours; it has not answered yet.
    """

    name: str
    arrivals: Arrivals
    missing_since: float | None = None
    grace: float = GRACE
    freight: Freight = field(default_factory=Freight)
    asked: bool = False

    def begin_anew(self) -> None:
        """What was under way, to it or from it, may be lost: it is asked what it holds."""
        self.asked = True
        self.freight.begin_anew()
        self.arrivals.begin_anew()
