"""Which definition is which, in every process that it comes to.

A function, a class or a global of the user's ``__main__`` travels inside of the pickles that need
it, again and again. This is what makes it *one* at either end:

* An `Identity` for each class, and for each function that its module knows by its name. Where
  it was defined it is **native**: what comes back is the object itself, and no pickle changes it.
  Elsewhere the first pickle that has it builds it, and all later ones find it.
* A `Namespace` for each module whose definitions travel: the globals of all of its functions in
  a process, as they were in one module. So functions share what they assign, and what an
  initializer prepares is there for the calls.
* **Versions.** Each name in a namespace or a class has one, which changes when its value does
  where it is native. A pickle sets a name only if its version is another than the one that is
  there: what calls have made of an unchanged global or class attribute stays, as in a process pool.
* A `Scope` for each client in a process of a pod: clients do not meet, and ``__main__`` is the
  module of the client whose call runs. Before a call, what its function was pickled with is put
  in place again if another call has brought other versions (`Scope.use`).
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import pickle
import sys
import threading
import types
import uuid
from collections.abc import Callable
from dataclasses import field
from typing import Any, Final

from .living import IdentityMap, Living
from .spawned import MainName
from .values import dataclass


def new_id() -> str:
    """An identity or a version that no process has had."""
    # Not a counter: all CPU processes of a pod are forked from one.
    return uuid.uuid4().hex


# --- names and their versions


@dataclass(slots=True)
class _Name:
    """What is known of one name: its version, and by what a change of its value is seen."""

    version: str
    fingerprint: object = None
    value: Any = None  # in namespaces that came from elsewhere


class Names:
    """Versions of the names in a namespace or a class.

    Attributes:
        native: whether it was defined in this process, and so no pickle changes it.
    """

    def __init__(self, *, native: bool) -> None:
        self.native = native
        self._names: dict[str, _Name] = {}

    def version_of(self, name: str, fingerprint: object) -> str:
        """The version of a name, for a pickle.

        Args:
            name: which.
            fingerprint: of its value now.

        Returns:
            Another one than before if the value has changed.
        """
        known = self._names.get(name)
        if known is None or (known.fingerprint or fingerprint) != fingerprint:
            known = self._names[name] = _Name(new_id())
        known.fingerprint = fingerprint
        return known.version

    def version(self, name: str) -> str | None:
        """The version that is here, or None."""
        known = self._names.get(name)
        return None if known is None else known.version

    def put(self, name: str, version: str, value: object = None) -> None:
        """Note that a value of this version is here now."""
        self._names[name] = _Name(version, None, value)

    def drop_others(self, names: set[str]) -> list[str]:
        """Forget the names that a newer version has not; returns them."""
        gone = [name for name in self._names if name not in names]
        for name in gone:
            del self._names[name]
        return gone


class Namespace(Names):
    """The globals of a module's functions, in this process.

    Args:
        namespace_id: the same in every process.
        name: the module's.
        namespace: its dict.
        native: whether this process is where the module is.
    """

    def __init__(
        self, namespace_id: str, name: str, namespace: dict[str, Any], *, native: bool
    ) -> None:
        super().__init__(native=native)
        self.id = namespace_id
        self.name = name
        self.namespace = namespace

    def bind(self, name: str, version: str, value: object) -> None:
        """Set a global, unless it has this version already."""
        if self.native:
            return
        scope = current()
        scope.collect(self.bind, name, version, value)
        if self.version(name) != version:
            self.namespace[name] = value
            self.put(name, version, value)
            scope.generation += 1

    def resolve(self, name: str, version: str, value: object) -> object:
        """What a global of this version is here; the given value if it is not here yet."""
        if self.native:
            return self.namespace.get(name, value)
        known = self._names.get(name)
        return known.value if known is not None and known.version == version else value


# --- who is who


@dataclass(slots=True)
class Identity:
    """Of a class, function or the like.

    Attributes:
        id: the same in every process.
        native: whether it was defined here.
        version: of a function, where it did not come from here.
        complete: whether it has all that it was pickled with.
        names: of a class, its attributes.
    """

    id: str
    native: bool
    version: str = ""
    complete: bool = False
    names: Names = field(default_factory=lambda: Names(native=False))


_identities: Final[IdentityMap[Identity]] = IdentityMap()
_natives: Final = Living()
_native_namespaces: Final[dict[str, Namespace]] = {}
_lock: Final = threading.RLock()


def identify(obj: object) -> Identity:
    """The identity of a definition; it is native if it did not come from elsewhere."""
    with _lock:
        known = _identities.get(obj)
        if known is None:
            known = Identity(new_id(), native=True, names=Names(native=True))
            _identities.put(obj, known)
            _natives.put(known.id, obj)
        return known


def known_identity(obj: object) -> Identity | None:
    """The identity of a definition if it has one already."""
    return _identities.get(obj)


def find_or_make(definition_id: str, version: str, make: Callable[[], Any]) -> Any:
    """The definition of this identity in this process.

    Args:
        definition_id: which.
        version: of a function; its versions are functions of their own.
        make: builds it where it is not here yet.

    Returns:
        It; without all that belongs to it where it has just been made.
    """
    with _lock:
        found = _natives.get(definition_id)
        if found is not None:
            return found
        objects = current().objects
        key = definition_id + version
        found = objects.get(key)
        if found is None:
            found = make()
            objects.put(key, found)
            _identities.put(found, Identity(definition_id, native=False, version=version))
        current().keep(definition_id, found)
        return found


def load_unit(definition_id: str, key: str, data: bytes) -> Any:
    """The class of a unit; what pickles call.

    Args:
        definition_id: the identity of the class.
        key: of the unit.
        data: the pickle that it is.
    """
    native = _natives.get(definition_id)
    return current().load_unit(definition_id, key, data) if native is None else native


def find(definition_id: str) -> Any:
    """A definition that a unit of the same pickle has brought; what pickles call."""

    def missing() -> Any:
        raise pickle.UnpicklingError(f"the class with identity {definition_id} is not here")

    return find_or_make(definition_id, "", missing)


def native_namespace(name: str, namespace: dict[str, Any]) -> Namespace:
    """The namespace of a module of this process whose definitions travel."""
    with _lock:
        for known in _native_namespaces.values():
            if known.namespace is namespace:
                return known
        made = Namespace(new_id(), name, namespace, native=True)
        _native_namespaces[made.id] = made
        return made


def namespace(namespace_id: str, name: str, base: dict[str, Any]) -> Namespace:
    """The namespace of this identity in this process; what pickles call.

    Args:
        namespace_id: which.
        name: the module's.
        base: what it has from the beginning.
    """
    with _lock:
        found = _native_namespaces.get(namespace_id) or current().namespaces.get(namespace_id)
        if found is None:
            module = _module(name, base)
            found = Namespace(namespace_id, name, module.__dict__, native=False)
            current().add(found, module)
        return found


def _module(name: str, base: dict[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__.update(base, __builtins__=builtins)
    if name == "__main__":
        # Else a process that a call starts by multiprocessing would look for its file.
        module.__spec__ = importlib.machinery.ModuleSpec(MainName(name), None)
    return module


def imported_namespace(name: str) -> Namespace:
    """The namespace of a module that this process can import; what pickles call."""
    return Namespace("", name, importlib.import_module(name).__dict__, native=True)


def nameless_namespace(base: dict[str, Any]) -> Namespace:
    """A namespace that belongs to no module, new for each pickle; what pickles call."""
    made = {**base, "__builtins__": builtins}
    return Namespace("", str(base.get("__name__")), made, native=False)


# --- scopes


@dataclass(slots=True)
class Unit:
    """The pickle of a class with all that it needs; see `units`.

    Attributes:
        key: another one for each that is made.
        data: the pickle.
        classes: the identities of the classes in it.
        kept: where it was loaded: what it has brought, which other pickles refer to.
        generation: of the scope, when all that it brought was in place.
        imports: where it was made: what code in it imports.
    """

    key: str
    data: bytes
    classes: frozenset[str]
    kept: dict[str, Any] = field(default_factory=dict)
    generation: int = -1
    imports: frozenset[str] = frozenset()


@dataclass(slots=True)
class Loaded:
    """What was loaded from a pickle, to be used later.

    Attributes:
        value: the object.
        bindings: what its pickle puts in place, as functions and their arguments.
        generation: of the scope, when all of that was in place.
    """

    value: Any
    bindings: list[tuple[Callable[..., None], tuple[Any, ...]]]
    generation: int


class Scope:
    """Definitions of one client, in a process that is not the client's."""

    def __init__(self) -> None:
        self.objects = Living()
        self.namespaces: dict[str, Namespace] = {}
        self.units: dict[str, Unit] = {}
        """Those that came from elsewhere, by the identity of their class."""
        self.made: dict[str, Any] = {}
        """Those that were made here."""
        self.generation = 0
        """Changes whenever a name gets another version."""
        self._by_dict: dict[int, Namespace] = {}
        self._main: types.ModuleType | None = None
        self._collected: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self._kept: dict[str, Any] | None = None

    def begin(self, main: str | None) -> None:
        """The client is new here: its ``__main__`` has nothing yet.

        Args:
            main: ``__file__`` of it, or None where it has none.
        """
        self._main = _module("__main__", {} if main is None else {"__file__": main})

    def add(self, made: Namespace, module: types.ModuleType) -> None:
        """Take in a namespace that has just been made."""
        self.namespaces[made.id] = made
        self._by_dict[id(made.namespace)] = made
        if made.name == "__main__" and self is not _HOME:
            self._main = module
            if self is _current:
                sys.modules["__main__"] = module

    def owner(self, namespace: dict[str, Any]) -> Namespace | None:
        """The namespace from elsewhere whose dict this is."""
        return self._by_dict.get(id(namespace))

    def enter(self) -> None:
        """From now on, what this process loads and runs is this client's."""
        global _current  # noqa: PLW0603
        if _current is not self:
            _current = self
            sys.modules["__main__"] = self._main or _main

    def leave(self) -> None:
        """The client has left."""
        if _current is self:
            _HOME.enter()

    def load(self, load: Callable[[], Any]) -> Loaded:
        """Unpickle what will be used more than once.

        Args:
            load: unpickles it.

        Raises:
            Exception: it cannot be unpickled.
        """
        bindings: list[tuple[Callable[..., None], tuple[Any, ...]]] = []
        self._collected = bindings
        try:
            value = load()
        finally:
            self._collected = None
        return Loaded(value, bindings, self.generation)

    def collect(self, bind: Callable[..., None], *args: Any) -> None:
        """Note for `use` what a pickle puts in place."""
        if self._collected is not None:
            self._collected.append((bind, args))

    def keep(self, definition_id: str, definition: object) -> None:
        """Note for a unit what its pickle brings."""
        if self._kept is not None:
            self._kept[definition_id] = definition

    def load_unit(self, definition_id: str, key: str, data: bytes) -> Any:
        """The class of a unit; unpickled where that is not the one that is in place."""
        unit = self.units.get(definition_id)
        if (
            unit is not None
            and unit.key == key
            and unit.generation == self.generation
            and self._collected is None
        ):
            return unit.kept[definition_id]
        kept: dict[str, Any] = {}
        before, self._kept = self._kept, kept
        try:
            cls = pickle.loads(data)
        finally:
            self._kept = before
        classes = frozenset(key for key, it in kept.items() if isinstance(it, type))
        self.units[definition_id] = Unit(key, data, classes, kept, self.generation)
        return cls

    def use(self, loaded: Loaded) -> Any:
        """What was loaded, with all in place that its pickle brought."""
        if loaded.generation != self.generation:
            for bind, args in loaded.bindings:
                bind(*args)
            loaded.generation = self.generation
        return loaded.value


_HOME: Final = Scope()
_current = _HOME
_main: Final = sys.modules.get("__main__", types.ModuleType("__main__"))


def current() -> Scope:
    """The scope whose pickles are loaded now: a client's on a pod, the process's own elsewhere."""
    return _current
