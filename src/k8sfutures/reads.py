"""What a function reads from outside: when any of it is another object, it is pickled anew.

This is looked at for each call, so identities are compared, in C. What has changed in place is
not seen; the next `map`, and the next executor, pickle the function anew in any case.
"""

from __future__ import annotations

import functools
import operator
import types
from collections.abc import Callable
from typing import Any, Final

from .fingerprints import ATOMS, LruCacheWrapper
from .own_modules import own_modules
from .reducers import is_dispatching, travels_by_value

_BUILTINS: Final = frozenset(dir(__import__("builtins")))


class Reads:
    """Globals, variables of enclosing functions, and attributes of classes.

    Attributes:
        names: the globals' names, for each namespace.
    """

    __slots__ = ("_absent", "_cells", "_classes", "_globals", "_seen", "names")

    def __init__(self) -> None:
        self.names: dict[int, tuple[dict[str, Any], set[str]]] = {}
        self._globals: list[tuple[Callable[[Any], tuple[Any, ...]], Any, tuple[Any, ...]]] = []
        self._absent: list[tuple[dict[str, Any], str]] = []
        self._cells: list[tuple[types.CellType, object]] = []
        self._classes: list[tuple[Any, tuple[Any, ...]]] = []
        self._seen: set[int] = set()

    def are_current(self) -> bool:
        """Whether all of it is the same object as when it was read."""
        same = operator.is_
        try:
            for read, namespace, values in self._globals:
                if not all(map(same, read(namespace), values)):
                    return False
        except KeyError:  # deleted
            return False
        for namespace, name in self._absent:
            if name in namespace:
                return False
        for attributes, values in self._classes:
            if len(attributes) != len(values) or not all(map(same, attributes.values(), values)):
                return False
        return all(_content(cell) is value for cell, value in self._cells)

    def look(self, value: Any) -> None:
        """Take in what an object reads, and what that reads."""
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        if isinstance(value, types.FunctionType):
            self._look_at_function(value)
        elif isinstance(value, type):
            self._look_at_class(value)
        elif isinstance(value, LruCacheWrapper):
            self.look(getattr(value, "__wrapped__", None))
        elif isinstance(value, staticmethod | classmethod | types.MethodType):
            self.look(value.__func__)
        elif isinstance(value, property):
            for part in (value.fget, value.fset, value.fdel):
                self.look(part)
        elif isinstance(value, functools.partial | functools.cached_property):
            self.look(value.func)
        elif type(value).__module__ != "builtins":
            self.look(type(value))

    def _look_at_function(self, function: types.FunctionType) -> None:
        if not _travels(function):
            return
        namespace = function.__globals__
        _, names = self.names.setdefault(id(namespace), (namespace, set()))
        for name in _names(function.__code__) - names:
            if name in namespace or name not in _BUILTINS:
                names.add(name)
                self.look(namespace.get(name))
        for cell in function.__closure__ or ():
            value = _content(cell)
            self._cells.append((cell, value))
            self.look(value)
        if is_dispatching(function):
            registry: Any = function
            self._classes.append((registry.registry, tuple(registry.registry.values())))
            for value in registry.registry.values():
                self.look(value)

    def _look_at_class(self, cls: type) -> None:
        if not _travels(cls):
            return
        values = tuple(cls.__dict__.values())
        self._classes.append((cls.__dict__, values))
        for value in (*values, *cls.__bases__, type(cls)):
            self.look(value)

    def settle(self) -> None:
        """Look at nothing more: from now on, compare."""
        for namespace, names in self.names.values():
            present = sorted(name for name in names if name in namespace)
            self._absent += [(namespace, name) for name in names if name not in namespace]
            if present:
                read = operator.itemgetter(*present, present[0])  # of one name it makes no tuple
                self._globals.append((read, namespace, read(namespace)))
        self._seen.clear()

    def watch(self, namespace: dict[str, Any], name: str, value: object) -> None:
        """Look at one more global; what it was when it was read is given."""
        self._globals.append((operator.itemgetter(name, name), namespace, (value, value)))

    def data(self) -> list[Any]:
        """What of it can change in place."""
        values = [value for _, _, some in self._globals for value in some]
        for attributes, some in self._classes:
            if isinstance(attributes, types.MappingProxyType):
                named = zip(attributes, some, strict=True)
                values += [value for name, value in named if name[:2] != "__"]
        return [value for value in values if is_data(value)]

    def watches_anything(self) -> bool:
        """Whether there is anything that can change."""
        return bool(self._globals or self._absent or self._cells or self._classes)


_DEFINITIONS: Final = (
    *(types.FunctionType, type, types.ModuleType, types.BuiltinFunctionType, LruCacheWrapper),
    *(staticmethod, classmethod, property, functools.cached_property),
    *(types.MemberDescriptorType, types.GetSetDescriptorType),
)


def is_data(value: object) -> bool:
    """Whether an object is none of those that definitions are made of, and can change."""
    return type(value) not in ATOMS and not isinstance(value, _DEFINITIONS)


def _travels(definition: types.FunctionType | type) -> bool:
    module = definition.__module__ or ""
    return travels_by_value(definition) or module.encode() in own_modules.by_value()


_ABSENT: Final = object()


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return _ABSENT


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            names |= _names(const)
    return names


def reads_of(function: object) -> Reads | None:
    """What a function or a class reads that travels with it.

    Args:
        function: what was submitted.

    Returns:
        It, or None where that is nothing: for what a pod can import.
    """
    reads = Reads()
    reads.look(function)
    reads.settle()
    return reads if reads.watches_anything() else None
