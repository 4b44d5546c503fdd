"""How an exception travels: with its traceback, cause, context, notes and group members."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import types
from typing import Any, Final, NamedTuple

from .place import Place
from .serialization import dumps, loads
from .tracebacks import entries, reduce_traceback

FIRST_FRAMES: Final = 20
LAST_FRAMES: Final = 60
"""Frames of a traceback that travel, at its two ends; an endless recursion has a thousand."""

NOTE: Final = "k8sfutures: raised in "
"""How the note begins that says where; an exception has one, of the innermost call."""


class Raised(NamedTuple):
    """What travels: an exception, and where it was raised."""

    error: BaseException
    place: Place


def words_of(error: BaseException) -> str:
    """Type and text of an exception, whose class may be the user's, and fail when asked."""
    try:
        text = str(error)
    except (Exception, SystemExit) as failure:
        text = f"(its text cannot be had: {type(failure).__name__})"
    return f"{type(error).__name__}: {text}"


def with_traceback(error: BaseException, traceback: types.TracebackType | None) -> None:
    """Give an exception a traceback, even one whose class lets no attribute be set.

    Args:
        error: a frozen data class, for one.
        traceback: what it gets.
    """
    BaseException.with_traceback(error, traceback)


def dumps_exception(error: BaseException, place: Place | None = None) -> bytes:
    """Pickle an exception with its traceback, cause, context, notes and group members.

    An exception whose constructor does not take its ``args`` is rebuilt without calling the
    constructor. One that cannot travel at all is described by a `ResultNotLoadable` that
    carries its traceback.

    Args:
        error: what the function raised.
        place: where, if that is to travel, too.

    Returns:
        Bytes for `loads`, which have been loaded once here to make sure: of the exception, or
        of a `Raised` where the place is given.
    """
    _teach_pickle(error)
    for one in all_of(error):
        _shorten(one)

    def pickled(what: Any) -> bytes:
        return dumps(what if place is None else Raised(what, place))

    try:
        data = pickled(error)
        loads(data)
    except BaseException as problem:
        try:
            data = pickled(_Bare(error))
            loads(data)
        except BaseException:
            described = _described(error, problem)
            try:
                return pickled(described)
            except BaseException:  # its traceback, too
                described.__traceback__ = None
                return pickled(described)
    return data


def say_where(error: BaseException, call: str, words: str, place: Place) -> None:
    """Note on an exception where it was raised, unless a call within that call has done so.

    Its attributes ``k8s_call``, ``k8s_pod``, ``k8s_node`` and ``k8s_cpu_id`` say it, too.

    Args:
        error: gets a note, which travels and stays with it.
        call: the call as its output is marked.
        words: the call in words.
        place: where it ran.
    """
    notes = getattr(error, "__notes__", ())
    with contextlib.suppress(Exception):  # it is the user's: no note is worth its result
        if not any(isinstance(note, str) and note.startswith(NOTE) for note in notes):
            pod, node, cpu_id = place
            error.add_note(f"{NOTE}{words} on pod {pod}, node {node}, CPU id {cpu_id}")
            for name, value in zip(("call", *Place._fields), (call, *place), strict=True):
                setattr(error, f"k8s_{name}", value)


class _BuiltinInits:
    """For tblib: constructors written in C take their ``args``, and set more than those."""

    def __contains__(self, init: object) -> bool:
        return isinstance(init, types.WrapperDescriptorType)


def _teach_pickle(error: BaseException) -> None:
    """Have the types of an exception, and of all that hang from it, pickled by tblib."""
    from tblib import pickling_support

    pickling_support.install(error)
    copyreg.pickle(types.TracebackType, reduce_traceback)
    reduce = functools.partial(pickling_support.pickle_exception, builtin_inits=_BuiltinInits())
    for one in all_of(error):
        if not isinstance(one, BaseExceptionGroup):
            copyreg.pickle(type(one), reduce)


def all_of(error: BaseException) -> list[BaseException]:
    """An exception, its causes and contexts, and the members of groups; each once.

    Args:
        error: comes first.
    """
    todo: list[BaseException | None] = [error]
    found: dict[int, BaseException] = {}
    while todo:
        one = todo.pop()
        if one is not None and id(one) not in found:
            found[id(one)] = one
            todo += (one.__cause__, one.__context__)
            if isinstance(one, BaseExceptionGroup):
                todo += one.exceptions
    return list(found.values())


def _shorten(error: BaseException) -> None:
    """Cut the middle out of a long traceback, as an endless recursion has."""
    frames = list(entries(error.__traceback__))
    if len(frames) > FIRST_FRAMES + LAST_FRAMES:
        frames[FIRST_FRAMES - 1].tb_next = frames[-LAST_FRAMES]
        left_out = len(frames) - FIRST_FRAMES - LAST_FRAMES
        with contextlib.suppress(Exception):  # its class is the user's, and may forbid it
            error.add_note(f"k8sfutures: {left_out} frames in the middle of the traceback left out")


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
    attributes |= {"__cause__": cause, "__context__": context, "__suppress_context__": suppress}
    for name, value in attributes.items():
        BaseException.__setattr__(error, name, value)  # its own class may forbid it
    with_traceback(error, traceback)
    return error


def _described(error: BaseException, problem: BaseException) -> BaseException:
    import traceback

    from .errors import ResultNotLoadable
    from .unpicklable import blame_exception

    blame_exception(problem, error)
    story = "".join(traceback.format_exception_only(error)).strip()
    described = ResultNotLoadable(
        f"the call raised {story!r}, and that exception cannot be pickled: "
        f"{type(problem).__name__}: {problem}"
    )
    described.__traceback__ = error.__traceback__
    _teach_pickle(described)
    return described
