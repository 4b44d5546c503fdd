"""How definitions travel by value: functions, classes, and whatever else ``__main__`` is made of.

cloudpickle's pickler, with reducers of our own where its are not enough:

* a class or a function is one and the same at either end, and what is native is not changed by
  what comes back (see `scopes`); cloudpickle replaces the attributes of a class at each load;
* functions share their globals, across pickles;
* closures share their cells; slots stay slots; Enums keep their aliases and what their members are;
* ``lru_cache``, ``singledispatch``, ``cached_property``, type parameters: defined in ``__main__``,
  they would travel as names that a pod does not know;
* open files and views of memory are refused, as by the standard library: cloudpickle makes a copy
  in memory of the one, and bytes of the other.
"""

from __future__ import annotations

import copyreg
import enum
import inspect
import io
import re
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any, Final

import cloudpickle
from cloudpickle import cloudpickle as internal

from . import enumerations
from .classes import attributes_of, first_namespace, runs_code
from .fingerprints import ATOMS, PROTOCOL, fingerprint, fingerprint_of_attribute, linked
from .imports import note_names, noted_apart
from .rebuilding import (
    make_class,
    make_dispatching,
    make_exception,
    make_function,
    make_named,
    make_quiet_class,
    set_class,
    set_dispatching,
    set_function,
    set_named,
)
from .reducers import OF_DISPATCHING, REDUCERS, Reduced, is_dispatching, refuse, travels_by_value
from .scopes import (
    Namespace,
    current,
    find,
    identify,
    imported_namespace,
    known_identity,
    load_unit,
    nameless_namespace,
    namespace,
    native_namespace,
)
from .units import is_found_by_name, unit_of


class _Global:
    """The value of a global, in a pickle: the one that is there already, where it has not changed.

    A global and a default that are one object stay one.
    """

    __slots__ = ("args",)

    def __init__(self, where: _NamespaceReference, name: str, version: str, value: object) -> None:
        self.args = (where, name, version, value)

    def __reduce__(self) -> Reduced:
        return Namespace.resolve, self.args


class _NamespaceReference:
    """A namespace, in a pickle."""

    __slots__ = ("_reduced", "names")

    def __init__(self, namespace: dict[str, Any]) -> None:
        self.names: Namespace | None = None
        """None where a pod imports it, and so has all that is in it."""
        name = namespace.get("__name__")
        base: dict[str, Any] = {key: namespace[key] for key in _OF_MODULES if key in namespace}
        owner = current().owner(namespace)
        module = sys.modules.get(name) if isinstance(name, str) else None
        if owner is None and module is not None and vars(module) is namespace:
            if _is_importable(module):
                self._reduced: Reduced = (imported_namespace, (name,))
                return
            owner = native_namespace(module.__name__, namespace)
        if owner is None:
            self.names = nameless_namespace(base)
            self._reduced = nameless_namespace, (base,)
        else:
            self.names = owner
            self._reduced = _namespace, (owner.id, owner.name, base)

    def __reduce__(self) -> Reduced:
        return self._reduced


def _is_importable(module: types.ModuleType) -> bool:
    if module.__name__ == "__main__" or getattr(module, "__spec__", None) is None:
        return False
    return not internal._is_registered_pickle_by_value(module)  # noqa: SLF001


_namespace: Final = namespace
_OF_MODULES: Final = ("__package__", "__name__", "__path__", "__file__")
_DEFINITIONS: Final = types.FunctionType | type | types.ModuleType
_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")


class Reducers:
    """Reduces functions, classes and exceptions for one pickle: a part of a pickler."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._namespaces: dict[int, _NamespaceReference] = {}
        self._globals: dict[int, _Global] = {}
        self._plain: set[int] = set()
        """Types whose instances are left to others."""
        # What has an entry above by its id must not go meanwhile.
        self._kept: list[object] = []
        self._uses_units = False
        self._in_units: set[str] = set()
        self.classes: set[str] = set()
        """The identities of the classes that are in the pickle."""

    def reducer_override(self, obj: Any) -> Reduced:
        kind = type(obj)
        if id(kind) in self._plain:
            return NotImplemented
        if kind is types.FunctionType:
            return self._function(obj)
        if issubclass(kind, type):
            return self._class(obj)
        for name in ("stdout", "stderr"):
            if obj is getattr(sys, name) and obj is not None:
                return getattr, (sys, name)
        if issubclass(kind, BaseException):
            return self._exception(obj)
        if issubclass(kind, enum.Enum):
            plain = enumerations.is_plain_member(obj)
            return (enumerations.member_of, (kind, obj._name_)) if plain else NotImplemented
        if isinstance(kind.__reduce__, types.FunctionType) and travels_by_value(kind):
            return self._named(obj)
        if kind.__module__ == "multiprocessing.connection":
            refuse(obj)  # it would be one to whatever file has its number there
        if kind is not io.TextIOWrapper and kind is not type(sys.stdout):
            self._plain.add(id(kind))
            self._kept.append(kind)
        return NotImplemented

    @staticmethod
    def _exception(error: BaseException) -> Reduced:
        """An exception with a constructor of its own, which may take other things than its args."""
        kind = type(error)
        if (
            kind in copyreg.dispatch_table
            or isinstance(kind.__reduce__, types.FunctionType)
            or kind.__reduce_ex__ is not object.__reduce_ex__
            or not isinstance(kind.__init__, types.FunctionType)
        ):
            return NotImplemented
        reduced: Any = error.__reduce__()
        return make_exception, (kind, reduced[1]), *reduced[2:]

    def _named(self, obj: Any) -> Reduced:
        """An object that says that it is a global of its module: ``__reduce__`` returns a name."""
        reduced = obj.__reduce__()
        module = sys.modules.get(type(obj).__module__)
        if not isinstance(reduced, str) or module is None:
            return reduced
        reference = self._namespace(vars(module))
        return make_named, (reference, reduced, type(obj)), vars(obj), None, None, set_named

    # --- namespaces

    def _namespace(self, namespace: dict[str, Any]) -> _NamespaceReference:
        reference = self._namespaces.get(id(namespace))
        if reference is None:
            reference = self._namespaces[id(namespace)] = _NamespaceReference(namespace)
            self._kept.append(namespace)
        return reference

    def _bindings(
        self, reference: _NamespaceReference, values: dict[str, Any]
    ) -> list[tuple[str, str, Any]]:
        """Globals as (name, version, value)."""
        names = reference.names
        if names is None:
            return []
        versions = {
            name: names.version_of(name, fingerprint(value)) for name, value in values.items()
        }
        data = {name: value for name, value in values.items() if _is_data(value)}
        for group in linked(data):
            # All of them or none: one that is new refers to what comes with it.
            together = "+".join(sorted(versions[name] for name in group))
            versions.update(dict.fromkeys(group, together))
        for name, value in data.items():
            if id(value) not in self._globals:
                self._globals[id(value)] = _Global(reference, name, versions[name], value)
                self._kept.append(value)
        return [(name, versions[name], self._shared(value)) for name, value in values.items()]

    def _shared(self, value: Any) -> Any:
        """The value, or what stands for it if it is a global, too."""
        return self._globals.get(id(value), value)

    # --- functions

    def _function(self, function: types.FunctionType) -> Reduced:
        if not travels_by_value(function):
            return NotImplemented
        if is_dispatching(function):
            return self._dispatching(function)
        definition_id, version = _identity_of(function)
        reference = self._namespace(function.__globals__)
        args = (function.__code__, reference, function.__closure__, definition_id, version)
        return make_function, args, self._function_state(function), None, None, set_function

    def _function_state(self, function: types.FunctionType) -> Any:
        reference = self._namespace(function.__globals__)
        annotations = _annotations(function)
        code = function.__code__
        reads: dict[str, Any] = {}
        submodules: list[types.ModuleType] = []
        here = function.__globals__
        if reference.names is not None:
            names = [*internal._extract_code_globals(code), *_named_in(annotations)]  # noqa: SLF001
            reads = {name: here[name] for name in names if name in here}
            if _is_own_global(function):
                reads[function.__name__] = function
        cells = [_content(cell) for cell in function.__closure__ or ()]
        submodules = internal._find_imported_submodules(  # noqa: SLF001
            code, [*reads.values(), *cells]
        )
        bindings = self._bindings(reference, reads)
        defaults, more = function.__defaults__, function.__kwdefaults__
        own = {
            "__name__": function.__name__,
            "__qualname__": function.__qualname__,
            "__module__": function.__module__,
            "__doc__": function.__doc__,
            "__annotations__": annotations,
            "__defaults__": None if defaults is None else tuple(map(self._shared, defaults)),
            "__kwdefaults__": more and {name: self._shared(one) for name, one in more.items()},
        }
        parameters = getattr(function, "__type_params__", ())  # as of Python 3.12
        if parameters:
            own["__type_params__"] = parameters
        attributes = {name: self._shared(value) for name, value in vars(function).items()}
        return reference, bindings, own, attributes, submodules

    def _dispatching(self, function: Any) -> Reduced:
        registry = dict(function.registry)
        attributes = {
            name: value for name, value in vars(function).items() if name not in OF_DISPATCHING
        }
        state = list(registry.items()), attributes
        args = identify(function).id, registry.pop(object)
        return make_dispatching, args, state, None, None, set_dispatching

    # --- classes

    def _class(self, cls: Any) -> Reduced:
        special = internal._class_reduce(cls) if id(cls) in _SPECIAL else None  # noqa: SLF001
        if special is not None:
            return special
        if not travels_by_value(cls):
            return NotImplemented
        definition_id = identify(cls).id
        if self._uses_units and (definition_id in current().units or is_found_by_name(cls)):
            return self._unit(cls)
        self.classes.add(definition_id)
        if enumerations.is_enum(cls):
            attributes = enumerations.without_members(cls, attributes_of(cls)[0])
            members = (
                self._versions(cls, attributes),
                enumerations.attributes_of_members(cls),
                self._bindings_of_class(cls),
            )
            return (
                *(enumerations.make_enum, enumerations.arguments(cls)),
                *(members, None, None, enumerations.set_enum),
            )
        make: Any = make_quiet_class if runs_code(cls) else make_class
        bases = cls.__bases__
        if typing.is_typeddict(cls):  # what it really is, cannot be derived from
            bases = cls.__dict__.get("__orig_bases__", (typing.TypedDict,))
        args = (type(cls), cls.__name__, bases, first_namespace(cls), identify(cls).id)
        attributes, registered = attributes_of(cls)
        state = self._versions(cls, attributes), registered, self._bindings_of_class(cls)
        return make, args, state, None, None, set_class

    def _unit(self, cls: type) -> Reduced:
        definition_id = identify(cls).id
        if definition_id in self._in_units:
            return find, (definition_id,)
        unit = unit_of(cls, _pickled_class)
        note_names(unit.imports)
        self._in_units |= unit.classes
        return load_unit, (definition_id, unit.key, unit.data)

    def _versions(self, cls: type, attributes: dict[str, Any]) -> list[tuple[str, str, Any]]:
        names = identify(cls).names
        return [
            (
                name,
                names.version_of(name, fingerprint_of_attribute(name, value)),
                self._shared(value),
            )
            for name, value in attributes.items()
        ]

    def _bindings_of_class(self, cls: type) -> list[tuple[Any, str, str, Any]]:
        module = sys.modules.get(cls.__module__)
        if module is None:
            return []
        here = vars(module)
        reference = self._namespace(here)
        names = _named_in(inspect.get_annotations(cls))
        values = {name: here[name] for name in names if name in here}
        if here.get(cls.__name__) is cls:
            values[cls.__name__] = cls
        return [(reference, *binding) for binding in self._bindings(reference, values)]


class DefinitionsPickler(Reducers, cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles data and definitions.

    Args:
        file: where to.
        protocol: of pickle.
        buffer_callback: as for `pickle.Pickler`.
        units: whether classes are put into it as units, which is good for data.
    """

    def __init__(
        self, file: Any, protocol: int, buffer_callback: Any = None, *, units: bool = False
    ) -> None:
        # cloudpickle's is a ChainMap, which costs more for each object than all else.
        self.dispatch_table = dispatch_table()
        super().__init__(file, protocol, buffer_callback)
        self._uses_units = units


def dispatch_table() -> dict[type, Any]:
    """The reducers by type: ours, cloudpickle's, and those that the user has registered."""
    return copyreg.dispatch_table | _OF_CLOUDPICKLE | REDUCERS


_OF_CLOUDPICKLE: Final[dict[type, Any]] = cloudpickle.Pickler.dispatch_table.maps[0]


def _pickled_class(cls: type) -> tuple[bytes, frozenset[str], frozenset[str]]:
    buffer = io.BytesIO()
    pickler = DefinitionsPickler(buffer, PROTOCOL)
    with noted_apart() as imports:
        pickler.dump(cls)
    return buffer.getvalue(), frozenset(pickler.classes), frozenset(imports)


_SPECIAL: Final = frozenset(
    map(id, (type(None), type(...), type(NotImplemented), *internal._BUILTIN_TYPE_NAMES))  # noqa: SLF001
)


def _is_data(value: object) -> bool:
    return type(value) not in ATOMS and not isinstance(value, _DEFINITIONS)


def _content(cell: types.CellType) -> object:
    try:
        return cell.cell_contents
    except ValueError:  # not assigned yet
        return None


def _annotations(function: types.FunctionType) -> dict[str, Any]:
    try:
        return function.__annotations__
    except NameError:  # as of Python 3.14 they are evaluated when they are read
        return {}


def _named_in(annotations: dict[str, Any]) -> Iterator[str]:
    """The names in annotations that are text: whoever evaluates them needs them."""
    for annotation in annotations.values():
        text = getattr(annotation, "__forward_arg__", annotation)
        if isinstance(text, str):
            yield from _IDENTIFIER.findall(text)


# --- which function it is


def _identity_of(function: types.FunctionType) -> tuple[str, str]:
    """Identity and version of a function that its module knows by its name; else ("", "").

    What a call defines, and a lambda, is copied by each pickle, as data is.
    """
    known = known_identity(function)
    if known is not None and not known.native:
        return known.id, known.version
    if not is_found_by_name(function):
        return "", ""
    identity = identify(function)
    return identity.id, identity.names.version_of("", fingerprint(function))


def _is_own_global(function: types.FunctionType) -> bool:
    return function.__globals__.get(function.__name__) is function
