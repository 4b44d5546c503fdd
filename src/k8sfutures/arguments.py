"""The arguments of an executor and of its `map`: checked as the standard library does."""

from __future__ import annotations

import math
import operator
import reprlib
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from .blobs import Blobs
from .functions import PickledFunction, name_of
from .unpicklable import blame


def check_arguments(
    max_workers: object, mp_context: object, initializer: object, max_tasks_per_child: object
) -> tuple[int | None, int | None]:
    """Refuse what no executor of ours can work with, as the standard library does.

    Args:
        max_workers: as for `K8sRabbitExecutor`; likewise the others.
        mp_context: must be None.
        initializer: must be callable, or None.
        max_tasks_per_child: must be positive, or None.

    Returns:
        ``max_workers`` and ``max_tasks_per_child`` as plain integers that can travel, or None.

    Raises:
        TypeError: one has the wrong type.
        ValueError: one has a value that cannot work.
    """
    for name, value in (("max_workers", max_workers), ("max_tasks_per_child", max_tasks_per_child)):
        if isinstance(value, bool):
            raise TypeError(f"{name} must be an integer or None, not {value!r}")
    workers = _whole("max_workers", max_workers)
    if workers is not None and workers <= 0:
        raise ValueError(f"max_workers must be greater than 0, not {workers}")
    tasks = _whole("max_tasks_per_child", max_tasks_per_child)
    if tasks is not None and tasks <= 0:
        raise ValueError(f"max_tasks_per_child must be >= 1, not {tasks}")
    if mp_context is not None:
        raise ValueError(
            f"mp_context must be None, not {mp_context!r}: calls run on pods, which "
            "multiprocessing does not start; leave it out"
        )
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")
    return workers, tasks


def check_future(future: object, owner: object) -> None:
    """Refuse what `K8sRabbitExecutor.cancel` cannot cancel.

    Args:
        future: what was given to it.
        owner: what its own Futures are marked with.

    Raises:
        TypeError: it is no Future.
        ValueError: it is one of another executor, or of none.
    """
    if not isinstance(future, Future):
        raise TypeError(
            f"cancel takes a Future that submit of this executor has returned, not a "
            f"{type(future).__name__}: {reprlib.repr(future)}"
        )
    if getattr(future, "_k8s_owner", None) is not owner:
        raise ValueError(
            f"{future!r} is not from submit of this executor; only the executor that it is from "
            "can cancel it"
        )


def check_map_arguments(
    fn: object, chunksize: object, buffersize: object, timeout: object
) -> tuple[int | None, int | None]:
    """Refuse what `map` cannot work with.

    Args:
        fn: as for `K8sRabbitExecutor.map`; likewise the others.
        chunksize: a positive integer, or None.
        buffersize: likewise.
        timeout: a number, or None; the clock looks at its type.

    Returns:
        Both as plain integers, or None: NumPy's will do, and True, as in the standard library.

    Raises:
        TypeError: one has the wrong type.
        ValueError: one has a value that cannot work.
    """
    if not callable(fn):
        raise TypeError(f"{fn!r} is not callable")
    items = _whole("chunksize", chunksize)
    if items is not None and items < 1:
        raise ValueError("chunksize must be >= 1.")
    ahead = _whole("buffersize", buffersize)
    if ahead is not None and ahead < 1:
        raise ValueError("buffersize must be None or > 0")
    if isinstance(timeout, float) and math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds or None, not nan")
    return items, ahead


def _whole(name: str, value: Any) -> int | None:
    try:
        return None if value is None else min(int(operator.index(value)), sys.maxsize)
    except TypeError:
        raise TypeError(f"{name} must be an integer or None, not {value!r}") from None


def pickled_initializer(
    blobs: Blobs, initializer: Callable[..., object] | None, initargs: Iterable[Any]
) -> PickledFunction | None:
    """What travels of an initializer.

    Args:
        blobs: of the executor.
        initializer: the user's, or None.
        initargs: its arguments.

    Returns:
        It with the pickled ``(function, args)``, or None.

    Raises:
        TypeError: the arguments are no tuple, nor anything else that can be gone through.
        Exception: what pickling them raised, with a note that says which it was.
    """
    if initializer is None:
        return None
    try:
        initargs = tuple(initargs)
    except TypeError:
        raise TypeError(
            f"initargs must be a tuple of arguments, as in initargs=(x,), not {initargs!r:.200}"
        ) from None
    try:
        pickled = blobs.dumps_initializer((initializer, initargs))
    except Exception as error:
        blame(error, initializer, initargs, {}, args_name="initargs")
        raise
    return PickledFunction(0, name_of(initializer), pickled)
