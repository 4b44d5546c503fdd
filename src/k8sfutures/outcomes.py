"""From the body of an outcome to what the user gets: a value, or an exception."""

from __future__ import annotations

import contextlib
import itertools
import logging
import pickle
import platform
import threading
from typing import Any, Final

from .attempts import called
from .bodies import loads, unpacked
from .chunks import Whole
from .crashes import crash_of, initializer_crash
from .errors import (
    CallNotLoadable,
    ExecutorBroken,
    InitializerFailed,
    ResultNotLoadable,
    ThreadDied,
)
from .exceptions import Raised, all_of, say_where, with_traceback, words_of
from .messages import CRASHED, NOT_LOADABLE, RESULT, NotInitialized
from .missing import explain
from .pod_files import in_error
from .tracebacks import alone

LONGEST_NAME: Final = 40


def loaded(body: bytes | None, function: str, index: int | None = None) -> Any:
    """Unpickle a result.

    Args:
        body: from the outcome.
        function: name of what returned it.
        index: of its item in a map, or None where it was submitted.

    Raises:
        ResultNotLoadable: it cannot be unpickled here; the cause says why.
    """
    try:
        return _loads(body or b"")
    except BaseException as error:  # a result's own code runs here, and may even exit
        if isinstance(error, KeyboardInterrupt) and _in_main_thread():
            raise  # somebody has pressed Ctrl-C
        raise ResultNotLoadable(
            f"what {function if index is None else called(function, index)} returned or raised "
            f"cannot be unpickled here: {words_of(error)}"
        ) from error


def _loads(body: bytes) -> Any:
    if not isinstance(body, Whole):
        return pickle.loads(body)
    _, _, sizes = unpacked(body)
    memory, ends = memoryview(body.memory), list(itertools.accumulate(sizes))
    return loads(body, lambda part: memory[ends[part] - sizes[part] : ends[part]])


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def mark_of(function: str, call: int, index: int | None = None) -> str:
    """What to call a call in what it prints: ``simulate#12``, or ``simulate[3]`` in a map.

    Args:
        function: its qualified name.
        call: its id.
        index: of its item in a map, or None where it was submitted.
    """
    name = function.rpartition("<locals>.")[2].replace("<lambda>", "lambda")[-LONGEST_NAME:]
    return f"{name}#{call}" if index is None else f"{name}[{index}]"


def failure_of(
    status: int, body: bytes | None, function: str, call: int = 0, index: int | None = None
) -> BaseException:
    """The exception for an outcome that is not a result.

    Args:
        status: of the outcome.
        body: of the outcome.
        function: name of what was called.
        call: id of the call.
        index: of its item in a map, or None where it was submitted.

    Returns:
        What the function raised, or what became of the call.
    """
    if status == CRASHED:
        return crash_of(body or b"", function, index)
    try:
        error = loaded(body, function, index)
    except ResultNotLoadable as not_loadable:
        stand_alone(not_loadable)
        return not_loadable
    failure: BaseException
    place = None
    if isinstance(error, Raised):
        error, place = error
    if not isinstance(error, BaseException):
        return ResultNotLoadable(
            f"{called(function, index)} raised what is not an exception here, but a "
            f"{type(error).__qualname__}"
        )
    _at_home(error)
    if status == NOT_LOADABLE:
        failure = CallNotLoadable(
            f"the pod could not unpickle {called(function, index)}: {words_of(error)}"
        )
        failure.__cause__ = error
    else:
        failure = error
    missing = explain(error, here=place is not None and place.node == platform.node())
    if missing is not None:
        with contextlib.suppress(Exception):  # its class is the user's, and may forbid it
            failure.add_note(f"k8sfutures: {missing}")
    if place is not None:
        words = f"call {call} of" if index is None else f"item {index} of the map of"
        say_where(failure, mark_of(function, call, index), f"{words} {function}", place)
    return failure


def outcome_of(
    status: int, body: bytes | None, function: str, call: int
) -> tuple[Any, BaseException | None]:
    """What the Future of a submitted call gets: its result and None, or None and its exception.

    Args:
        status: of the outcome.
        body: of the outcome.
        function: name of what was called.
        call: id of the call.
    """
    if status != RESULT:
        return None, failure_of(status, body, function, call)
    try:
        return loaded(body, function), None
    except ResultNotLoadable as error:
        stand_alone(error)
        return None, error


# --- exceptions that hold nothing but themselves


def initializer_failure(message: NotInitialized, pod: str, name: str) -> InitializerFailed:
    """What an executor whose initializer has failed is broken by; an exception is logged, too.

    Args:
        message: of the pod.
        pod: which.
        name: of the initializer.

    Returns:
        The failure, with the exception as its cause, or with a `WorkerCrashed`.
    """
    if message.status == CRASHED:
        return initializer_crash(message.body, name)
    try:
        cause = loaded(message.body, f"the initializer {name}")
    except ResultNotLoadable as error:
        cause = error
    _at_home(cause)
    # Where, and in which words, the standard library logs it.
    logging.getLogger("concurrent.futures").critical("Exception in initializer:", exc_info=cause)
    failure = InitializerFailed(
        f"the initializer {name} raised {words_of(cause)} (pod {pod}, CPU id {message.cpu_id})"
    )
    failure.__cause__ = cause
    missing = explain(cause)
    if missing is not None:
        failure.add_note(f"k8sfutures: {missing}")
    return failure


def thread_died(name: str, error: BaseException) -> ThreadDied:
    """What every Future fails with when a thread of the client has failed.

    Args:
        name: of the thread.
        error: what it failed with; becomes the cause.
    """
    died = ThreadDied(f"the {name} thread failed: {type(error).__name__}: {error}")
    died.__cause__ = error
    return died


def broken_by(name: str, error: BaseException) -> ExecutorBroken:
    """What every Future fails with when a thread of the client has given up.

    Args:
        name: of the thread.
        error: why: a reason that the user can do something about, or what it failed with.
    """
    return error if isinstance(error, ExecutorBroken) else thread_died(name, error)


def once_more(error: ExecutorBroken) -> ExecutorBroken:
    """The reason why the executor is broken, for one more to raise: with a traceback of its own.

    Args:
        error: that reason.

    Returns:
        A copy of it, which no other Future has.
    """
    copy = type(error)(*error.args)
    copy.__dict__.update(error.__dict__)
    copy.__cause__ = error.__cause__
    return copy


def _at_home(error: BaseException) -> None:
    """Let what was raised on a pod stand alone, and name the files of this client."""
    stand_alone(error)
    for one in all_of(error):
        with contextlib.suppress(Exception):  # its class is the user's, and may forbid it
            in_error(one)


def stand_alone(error: BaseException) -> None:
    """Let an exception keep its traceback, and no frame of whoever has made or loaded it.

    A frame keeps its caller's, and so every variable there: an exception in a Future would keep
    alive, for as long as anyone has it, the messages that came with it and the executor.

    Args:
        error: gets a traceback of frames without callers or variables; so do its cause, its
            context, and the members of a group.
    """
    for one in all_of(error):
        with_traceback(one, alone(one.__traceback__))
