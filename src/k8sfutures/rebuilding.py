"""What the pickles of definitions call where they are loaded.

Everything here is named in pickles (see `definitions`), and makes a thing, or finds the one that is
here already (see `scopes`). What is native to a process is never changed by a pickle.
"""

from __future__ import annotations

import abc
import functools
import types
import typing
from collections.abc import Callable
from typing import Any, Final

from .living import IdentityMap
from .scopes import Namespace, current, find_or_make, identify, known_identity

# --- functions


def make_cell() -> types.CellType:
    """An empty cell: what it holds is set by `set_cell`."""
    return types.CellType()


def set_cell(cell: types.CellType, state: tuple[object]) -> None:
    """Fill a cell."""
    cell.cell_contents = state[0]


def make_function(
    code: types.CodeType,
    namespace: Namespace,
    cells: tuple[types.CellType, ...] | None,
    definition_id: str,
    version: str,
) -> types.FunctionType:
    """A function without what `set_function` gives it.

    Args:
        code: its code.
        namespace: its globals.
        cells: its closure.
        definition_id: its identity if its module knows it by its name, else "".
        version: changes with it.
    """

    def make() -> types.FunctionType:
        return types.FunctionType(code, namespace.namespace, code.co_name, None, cells)

    return find_or_make(definition_id, version, make) if definition_id else make()


def set_function(function: Any, state: tuple[Any, ...]) -> None:
    """Complete a function, unless it is native or complete, and bind the globals that it reads."""
    namespace, bindings, own, attributes, _ = state
    for name, version, value in bindings:
        namespace.bind(name, version, value)
    if not begun(function):
        return
    for name, value in own.items():
        setattr(function, name, value)
    function.__dict__.update(attributes)


def begun(definition: object) -> bool:
    """Whether a definition is to be completed; true once."""
    identity = known_identity(definition)
    if identity is None:
        return True
    first = not (identity.native or identity.complete)
    identity.complete = True
    return first


# --- functions with a cache, or with one for each type


def make_cached(definition_id: str, function: Any, maxsize: int | None, typed: bool) -> Any:
    """What `functools.lru_cache` makes of a function."""
    return find_or_make(definition_id, "", lambda: functools.lru_cache(maxsize, typed)(function))


def set_attributes(definition: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes of a definition, unless it is native or complete."""
    if begun(definition):
        definition.__dict__.update(attributes)


def make_dispatching(definition_id: str, function: Any) -> Any:
    """What `functools.singledispatch` makes of a function."""
    return find_or_make(definition_id, "", lambda: functools.singledispatch(function))


def set_dispatching(function: Any, state: tuple[list[tuple[type, Any]], dict[str, Any]]) -> None:
    """Register what is not registered yet."""
    registered, attributes = state
    set_attributes(function, attributes)
    if not identify(function).native:
        for kind, implementation in registered:
            if function.registry.get(kind) is not implementation:
                function.register(kind, implementation)


def set_cached_property(it: Any, state: dict[str, Any]) -> None:
    """Complete a `functools.cached_property`."""
    vars(it).update(state)


# --- classes


def make_class(
    metaclass: type,
    name: str,
    bases: tuple[Any, ...],
    namespace: dict[str, Any],
    definition_id: str,
) -> type:
    """A class without what `set_class` gives it.

    Args:
        metaclass: its type.
        name: its name.
        bases: as they are written in its definition.
        namespace: what has to be there when it is made: its slots.
        definition_id: its identity.
    """
    made: type = find_or_make(
        definition_id,
        "",
        lambda: types.new_class(
            name, bases, {"metaclass": metaclass}, lambda made: made.update(namespace)
        ),
    )
    return made


def make_quiet_class(
    metaclass: type,
    name: str,
    bases: tuple[type, ...],
    namespace: dict[str, Any],
    definition_id: str,
) -> type:
    """Like `make_class`, and no code of the user's runs that would when a class is defined.

    It has run where it was defined, and what it has done travels: ``__init_subclass__`` of its
    bases, and ``__new__`` and ``__init__`` of its metaclass.
    """

    def make() -> Any:
        maker: Any = type
        for base in metaclass.__mro__:
            if known_here(base):
                maker = base
                break
        for silent in _SILENT:
            try:
                made: type = maker.__new__(metaclass, name, (silent, *bases), namespace)
                made.__bases__ = bases
            except TypeError:  # instances would be laid out in another way
                continue
            return made
        return maker.__new__(metaclass, name, bases, namespace)

    quiet: type = find_or_make(definition_id, "", make)
    return quiet


def _silent(*slots: str) -> type:
    def __init_subclass__(cls: type, /, **_: object) -> None:  # noqa: N807
        """Nothing: those of the other bases are not called."""

    return type("_Silent", (), {"__slots__": slots, "__init_subclass__": __init_subclass__})


# A class can get other bases only if they have the same slots.
_SILENT: Final = (_silent("__dict__", "__weakref__"), _silent(), _silent("__weakref__"))


def known_here(cls: type) -> bool:
    """Whether a class did not come in a pickle."""
    identity = known_identity(cls)
    return identity is None or identity.native


def set_class(cls: Any, state: tuple[Any, ...]) -> None:
    """Give a class its attributes, those that another version of it has not; and bind globals.

    Args:
        cls: which.
        state: its attributes as (name, version, value); the subclasses that were registered with
            an abstract class; globals as (namespace, name, version, value).
    """
    attributes, registered, bindings = state
    for namespace, name, version, value in bindings:
        namespace.bind(name, version, value)
    if identify(cls).native:
        return
    bind_class(cls, attributes)
    for other in registered:
        abc.ABCMeta.register(cls, other)


def bind_class(cls: type, attributes: list[tuple[str, str, Any]]) -> None:
    """Set the attributes of a class that it has in another version; the others go."""
    scope = current()
    scope.collect(bind_class, cls, attributes)
    names = identify(cls).names
    changed = False
    for name, version, value in attributes:
        if names.version(name) != version:
            # Not setattr: a metaclass may have its own, and that is the user's code.
            type.__setattr__(cls, name, value)
            names.put(name, version)
            changed = True
    for name in names.drop_others({name for name, _, _ in attributes}):
        if name in cls.__dict__:
            type.__delattr__(cls, name)
        changed = True
    if changed:
        scope.generation += 1


# --- exceptions


def make_exception(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception with its ``args``, without a call of a constructor of the user's."""
    made = cls.__new__(cls, *args)
    for base in cls.__mro__:
        initialize = vars(base).get("__init__")
        if isinstance(initialize, types.WrapperDescriptorType):  # written in C: takes args
            initialize(made, *args)
            break
    return made


# --- objects that are globals


def make_named(namespace: Namespace, name: str, cls: type) -> Any:
    """The object that is this global of its module, and of which there is only one."""
    found = namespace.namespace.get(name)
    if not isinstance(found, cls):
        found = namespace.namespace[name] = object.__new__(cls)
    return found


def set_named(obj: Any, attributes: dict[str, Any]) -> None:
    """Set the attributes of such an object, if it has just been made."""
    if attributes and not vars(obj):
        vars(obj).update(attributes)


# --- what else can be defined


def make_definition(definition_id: str, make: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """A definition that is complete when it is made: a parameter of types, for one."""
    return find_or_make(definition_id, "", lambda: make(*args))


def make_parameter(kind: Callable[..., Any], name: str, keywords: dict[str, Any]) -> Any:
    """A `typing.ParamSpec` or `typing.TypeVarTuple`."""
    return kind(name, **keywords)


def make_new_type(name: str, qualname: str, module: str, supertype: Any) -> Any:
    """A `typing.NewType`."""
    made: Any = typing.NewType(name, supertype)  # type: ignore[misc]  # it is the user's
    made.__qualname__ = qualname
    made.__module__ = module
    return made


def make_alias(name: str, value: Any, parameters: tuple[Any, ...]) -> Any:
    """What a ``type`` statement with parameters makes, as of Python 3.12."""
    return typing.TypeAliasType(name, value, type_params=parameters)  # type: ignore[attr-defined]


def make_lazy_alias(name: str, module: str) -> Any:
    """What a ``type`` statement makes that may refer to itself; `set_lazy_alias` says to what."""
    values: list[Any] = []
    namespace = {"__name__": module, "values": values}
    exec(f"type {name} = values[0]", namespace)  # noqa: S102  # the name is an identifier
    _values.put(namespace[name], values)
    return namespace[name]


def set_lazy_alias(alias: Any, value: object) -> None:
    """Say what an alias stands for, unless it is native."""
    values = _values.get(alias)
    if values is not None and not values:
        values.append(value)


_values: Final[IdentityMap[list[Any]]] = IdentityMap()
