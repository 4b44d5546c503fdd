"""How an exception travels: with its traceback, cause, context, notes and group members."""

from __future__ import annotations

import copyreg
import functools
import types
from typing import Any

from .serialization import dumps, loads


def dumps_exception(error: BaseException) -> bytes:
    """Pickle an exception with its traceback, cause, context, notes and group members.

    An exception whose constructor does not take its ``args`` is rebuilt without calling the
    constructor. One that cannot travel at all is described by a `ResultNotLoadable` that
    carries its traceback.

    Args:
        error: what the function raised.

    Returns:
        Bytes for `loads`, which have been loaded once here to make sure.
    """
    _teach_pickle(error)
    try:
        data = dumps(error)
        loads(data)
    except BaseException as problem:
        try:
            data = dumps(_Bare(error))
            loads(data)
        except BaseException:
            return _described(error, problem)
    return data


class _BuiltinInits:
    """For tblib: constructors written in C take their ``args``, and set more than those."""

    def __contains__(self, init: object) -> bool:
        return isinstance(init, types.WrapperDescriptorType)


def _teach_pickle(error: BaseException) -> None:
    """Have the types of an exception, and of all that hang from it, pickled by tblib."""
    from tblib import pickling_support

    pickling_support.install(error)
    reduce = functools.partial(pickling_support.pickle_exception, builtin_inits=_BuiltinInits())
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        some = todo.pop()
        if some is not None and id(some) not in seen:
            seen.add(id(some))
            if isinstance(some, BaseExceptionGroup):
                todo += some.exceptions
            else:
                copyreg.pickle(type(some), reduce)
            todo += (some.__cause__, some.__context__)


class _Bare:
    """Pickles an exception as its class and attributes, so that no constructor is called."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        error = self._error
        attributes = {"__dict__": error.__dict__, "args": error.args}
        members = error.args[:2] if isinstance(error, BaseExceptionGroup) else ()
        return _rebuild, (
            type(error),
            members,
            attributes,
            error.__traceback__,
            error.__cause__ and _Bare(error.__cause__),
            error.__context__ and _Bare(error.__context__),
            error.__suppress_context__,
        )


def _rebuild(
    cls: type[BaseException],
    members: tuple[Any, ...],
    attributes: dict[str, Any],
    traceback: types.TracebackType | None,
    cause: BaseException | None,
    context: BaseException | None,
    suppress: bool,
) -> BaseException:
    error = cls.__new__(cls, *members)
    for name, value in attributes.items():
        setattr(error, name, value)
    error.__traceback__ = traceback
    error.__cause__ = cause
    error.__context__ = context
    error.__suppress_context__ = suppress
    return error


def _described(error: BaseException, problem: BaseException) -> bytes:
    import traceback

    from tblib import pickling_support

    from .errors import ResultNotLoadable

    story = "".join(traceback.format_exception_only(error)).strip()
    described = ResultNotLoadable(
        f"the call raised {story!r}, and that exception cannot be pickled: "
        f"{type(problem).__name__}: {problem}"
    )
    described.__traceback__ = error.__traceback__
    pickling_support.install(described)
    return dumps(described)
