"""How an Enum travels: its members are made anew, without the code that has made them before.

A member is what its type and its value say, and has attributes that the user's ``__new__`` and
``__init__`` may have given it. Neither runs again: members are made from what they are made of
(`_Part`), and get their attributes with the rest of the class, which may refer to the class.
"""

from __future__ import annotations

import enum
from typing import Any, Final

from .rebuilding import bind_class
from .scopes import find_or_make, identify

# What `EnumType` makes of the members, by itself.
_MADE: Final = frozenset(
    {
        *("_generate_next_value_", "_member_names_", "_member_map_", "_member_type_"),
        *("_value2member_map_", "_unhashable_values_", "_unhashable_values_map_"),
        *("_hashable_values_", "_value_repr_"),
    }
)
_OF_MEMBERS: Final = frozenset({"_value_", "_name_", "__objclass__", "_sort_order_"})
_DATA_TYPES: Final[tuple[Any, ...]] = (int, str, bytes, float, complex, tuple)


def is_enum(cls: type) -> bool:
    """Whether a class is made like an Enum."""
    return isinstance(cls, enum.EnumType) and cls is not enum.Enum


def arguments(cls: Any) -> tuple[Any, ...]:
    """What `make_enum` takes for an Enum."""
    members = [(name, _data(member), member._value_) for name, member in _members(cls).items()]
    keywords = {}
    if issubclass(cls, enum.Flag):
        keywords["boundary"] = cls._boundary_
    return (
        type(cls),
        cls.__name__,
        cls.__bases__,
        members,
        keywords,
        identify(cls).id,
    )


def is_plain_member(member: Any) -> bool:
    """Whether an object is a member with a name, and travels as an Enum's members do."""
    cls = type(member)
    if not isinstance(cls, enum.EnumType) or cls._member_map_.get(member._name_) is not member:
        return False
    return bool(cls.__reduce_ex__.__module__ == "enum")


def member_of(cls: Any, name: str) -> Any:
    """A member by its name: its value may be a copy at the other end, and not be found."""
    return cls._member_map_[name]


def without_members(cls: Any, namespace: dict[str, Any]) -> dict[str, Any]:
    """The attributes of an Enum that making its members does not bring."""
    names = {*_members(cls), *_MADE}
    return {name: value for name, value in namespace.items() if name not in names}


def attributes_of_members(cls: Any) -> dict[str, dict[str, Any]]:
    """What members have beside their names and values."""
    found = {}
    for name, member in _members(cls).items():
        own = {key: value for key, value in vars(member).items() if key not in _OF_MEMBERS}
        if own and member._name_ == name:
            found[name] = own
    return found


def _members(cls: Any) -> dict[str, Any]:
    members: dict[str, Any] = cls._member_map_
    return members


def _data(member: Any) -> tuple[Any, ...]:
    """What a member is made of: `bytes`, say, which its value may have nothing of."""
    kind = type(member)._member_type_
    for data in _DATA_TYPES:
        if issubclass(kind, data):
            # The type's own: a member may have another __str__ or __int__.
            args: tuple[Any, ...] = data.__getnewargs__(member)
            return args
    if kind.__reduce__ is not object.__reduce__:
        args = kind.__reduce__(member)[1]
        return tuple(args)
    return ()


class _Part:
    """In the place of a member's value while the class is made."""

    __slots__ = ("data", "value")

    def __init__(self, data: tuple[Any, ...], value: Any) -> None:
        self.data = data
        self.value = value


def _new(cls: Any, part: Any) -> Any:
    if isinstance(part, tuple):  # so an Enum of tuples has it
        (part,) = part
    made = cls._member_type_.__new__(cls, *part.data)
    made._value_ = part.value
    return made


def _init(self: object, *_: object) -> None:
    """Nothing: the attributes come later."""


def make_enum(
    metaclass: Any,
    name: str,
    bases: tuple[type, ...],
    members: list[tuple[str, tuple[Any, ...], Any]],
    keywords: dict[str, Any],
    definition_id: str,
) -> type:
    """An Enum with its members, without what `set_enum` gives it.

    Args:
        metaclass: its type.
        name: its name.
        bases: its bases.
        members: each as (name, what it is made of, value).
        keywords: of its definition.
        definition_id: its identity.
    """

    def make() -> type:
        namespace = enum.EnumType.__prepare__(name, bases, **keywords)
        if members:
            namespace["__new__"], namespace["__init__"] = _new, _init
        for member, data, value in members:
            namespace[member] = _Part(data, value)
        made: type = enum.EnumType.__new__(metaclass, name, bases, namespace, **keywords)
        if members:
            type.__delattr__(made, "__init__")
            type.__delattr__(made, "__new_member__")
        return made

    made: type = find_or_make(definition_id, "", make)
    return made


def set_enum(cls: Any, state: tuple[Any, ...]) -> None:
    """Give an Enum its attributes, and its members theirs; and bind globals."""
    attributes, members, bindings = state
    for namespace, name, version, value in bindings:
        namespace.bind(name, version, value)
    if identify(cls).native:
        return
    bind_class(cls, attributes)
    for name, own in members.items():
        vars(cls._member_map_[name]).update(own)
