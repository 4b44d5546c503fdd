"""What pickles what.

Three picklers, the cheapest that does the job:

1. C pickle, protocol 5, for data and for what a pod can import;
2. cloudpickle, for definitions that a pod cannot import: what lives in ``__main__`` or in a
   module of the user's own, and lambdas, closures and local classes anywhere. It keeps a
   registry, so that such a class is one class at either end;
3. dill, for what neither of them takes.

C pickle alone does not know that a reference into ``__main__`` means nothing on a pod, so its
output is searched for the names of such modules: the name of every module that a pickle
refers to stands in it in plain text. A name found by accident costs time and nothing else.

Everything is read with C pickle: it reads what all three write.
"""

from __future__ import annotations

import io
import pickle
import site
import sys
import sysconfig
import threading
import types
import weakref
from collections import ChainMap, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import cloudpickle

PROTOCOL: Final = 5

loads = pickle.loads

_MAIN: Final = b"__main__"
# A reference to a module's attribute, in protocol 4 and later: STACK_GLOBAL.
_REFERENCE: Final = b"\x93"

_cloudpickle_lock = threading.RLock()


# --- modules that a pod cannot import


_OUR_PACKAGES: Final = frozenset({"k8sfutures", "cloudpickle", "dill", "tblib"})


def _installed_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    prefixes = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    prefixes.update(site.getsitepackages())
    prefixes.add(site.getusersitepackages())
    return tuple(prefixes)


_PREFIXES: Final = _installed_prefixes()


class _OwnModules:
    """The modules of the user's own that are loaded: neither installed nor part of Python."""

    def __init__(self) -> None:
        self._count = -1
        self._modules: dict[bytes, types.ModuleType] = {}

    def get(self) -> dict[bytes, types.ModuleType]:
        """Module by encoded name; looked up anew when the number of loaded modules changed."""
        if len(sys.modules) != self._count:
            modules = dict(sys.modules)
            self._count = len(modules)
            self._modules = {
                name.encode(): module for name, module in modules.items() if _is_own(name, module)
            }
        return self._modules


def _is_own(name: str, module: object) -> bool:
    if name == "__main__" or name.partition(".")[0] in _OUR_PACKAGES:
        return False
    if not isinstance(module, types.ModuleType):
        return False
    origin = getattr(module, "__file__", None)
    return isinstance(origin, str) and origin.endswith(".py") and not origin.startswith(_PREFIXES)


_own_modules: Final = _OwnModules()


@contextmanager
def _by_value() -> Iterator[None]:
    """Let cloudpickle take definitions of the user's own modules by value."""
    with _cloudpickle_lock:
        known = set(cloudpickle.list_registry_pickle_by_value())
        added = [
            module
            for module in _own_modules.get().values()
            if module.__name__ not in known and module.__name__ in sys.modules
        ]
        for module in added:
            cloudpickle.register_pickle_by_value(module)
        try:
            yield
        finally:
            for module in added:
                cloudpickle.unregister_pickle_by_value(module)


def _refers_to_own(data: bytes) -> bool:
    return any(data.find(name) >= 0 for name in _own_modules.get())


# --- objects


def dumps(obj: object) -> bytes:
    """Pickle any object so that a process that has never seen the user's code can load it.

    Args:
        obj: data, definitions, or both.

    Returns:
        Bytes for `loads`.

    Raises:
        Exception: what the object itself raised, or why none of the picklers takes it.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        # The contents of arrays stay out of it: no name of a module is in there, and to search
        # 10 MB for some costs more than to pickle them.
        data = pickle.dumps(obj, PROTOCOL, buffer_callback=buffers.append)
        # `find`, as `in` takes ten times as long on bytes: it tries an integer first.
        if data.find(_MAIN) >= 0 or (data.find(_REFERENCE) >= 0 and _refers_to_own(data)):
            return _dumps_definitions(obj)
        return pickle.dumps(obj, PROTOCOL) if buffers else data
    except Exception:  # cloudpickle takes it, or says what is wrong with it
        return _dumps_definitions(obj)


def _reduce_code(code: types.CodeType) -> tuple[Any, ...]:
    """As cloudpickle does, with the name of the file kept: tracebacks show lines by it."""
    make, arguments = _reduce_code_of_cloudpickle(code)
    # As of 3.1.3 cloudpickle puts this in its place, so that equal code has equal pickles.
    return make, tuple(code.co_filename if one == "<dynamic-code>" else one for one in arguments)


_reduce_code_of_cloudpickle: Final = cloudpickle.Pickler.dispatch_table[types.CodeType]


class _DefinitionsPickler(cloudpickle.Pickler):  # type: ignore[misc]
    dispatch_table: ClassVar[Any] = ChainMap(
        {types.CodeType: _reduce_code},
        cloudpickle.Pickler.dispatch_table,
    )


def _dumps_definitions(obj: object) -> bytes:
    try:
        buffer = io.BytesIO()
        with _by_value():
            _DefinitionsPickler(buffer, PROTOCOL).dump(obj)
        return buffer.getvalue()
    except Exception as from_cloudpickle:
        try:
            return _dumps_with_dill(obj)
        except Exception:  # cloudpickle's words name the object; dill's are its own
            raise from_cloudpickle from None


def _dumps_with_dill(obj: object) -> bytes:
    import dill

    class Pickler(dill.Pickler):  # type: ignore[misc]
        dispatch = dill.Pickler.dispatch.copy()

    # dill makes a new lock, and opens the file anew, on the machine where it loads them: for
    # another machine that is no copy, and the user had better hear of it.
    for kind in list(Pickler.dispatch):
        if kind.__module__ in {"_thread", "_io"}:
            del Pickler.dispatch[kind]
    buffer = io.BytesIO()
    Pickler(buffer, PROTOCOL, recurse=True).dump(obj)
    return buffer.getvalue()


# --- calls


def invoke(function: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """Call the first argument: how a callable that is not a plain function travels."""
    return function(*args, **kwargs)


def name_of(function: object) -> str:
    """What to call a callable in messages for people; a name is its own."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def blame(error: BaseException, function: object, args: Any, kwargs: Any) -> None:
    """Note on a pickling error which part of the call it comes from.

    Args:
        error: what pickling the whole call raised; gets a note.
        function: what was submitted.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    parts = [("the function", function)]
    parts += [(f"args[{index}]", value) for index, value in enumerate(args)]
    parts += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    for where, value in parts:
        try:
            dumps(value)
        except BaseException:  # even SystemExit: this only looks for the culprit
            kind = type(value).__qualname__
            error.add_note(
                f"k8sfutures: {where} of the call to {name_of(function)}, "
                f"of type {kind!r}, cannot be pickled"
            )
            return


@dataclass(slots=True)
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
        module == "__main__"
        or "<" in function.__qualname__
        or module.encode() in _own_modules.get()
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
    """

    def __init__(self) -> None:
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
        return self._new(name_of(function), dumps(function))

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
            known = self._new(name_of(function), dumps(invoke))
            self._callers[name] = known
        return known

    def _pickle(self, function: Any) -> PickledFunction:
        pickled = self._new(name_of(function), dumps(function))
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
