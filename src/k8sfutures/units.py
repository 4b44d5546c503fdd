"""Classes that travel with data: pickled once, not with each of their instances.

An instance needs its class, which costs a hundred times as much to pickle. So data refers to a
**unit**: the pickle of a class with all that it needs, made once and put into other pickles as
bytes. Who has loaded it need not do so again, and sends it back as it came.

A unit is made anew when any object that its class reads is another one (`reads`), and when
something in one has changed in place: that is looked at after a new function has been pickled.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from typing import Any

from .fingerprints import fingerprint
from .reads import Reads
from .scopes import Unit, current, identify, new_id
from .values import dataclass

Pickle = Callable[[type], tuple[bytes, frozenset[str], frozenset[str]]]


@dataclass(slots=True)
class _Made:
    """A unit that was made in this process, and by what it is seen that it must be made anew."""

    cls: type
    unit: Unit
    reads: Reads
    contents: list[tuple[Any, object]]
    looked: int

    def is_current(self) -> bool:
        if not self.reads.are_current():
            return False
        if self.looked != _looks:
            self.looked = _looks
            return all(fingerprint(value) == known for value, known in self.contents)
        return True


_looks = 0


def look_again() -> None:
    """Look for what has changed in place before a unit is used the next time."""
    global _looks  # noqa: PLW0603
    _looks += 1


def unit_of(cls: type, pickle: Pickle) -> Unit:
    """The unit of a class that its module knows by its name.

    Args:
        cls: the class.
        pickle: makes the pickle, and tells the identities of the classes in it, and what their
            code imports.

    Returns:
        The one that it came with if it came from elsewhere; else one that is current.
    """
    scope = current()
    identity = identify(cls)
    came = None if identity.native else scope.units.get(identity.id)
    if came is not None:
        return came
    made: _Made | None = scope.made.get(identity.id)
    if made is None or not made.is_current():
        reads = Reads()
        reads.look(cls)
        reads.settle()
        contents = [(value, fingerprint(value)) for value in reads.data()]
        data, classes, imports = pickle(cls)
        unit = Unit(new_id(), data, classes, imports=imports)
        made = _Made(cls, unit, reads, contents, _looks)
        for other, known in list(scope.made.items()):
            if not is_found_by_name(known.cls):  # defined anew: it may keep much alive
                del scope.made[other]
        scope.made[identity.id] = made
    return made.unit


def is_found_by_name(definition: Any) -> bool:
    """Whether a module has a function or a class under its name."""
    found: Any = sys.modules.get(definition.__module__)
    # Not getattr: that is the user's code.
    for name in definition.__qualname__.split("."):
        if not isinstance(found, types.ModuleType | type):
            return False
        found = vars(found).get(name)
    return (found.__func__ if isinstance(found, staticmethod) else found) is definition
