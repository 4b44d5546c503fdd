"""What a class is made of, as it travels."""

from __future__ import annotations

import inspect
from typing import Any

from cloudpickle import cloudpickle as internal

from .reducers import travels_by_value


def attributes_of(cls: type) -> tuple[dict[str, Any], list[type]]:
    """What a class has beside its bases and slots, and what is registered with it if abstract."""
    attributes = dict(internal._class_getstate(cls)[0])  # noqa: SLF001
    registered = attributes.pop("_abc_impl", [])
    for name, value in list(attributes.items()):
        is_slot = inspect.ismemberdescriptor(value) or inspect.isgetsetdescriptor(value)
        if is_slot and value.__objclass__ is cls:
            del attributes[name]
    attributes["__qualname__"] = cls.__qualname__
    for name in ("__slots__", "__orig_bases__", "__module__"):
        attributes.pop(name, None)
    return attributes, [one for one in registered if one is not None]


def first_namespace(cls: Any) -> dict[str, Any]:
    """What has to be in the namespace of a class when it is made."""
    own = cls.__dict__
    found = {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if "__slots__" in own:
        slots = own["__slots__"]
        # One may have given what can be gone through once only.
        known = isinstance(slots, str | tuple | list | dict)
        found["__slots__"] = (
            slots if known else [name for name in own if inspect.ismemberdescriptor(own[name])]
        )
    if "__orig_bases__" in own:
        found["__orig_bases__"] = own["__orig_bases__"]
    if isinstance(own.get("__dict__"), property):
        found["__dict__"] = own["__dict__"]
    return found


def runs_code(cls: type) -> bool:
    """Whether to define such a class runs code of the user's, which has run for this one."""
    if travels_by_value(type(cls)):
        return True
    return any(
        "__init_subclass__" in vars(base) and travels_by_value(base) for base in cls.__mro__[1:]
    )
