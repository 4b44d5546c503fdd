"""The arguments of an executor and of its `map`: checked as the standard library does."""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from .blobs import Blobs
from .functions import PickledFunction, name_of
from .unpicklable import blame


def check_arguments(
    max_workers: object, mp_context: object, initializer: object, max_tasks_per_child: object
) -> None:
    """Refuse what no executor of ours can work with, as the standard library does.

    Args:
        max_workers: as for `K8sRabbitExecutor`; likewise the others.
        mp_context: must be None.
        initializer: must be callable, or None.
        max_tasks_per_child: must be positive, or None.

    Raises:
        TypeError: one has the wrong type.
        ValueError: one has a value that cannot work.
    """
    for name, value in (("max_workers", max_workers), ("max_tasks_per_child", max_tasks_per_child)):
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be an integer or None, not {value!r}")
        if value <= 0:
            raise ValueError(
                f"{name} must be greater than 0, not {value}"
                if name == "max_workers"
                else f"{name} must be >= 1, not {value}"
            )
    if mp_context is not None:
        raise ValueError(
            f"mp_context must be None, not {mp_context!r}: calls run on pods, which "
            "multiprocessing does not start; leave it out"
        )
    if initializer is not None and not callable(initializer):
        raise TypeError("initializer must be a callable")


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


def check_map_arguments(fn: object, chunksize: object, buffersize: object) -> None:
    """Refuse what `map` cannot work with.

    Args:
        fn: as for `K8sRabbitExecutor.map`; likewise the others.
        chunksize: a positive integer, or None.
        buffersize: likewise.

    Raises:
        TypeError: one has the wrong type.
        ValueError: one has a value that cannot work.
    """
    if not callable(fn):
        raise TypeError(f"{fn!r} is not callable")
    if chunksize is not None:
        if not isinstance(chunksize, int):
            raise TypeError(f"chunksize must be an integer or None, not {chunksize!r}")
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
    if buffersize is not None:
        if not isinstance(buffersize, int):
            raise TypeError("buffersize must be an integer or None")
        if buffersize < 1:
            raise ValueError("buffersize must be None or > 0")


def pickled_initializer(
    blobs: Blobs, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]
) -> PickledFunction | None:
    """What travels of an initializer.

    Args:
        blobs: of the executor.
        initializer: the user's, or None.
        initargs: its arguments.

    Returns:
        It with the pickled ``(function, args)``, or None.

    Raises:
        Exception: what pickling them raised, with a note that says which it was.
    """
    if initializer is None:
        return None
    try:
        pickled = blobs.dumps_initializer((initializer, initargs))
    except Exception as error:
        blame(error, initializer, initargs, {}, args_name="initargs")
        raise
    return PickledFunction(0, name_of(initializer), pickled)
