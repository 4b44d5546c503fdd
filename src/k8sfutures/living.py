"""Objects, and what is known of them, for as long as they live."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

V = TypeVar("V")


def _hold(obj: Any, gone: Callable[[Any], None]) -> Callable[[], Any]:
    """What returns an object while it lives, or for ever where nothing tells when it goes."""
    try:
        return weakref.ref(obj, gone)
    except TypeError:  # an alias of a type, for one: it hardly ever goes
        return lambda: obj


class IdentityMap(Generic[V]):
    """Values by object, while it lives; asks no object for its hash, or whether it is equal."""

    def __init__(self) -> None:
        self._entries: dict[int, tuple[Callable[[], Any], V]] = {}

    def get(self, obj: object) -> V | None:
        """The value for an object, or None."""
        entry = self._entries.get(id(obj))
        return entry[1] if entry is not None and entry[0]() is obj else None

    def put(self, obj: object, value: V) -> None:
        """Set the value for an object."""
        entries, key = self._entries, id(obj)

        def gone(reference: object) -> None:
            entry = entries.get(key)
            if entry is not None and entry[0] is reference:
                del entries[key]

        entries[key] = (_hold(obj, gone), value)


class Living:
    """Objects by key, while they live."""

    def __init__(self) -> None:
        self._entries: dict[str, Callable[[], Any]] = {}

    def get(self, key: str) -> Any:
        """The object with this key, or None."""
        entry = self._entries.get(key)
        return None if entry is None else entry()

    def put(self, key: str, obj: object) -> None:
        """Set the object with this key."""
        entries = self._entries

        def gone(reference: object) -> None:
            if entries.get(key) is reference:
                del entries[key]

        entries[key] = _hold(obj, gone)
