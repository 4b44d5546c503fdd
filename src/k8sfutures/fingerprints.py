"""By what a change is seen: of a global, an attribute of a class, a function.

A fingerprint is compared with the one before, and with nothing else: where two are equal, the
value has not changed since.
"""

from __future__ import annotations

import functools
import gc
import io
import pickle
import types
import weakref
from collections.abc import Callable, Collection
from typing import Any, Final

from .scopes import identify

PROTOCOL: Final = 5

ATOMS: Final = frozenset({type(None), bool, int, str, bytes, type(...), type(NotImplemented)})
"""Types whose values cannot change, and are compared as they are."""

LruCacheWrapper: Final[Any] = type(functools.lru_cache(lambda: None))

_DEFINITIONS: Final = (types.FunctionType, type, LruCacheWrapper)
_BY_IDENTITY: Final = (types.ModuleType, types.BuiltinFunctionType, types.CodeType)


class _Same:
    """Equal for one and the same object, which it keeps alive."""

    __slots__ = ("_it",)

    def __init__(self, it: object) -> None:
        self._it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._it is self._it

    __hash__ = None  # type: ignore[assignment]


class _Alive:
    """Equal for one and the same object, for as long as that lives."""

    __slots__ = ("_get",)

    def __init__(self, it: object) -> None:
        self._get = weakref.ref(it)

    def __eq__(self, other: object) -> bool:
        it = self._get()
        return it is not None and isinstance(other, _Alive) and other._get() is it

    __hash__ = None  # type: ignore[assignment]


def fingerprint(value: object) -> object:
    """By what a change of a value is seen.

    Args:
        value: anything.

    Returns:
        What equals the fingerprint of the same value before, if it has not changed. A value that
        gives no way to tell has another one each time.
    """
    return _of(value, ())


def fingerprint_of_attribute(name: str, value: object) -> object:
    """Like `fingerprint`, for an attribute of a class.

    Args:
        name: what Python itself sets (``__dataclass_fields__``) changes by being replaced only.
        value: anything.
    """
    if name[:2] == "__" == name[-2:] and type(value) not in _FUNCTIONS:
        # Not the object: it may refer to the class, which would never go.
        return id(value)
    return _of(value, ())


def _of(value: Any, above: tuple[object, ...]) -> object:
    kind = type(value)
    if kind in ATOMS:
        return kind, value
    if kind is types.FunctionType:
        return _function(value, above)
    if isinstance(value, type):
        return _Alive(value)  # the versions of its attributes are its own
    if isinstance(value, _BY_IDENTITY):
        return _Same(value)
    if kind is LruCacheWrapper:
        wrapped = _of(getattr(value, "__wrapped__", None), above)
        return _Alive(value), value.cache_parameters(), wrapped
    if kind is staticmethod or kind is classmethod:
        return kind, _of(value.__func__, above)
    if kind is property:
        return [_of(part, above) for part in (value.fget, value.fset, value.fdel, value.__doc__)]
    if kind is functools.cached_property:
        return kind, _of(value.func, above), value.attrname
    return _content(value)


_FUNCTIONS: Final = frozenset({types.FunctionType, staticmethod, classmethod, property})


def _function(function: types.FunctionType, above: tuple[object, ...]) -> object:
    found = [_Alive(function), _Same(function.__code__)]
    parts: list[Any] = []
    if function.__closure__:
        parts += [_cell(cell) for cell in function.__closure__]
    if function.__defaults__:
        parts += function.__defaults__
    if function.__kwdefaults__:
        parts += function.__kwdefaults__.values()
    if function.__dict__:
        parts += function.__dict__.values()
        parts += function.__dict__
    if not parts or any(function is one for one in above):
        return found
    above = (*above, function)
    return [*found, *[_of(part, above) for part in parts]]


def _cell(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


class _Pickler(pickle.Pickler):
    """Reads content, and of a definition in it only which one it is."""

    def __init__(self, file: io.BytesIO, buffers: Callable[..., Any]) -> None:
        super().__init__(file, PROTOCOL, buffer_callback=buffers)
        self.dispatch_table = {types.MappingProxyType: lambda it: (dict, (dict(it),))}

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _DEFINITIONS):
            return str, (identify(obj).id,)
        return NotImplemented


def _content(value: object) -> object:
    buffers: list[pickle.PickleBuffer] = []
    try:
        try:
            data = pickle.dumps(value, PROTOCOL, buffer_callback=buffers.append)
        except Exception:  # a lambda in it, perhaps
            buffers.clear()
            file = io.BytesIO()
            _Pickler(file, buffers.append).dump(value)
            data = file.getvalue()
        contents = [hash(buffer.raw().toreadonly()) for buffer in buffers]
    except Exception:  # no way to tell
        return _Same(object())
    return len(data), hash(data), contents


_MOST_OBJECTS: Final = 10_000
"""How far `linked` looks; whoever has more than that in a global hardly asks what is in it."""


def linked(values: dict[str, Any]) -> list[set[str]]:
    """Which of some objects refer to each other.

    Args:
        values: the objects, by name.

    Returns:
        Groups of names, of two or more.
    """
    if len(values) < 2:
        return []
    names: dict[int, set[str]] = {}
    for name, value in values.items():
        names.setdefault(id(value), set()).add(name)
    groups = {key: set(same) for key, same in names.items()}
    for key, value in {id(value): value for value in values.values()}.items():
        for other in _reached(value, names.keys()) - {key}:
            merged = groups[key] | groups[other]
            for member in merged:
                groups[id(values[member])] = merged
    return list({id(group): group for group in groups.values() if len(group) > 1}.values())


def _reached(value: object, wanted: Collection[int]) -> set[int]:
    found: set[int] = set()
    seen = {id(value)}
    left = [value]
    while left and len(seen) < _MOST_OBJECTS:
        one: Any = left.pop()
        if isinstance(one, list | tuple | dict | set | frozenset) and len(one) > _MOST_OBJECTS:
            continue
        for other in gc.get_referents(one):
            if id(other) in seen or isinstance(other, _NOT_ENTERED):
                continue
            seen.add(id(other))
            left.append(other)
            if id(other) in wanted:
                found.add(id(other))
    return found


_NOT_ENTERED: Final = (*_DEFINITIONS, *_BY_IDENTITY, int, float, str, bytes, type(None))
