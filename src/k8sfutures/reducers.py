"""How single objects are reduced for a pickle that need to know nothing of the rest of it.

Functions and classes do: see `definitions`.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import types
import typing
import weakref
from collections.abc import Callable
from typing import Any, Final

import cloudpickle
from cloudpickle import cloudpickle as internal

from .advice import name_of_class
from .fingerprints import LruCacheWrapper
from .imports import note_imports
from .rebuilding import (
    make_alias,
    make_cached,
    make_cell,
    make_definition,
    make_lazy_alias,
    make_new_type,
    make_parameter,
    set_attributes,
    set_cached_property,
    set_cell,
    set_lazy_alias,
)
from .scopes import identify

Reduced = Any  # what a reducer returns: a tuple of two to six items, or a name


def travels_by_value(definition: Any) -> bool:
    """Whether a function or a class is none that a pod can import.

    Args:
        definition: a function, a class, or what looks like one: it has a module and a name.
    """
    found = internal._lookup_module_and_qualname(definition)  # noqa: SLF001
    return found is None or internal._is_registered_pickle_by_value(found[0])  # noqa: SLF001


def _reduce_code(code: types.CodeType) -> Reduced:
    """As cloudpickle does, with the name of the file kept: tracebacks show lines by it."""
    note_imports(code)
    make, arguments = _reduce_code_of_cloudpickle(code)
    # As of 3.1.3 cloudpickle puts this in its place, so that equal code has equal pickles.
    return make, tuple(code.co_filename if one == "<dynamic-code>" else one for one in arguments)


_DISPATCHING: Final[Any] = functools.singledispatch(lambda _: None)
OF_DISPATCHING: Final = frozenset(vars(_DISPATCHING))
"""The attributes that `functools.singledispatch` gives each function that it makes."""


def is_dispatching(function: types.FunctionType) -> bool:
    """Whether `functools.singledispatch` has made a function."""
    return function.__code__ is _DISPATCHING.__code__


_reduce_code_of_cloudpickle: Final = cloudpickle.Pickler.dispatch_table[types.CodeType]


def _reduce_cell(cell: types.CellType) -> Reduced:
    try:
        # As its state, for a function may be in its own closure; and so functions share cells.
        return make_cell, (), (cell.cell_contents,), None, None, set_cell
    except ValueError:  # not assigned yet
        return make_cell, ()


def _reduce_cached(function: Any) -> Reduced:
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is None or not travels_by_value(function):
        return function.__reduce__()
    args = (identify(function).id, wrapped, *function.cache_parameters().values())
    return make_cached, args, vars(function), None, None, set_attributes


def _reduce_cached_property(it: functools.cached_property[Any]) -> Reduced:
    state = {name: value for name, value in vars(it).items() if name not in {"func", "lock"}}
    return functools.cached_property, (it.func,), state, None, None, set_cached_property


def _reduce_weak_keys(it: weakref.WeakKeyDictionary[Any, Any]) -> Reduced:
    """As cloudpickle does with a `weakref.WeakSet`: what nothing else refers to, goes."""
    return weakref.WeakKeyDictionary, (dict(it.items()),)


def refuse(it: object) -> Reduced:
    """Refuse an object, in Python's own words."""
    raise TypeError(f"cannot pickle {name_of_class(type(it))!r} object")


def _sentinel_of_dataclasses(name: str) -> tuple[type, Callable[[object], Reduced]]:
    return type(getattr(dataclasses, name)), lambda _: name


def _reduce_parameter(it: Any) -> Reduced:
    if not travels_by_value(it):
        return it.__name__
    keywords: dict[str, Any] = {}
    if isinstance(it, typing.ParamSpec):
        keywords = {"covariant": it.__covariant__, "contravariant": it.__contravariant__}
        keywords["bound"] = it.__bound__
    args = (identify(it).id, make_parameter, (type(it), it.__name__, keywords))
    return make_definition, args


def _reduce_new_type(it: Any) -> Reduced:
    if not travels_by_value(it):
        return it.__qualname__
    args = (it.__name__, it.__qualname__, it.__module__, it.__supertype__)
    return make_definition, (identify(it).id, make_new_type, args)


def _reduce_alias(it: Any) -> Reduced:
    """Of the ``type`` statement."""
    if not travels_by_value(it):
        return it.__name__
    if it.__type_params__:
        args = (it.__name__, it.__value__, it.__type_params__)
        return make_definition, (identify(it).id, make_alias, args)
    # It may refer to itself.
    name = it.__name__, it.__module__
    args = identify(it).id, make_lazy_alias, name
    return make_definition, args, it.__value__, None, None, set_lazy_alias


REDUCERS: Final[dict[type, Callable[[Any], Reduced]]] = {
    types.CodeType: _reduce_code,
    types.CellType: _reduce_cell,
    LruCacheWrapper: _reduce_cached,
    functools.cached_property: _reduce_cached_property,
    io.TextIOWrapper: refuse,
    memoryview: refuse,
    typing.ParamSpec: _reduce_parameter,
    typing.TypeVarTuple: _reduce_parameter,
    typing.NewType: _reduce_new_type,
    weakref.WeakKeyDictionary: _reduce_weak_keys,
    **dict(map(_sentinel_of_dataclasses, ("MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY"))),
}
if hasattr(typing, "TypeAliasType"):
    REDUCERS[typing.TypeAliasType] = _reduce_alias
