"""What to say of a call or a result that cannot be pickled: the path to the object.

Only after a failure, the part that fails is pickled once more, with the pickler that is written in
Python, since that tells what it was at. What it went through gets a name: an attribute, an item, a
global that a function reads. No code of the user's runs for it but what pickling itself calls.

It is named as far as what it goes through says something to the user: of a Future, and not of the
lock in it.
"""

from __future__ import annotations

import contextlib
import functools
import pickle
import time
import types
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from .advice import advice_on, name_of_class
from .definitions import Reducers, dispatch_table
from .fingerprints import ATOMS, LruCacheWrapper
from .functions import name_of
from .serialization import PROTOCOL, _by_value
from .values import dataclass

SECONDS: Final = 2.0
"""How long the search may take."""

_STEPS: Final = 12
"""How many names a path has at most at its beginning; the end is always there."""

_PLAIN: Final = frozenset(
    {TypeError, pickle.PicklingError, AttributeError, ValueError, RuntimeError, NotImplementedError}
)
"""Errors whose text may begin with the path. Others may be the user's, with args of their own."""


def blame(
    error: BaseException,
    function: object,
    args: Any,
    kwargs: Any,
    *,
    args_name: str = "args",
) -> None:
    """Say in a pickling error where in the call the object is that cannot be pickled.

    Args:
        error: what pickling the whole call raised; its text gets the path, and it gets a note.
        function: what was submitted, or its name.
        args: its positional arguments.
        kwargs: its keyword arguments.
        args_name: what to call them.
    """
    name = name_of(function)
    parts = [] if isinstance(function, str) else [(name, function)]
    parts += [(f"{args_name}[{index}]", value) for index, value in enumerate(args)]
    parts += [(f"kwargs[{key!r}]", value) for key, value in kwargs.items()]
    deadline = time.monotonic() + SECONDS
    for root, value in parts:
        found = _find(value, deadline)
        if found is not None:
            what = f"the call to {name}" if root != name else f"the function {name}"
            _tell(error, found, root, what)
            return


def blame_result(error: BaseException, function: object, value: object) -> None:
    """Say in a pickling error where in a result the object is that cannot be pickled.

    Args:
        error: what pickling the result raised; its text gets the path, and it gets a note.
        function: what returned it.
        value: the result.
    """
    found = _find(value, time.monotonic() + SECONDS)
    if found is not None:
        what = f"what {name_of(function)} returned"
        _tell(error, found, "result", what, back=True)
    if isinstance(value, types.CoroutineType):
        value.close()  # or Python warns that nobody has awaited it


def blame_exception(error: BaseException, raised: BaseException) -> None:
    """Say in a pickling error where in an exception the object is that cannot be pickled.

    Args:
        error: what pickling the exception raised; its text gets the path.
        raised: the exception.
    """
    found = _find([raised.args, vars(raised)], time.monotonic() + SECONDS)
    if found is not None:
        name = type(raised).__name__
        whole = _Found([raised, *found.chain[2:]], found.error)
        _tell(error, whole, name, f"the exception {name}", back=True)


def _tell(error: BaseException, found: _Found, root: str, what: str, *, back: bool = False) -> None:
    chain = found.chain
    if type(error) in _PLAIN and len(error.args) == 1:
        why = str(found.error if type(found.error) in _PLAIN else error)
        known = ((at, advice_on(it)) for at, it in enumerate(chain))
        at, advice = next((one for one in known if one[1] is not None), (len(chain) - 1, None))
        if at < len(chain) - 1:
            why = f"cannot pickle {name_of_class(type(chain[at]))!r} object"
        if advice is not None:
            why += f"; {advice.why}: {advice.back if back else advice.give}"
        error.args = (f"{root}{path(chain[: at + 1])}: {why}",)
    kind = type(chain[-1]).__qualname__
    where = root + path(chain)
    with contextlib.suppress(Exception):  # its class is the user's, and may forbid it
        error.add_note(f"k8sfutures: {where} of {what}, of type {kind!r}, cannot be pickled")


# --- what the pickler was at


class _TookTooLong(Exception):
    pass


class _Nowhere:
    def write(self, data: object) -> None:
        """Keep nothing."""


@dataclass(frozen=True, slots=True)
class _Found:
    """From an object to the one in it that cannot be pickled, and why that one cannot."""

    chain: list[Any]
    error: BaseException


_Pickler: Final[Any] = pickle._Pickler  # noqa: SLF001
_ATOMS: Final = frozenset({*ATOMS, float, complex})


class _Tracer(Reducers, _Pickler):  # type: ignore[misc]
    """Pickles into nothing, and keeps in `chain` what it is in the middle of."""

    # dill adds to that of everyone.
    dispatch: ClassVar[Any] = {
        kind: save for kind, save in _Pickler.dispatch.items() if save.__module__ == "pickle"
    } | {types.FunctionType: _Pickler.save_global, type: _Pickler.save_type}

    def __init__(self, deadline: float) -> None:
        super().__init__(_Nowhere(), PROTOCOL, buffer_callback=lambda _: None)
        self.dispatch_table = dispatch_table()
        self.chain: list[Any] = []
        self._deadline = deadline

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if type(obj) in _ATOMS:
            return
        if time.monotonic() > self._deadline:
            raise _TookTooLong
        self.chain.append(obj)
        _Pickler.save(self, obj, save_persistent_id)
        self.chain.pop()

    def _batch_appends(self, items: Any, *args: Any) -> None:
        few = [item for item in items if type(item) not in _ATOMS]
        _Pickler._batch_appends(self, few, *args)  # noqa: SLF001


def _find(value: object, deadline: float) -> _Found | None:
    """What in an object cannot be pickled; None if all of it can, or if it takes too long."""
    tracer = _Tracer(deadline)
    try:
        with _by_value():
            tracer.dump(value)
    except _TookTooLong:
        return None
    except BaseException as error:  # even SystemExit: this only looks for the culprit
        return _Found(tracer.chain or [value], error)
    return None


# --- names for it


def path(chain: list[Any]) -> str:
    """Name the way from the first object of a chain to the last.

    Args:
        chain: each was pickled as a part of the one before; what pickling has made for the moment
            is among them, and gets no name where the object behind it has one.

    Returns:
        ``.session.connection``, for one; "" if it is the first object itself.
    """
    steps: list[str] = []
    at = 0
    while at < len(chain) - 1:
        step, at = _step(chain, at)
        if step:
            steps.append(step)
    if len(steps) > _STEPS + 1:
        steps[_STEPS:-1] = ["…"]
    return "".join(steps)


def _step(chain: list[Any], at: int) -> tuple[str, int]:
    kind = type(chain[at])
    parts = {id(kind): f" → class {kind.__qualname__}"}
    for name, value in _parts(chain[at]):
        parts.setdefault(id(value), name)
    for to in range(at + 1, min(at + 8, len(chain))):
        if id(chain[to]) in parts:
            return parts[id(chain[to])], to
    here, following = chain[at], chain[at + 1]
    if isinstance(following, dict) and at + 2 < len(chain) and not isinstance(here, dict):
        # What __getstate__ has made of the attributes.
        for name, value in following.items():
            if value is chain[at + 2] and isinstance(name, str):
                return f".{name}", at + 2
    return "", at + 1


def _parts(it: Any) -> Iterator[tuple[str, object]]:
    """The named parts of an object, without running its code."""
    kind = type(it)
    if isinstance(it, tuple):
        fields = getattr(kind, "_fields", None)
        for index, value in enumerate(tuple.__iter__(it)):
            named = isinstance(fields, tuple) and index < len(fields)
            yield f".{fields[index]}" if named and fields else f"[{index}]", value
    elif isinstance(it, list):
        yield from ((f"[{index}]", value) for index, value in enumerate(list.__iter__(it)))
    elif isinstance(it, dict):
        for key, value in dict.items(it):
            yield _key(key), value
            yield f" → key {_short(key)}", key
    elif isinstance(it, set | frozenset):
        yield from ((f" → item {_short(value)}", value) for value in kind.__iter__(it))
    if isinstance(it, types.FunctionType):
        yield from _parts_of_function(it)
    elif isinstance(it, type):
        yield from ((f".{name}", value) for name, value in vars(it).items())
    elif isinstance(it, functools.partial):
        yield ".func", it.func
        yield from ((f".args[{index}]", value) for index, value in enumerate(it.args))
        yield from ((f".keywords{_key(name)}", value) for name, value in it.keywords.items())
    elif isinstance(it, types.MethodType):
        yield ".__self__", it.__self__
        yield ".__func__", it.__func__
    elif isinstance(it, staticmethod | classmethod | LruCacheWrapper):
        yield "", it.__wrapped__
    elif isinstance(it, property):
        yield from (("", one) for one in (it.fget, it.fset, it.fdel))
    else:
        if isinstance(it, BaseException):
            yield from ((f".args[{index}]", value) for index, value in enumerate(it.args))
        yield from _attributes(it)


def _parts_of_function(function: types.FunctionType) -> Iterator[tuple[str, object]]:
    code = function.__code__
    names = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    for name, value in zip(names[len(names) - len(defaults) :], defaults, strict=False):
        yield f" → default of {name}", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f" → default of {name}", value
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" → variable {name}", cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    yield from ((f".{name}", value) for name, value in vars(function).items())
    for name, value in function.__globals__.items():
        yield f" → global {name}", value


def _attributes(it: object) -> Iterator[tuple[str, object]]:
    try:
        own = object.__getattribute__(it, "__dict__")
    except AttributeError:
        own = {}
    if isinstance(own, dict):
        yield from ((f".{name}", value) for name, value in own.items())
    for base in type(it).__mro__:
        for name, slot in vars(base).items():
            if isinstance(slot, types.MemberDescriptorType):
                try:
                    yield f".{name}", slot.__get__(it)
                except AttributeError:  # not assigned
                    continue


def _key(key: object) -> str:
    return f"[{_short(key)}]"


def _short(it: object) -> str:
    """A name for a key: only what Python itself writes, for a user's may fail."""
    if type(it) in (str, int, bytes, bool, float, type(None)):
        text = repr(it)
        return text if len(text) <= 40 else f"{text[:37]}…"
    return f"<{type(it).__qualname__}>"
