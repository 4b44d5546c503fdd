"""The functions of an executor: each pickled once, and anew when what it reads has changed."""

from __future__ import annotations

import functools
import inspect
import reprlib
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from .blobs import Blobs, blobs_of
from .fingerprints import LruCacheWrapper
from .messages import MODULES
from .own_modules import reloads
from .reads import Reads, reads_of
from .units import look_again
from .values import dataclass


def invoke(function: Callable[..., object], /, *args: object, **kwargs: object) -> object:
    """Call the first argument: how a callable that is not a plain function travels."""
    return function(*args, **kwargs)


def name_of(function: object) -> str:
    """What to call a callable in messages for people; a name is its own."""
    if isinstance(function, str):
        return function
    name = getattr(function, "__qualname__", None)
    return name if isinstance(name, str) else type(function).__qualname__


def refuse_asynchronous(function: Any) -> None:
    """Refuse what makes a coroutine when it is called: nobody would run that.

    Args:
        function: what was submitted.

    Raises:
        TypeError: it is a coroutine function or an asynchronous generator function.
    """
    name = name_of(function)
    while isinstance(function, functools.partial | types.MethodType):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    if not hasattr(function, "__code__"):
        function = vars(type(function)).get("__call__")
    code = getattr(function, "__code__", None)
    flags = code.co_flags if isinstance(code, types.CodeType) else 0
    if flags & inspect.CO_COROUTINE:
        kind, instead = "a coroutine function", f"asyncio.run({name}(...))"
    elif flags & inspect.CO_ASYNC_GENERATOR:
        kind, instead = "an asynchronous generator function", "asyncio.run(...)"
    else:
        return
    raise TypeError(
        f"{name} is {kind}: a call of it runs nothing, and what it makes cannot travel; submit a "
        f"function that runs it, with {instead} for one"
    )


@dataclass(slots=True, repr=False)  # it has the user's data
class PickledFunction:
    """A function as it travels: once for each pod, under its id.

    Attributes:
        id: names it in calls; unique in this executor.
        name: for people.
        data: the pickle.
        reads: what it read from outside when it was pickled; None for what never changes.
    """

    id: int
    name: str
    data: bytes
    reads: Reads | None = None

    def is_current(self) -> bool:
        """Whether the function still reads the same objects; if not, it is pickled anew."""
        return self.reads is None or self.reads.are_current()


_CACHED: Final = (types.FunctionType, types.BuiltinFunctionType, type, LruCacheWrapper)


class Functions:
    """The functions of one executor, each pickled once for as long as it lives.

    Safe for threads that submit at the same time: at worst a function is pickled twice.

    Args:
        blobs: of the executor; bulky parts of functions are among them, and their modules.
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
        refuse_asynchronous(function)
        look_again()
        return self._new(name_of(function), self._dumps(function))

    def caller(self, function: Callable[..., object]) -> PickledFunction:
        """What calls a callable that travels as its first argument.

        Args:
            function: a bound method, a `functools.partial`, a callable object.

        Returns:
            `invoke` under an id of its own for each underlying function, so that durations
            are measured apart.

        Raises:
            TypeError: it cannot be called, or makes a coroutine.
        """
        if not callable(function):
            raise TypeError(
                f"{reprlib.repr(function)} is not callable: submit takes a function and its "
                "arguments, as in submit(f, x), and not what a call of it returns"
            )
        refuse_asynchronous(function)
        key: object = getattr(function, "__func__", None) or getattr(function, "func", None)
        name = getattr(key, "__qualname__", None) or type(function).__qualname__
        known = self._callers.get(name)
        if known is None:
            known = self._new(name_of(function), self._dumps(invoke))
            self._callers[name] = known
        return known

    def _pickle(self, function: Any) -> PickledFunction:
        refuse_asynchronous(function)
        look_again()
        reload = reloads["last"]
        pickled = self._new(name_of(function), self._dumps(function))
        pickled.reads = reads_of(function)
        if any(blob.kind == MODULES for blob in blobs_of(pickled.data)):
            pickled.reads = pickled.reads or Reads()
            pickled.reads.watch(reloads, "last", reload)
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
            pickled = PickledFunction(self._next_id, name, data)
            self._next_id += 1
            self.bodies[pickled.id] = pickled
        return pickled
