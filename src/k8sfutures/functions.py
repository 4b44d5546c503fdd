"""The functions of an executor: each pickled once, and anew when what it reads has changed."""

from __future__ import annotations

import threading
import types
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from .blobs import Blobs
from .own_modules import own_modules


def invoke(function: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """Call the first argument: how a callable that is not a plain function travels."""
    return function(*args, **kwargs)


def name_of(function: object) -> str:
    """What to call a callable in messages for people; a name is its own."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


@dataclass(slots=True, repr=False)  # it has the user's data
class PickledFunction:
    """A function as it travels: once for each pod, under its id.

    Attributes:
        id: names it in calls; unique in this executor.
        name: for people.
        data: the pickle.
        reads_globals: what it read from outside when it was pickled, as (namespace, name,
            object).
        reads_cells: likewise, as (cell, object).
    """

    id: int
    name: str
    data: bytes
    reads_globals: list[tuple[dict[str, Any], str, object]]
    reads_cells: list[tuple[types.CellType, object]]

    def is_current(self) -> bool:
        """Whether the function still reads the same objects; if not, it is pickled anew."""
        for namespace, name, value in self.reads_globals:
            if namespace.get(name, _ABSENT) is not value:
                return False
        return all(_content(cell) is value for cell, value in self.reads_cells)


_ABSENT: Final = object()


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _ABSENT


def _travels_by_value(function: types.FunctionType) -> bool:
    module = function.__module__ or "__main__"
    return (
        module == "__main__" or "<" in function.__qualname__ or module.encode() in own_modules.get()
    )


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _names(const)
    return names


def _watch(function: types.FunctionType, pickled: PickledFunction, seen: set[int]) -> None:
    """Record what a function that travels by value takes along, helpers included."""
    if id(function) in seen or not _travels_by_value(function):
        return
    seen.add(id(function))
    found: list[object] = []
    namespace = function.__globals__
    for name in _names(function.__code__):
        value = namespace.get(name, _ABSENT)
        if value is _ABSENT and name in _BUILTINS:
            continue
        pickled.reads_globals.append((namespace, name, value))
        found.append(value)
    for cell in function.__closure__ or ():
        value = _content(cell)
        pickled.reads_cells.append((cell, value))
        found.append(value)
    for value in found:
        if isinstance(value, types.FunctionType):
            _watch(value, pickled, seen)


_BUILTINS: Final = frozenset(dir(__import__("builtins")))
_CACHED: Final = (types.FunctionType, types.BuiltinFunctionType, type)


class Functions:
    """The functions of one executor, each pickled once for as long as it lives.

    Safe for threads that submit at the same time: at worst a function is pickled twice.

    Args:
        blobs: of the executor; bulky parts of functions are among them.
    """

    def __init__(self, blobs: Blobs) -> None:
        self._dumps = blobs.dumps
        self._by_id: dict[int, tuple[weakref.ref[Any], PickledFunction]] = {}
        self._callers: dict[object, PickledFunction] = {}
        self._next_id = 1
        self._lock = threading.Lock()
        self.bodies: dict[int, PickledFunction] = {}
        """By function id; the manager takes entries out when pods may forget them."""
        self.dropped: deque[int] = deque()
        """Ids of functions that are gone here, or have been pickled anew."""

    def take_dropped(self) -> list[int]:
        """Empty `dropped`, while other threads may add to it."""
        return [self.dropped.popleft() for _ in range(len(self.dropped))]

    def get(self, function: Callable[..., object]) -> PickledFunction | None:
        """The pickled form of a plain function, class or builtin.

        Args:
            function: what was submitted.

        Returns:
            It, or None for any other callable: that has state of its own, and travels with
            each call (see `caller`).

        Raises:
            Exception: what pickling it raised.
        """
        known = self._by_id.get(id(function))
        if known is not None and known[0]() is function and known[1].is_current():
            return known[1]
        if not isinstance(function, _CACHED):
            return None
        if isinstance(function, types.BuiltinFunctionType) and not isinstance(
            function.__self__, types.ModuleType | types.NoneType
        ):
            return None  # a bound method of a builtin object
        return self._pickle(function)

    def once(self, function: Callable[..., object]) -> PickledFunction:
        """A callable of any kind, pickled as it is now, for one map.

        Args:
            function: what is mapped.

        Returns:
            Its pickled form; add its id to `dropped` when the map is done.

        Raises:
            Exception: what pickling it raised.
        """
        return self._new(name_of(function), self._dumps(function))

    def caller(self, function: Callable[..., object]) -> PickledFunction:
        """What calls a callable that travels as its first argument.

        Args:
            function: a bound method, a `functools.partial`, a callable object.

        Returns:
            `invoke` under an id of its own for each underlying function, so that durations
            are measured apart.
        """
        key: object = getattr(function, "__func__", None) or getattr(function, "func", None)
        name = getattr(key, "__qualname__", None) or type(function).__qualname__
        known = self._callers.get(name)
        if known is None:
            known = self._new(name_of(function), self._dumps(invoke))
            self._callers[name] = known
        return known

    def _pickle(self, function: Any) -> PickledFunction:
        pickled = self._new(name_of(function), self._dumps(function))
        if isinstance(function, types.FunctionType):
            _watch(function, pickled, set())
        key = id(function)
        function_id = pickled.id

        def gone(_: object) -> None:
            known = self._by_id.get(key)
            if known is not None and known[1].id == function_id:
                del self._by_id[key]
            self.dropped.append(function_id)

        before = self._by_id.get(key)
        self._by_id[key] = (weakref.ref(function, gone), pickled)
        if before is not None and before[0]() is function:
            self.dropped.append(before[1].id)  # what it reads has changed
        return pickled

    def _new(self, name: str, data: bytes) -> PickledFunction:
        with self._lock:
            pickled = PickledFunction(self._next_id, name, data, [], [])
            self._next_id += 1
            self.bodies[pickled.id] = pickled
        return pickled
