"""What was meant by a name that nothing has: for errors about settings and arguments."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Final

ARGUMENTS: Final = ("max_workers", "mp_context", "initializer", "initargs", "max_tasks_per_child")
"""Of the executor, and no settings: they cannot come from the environment or from a file."""

_OF_OPTIONS: Final = ("retries", "retry_on", "timeout")

_ELSEWHERE: Final = {
    "timeout": "How long a call may run is chosen with ex.options(timeout=...); how long calls "
    "wait for the first pod is startup_timeout.",
    "retry_on": "What a call runs again for is chosen with ex.options(retry_on=...).",
    "chunksize": "It is an argument of map.",
    "buffersize": "It is an argument of map.",
}


def suggestion(name: str, settings: Collection[str], *, keyword: bool = False) -> str:
    """What to say of a name that is no setting.

    Args:
        name: what was given.
        settings: the names of all settings.
        keyword: whether it was given to the executor, which has other arguments, too.

    Returns:
        A sentence with a space before it.
    """
    if name in ARGUMENTS:
        return f" {name} is an argument of K8sRabbitExecutor, and no setting."
    if name in _ELSEWHERE:
        return f" {_ELSEWHERE[name]}"
    known = [*settings, *(ARGUMENTS if keyword else ())]
    near = difflib.get_close_matches(name, known, 1)
    return f" Did you mean {near[0]!r}?" if near else f" There are: {', '.join(known)}."


def refuse_unknown_options(unknown: Collection[str]) -> None:
    """Refuse keyword arguments that `K8sRabbitExecutor.options` does not have.

    Args:
        unknown: their names; none is as it should be.

    Raises:
        TypeError: it names the first of them, and what was meant.
    """
    for name in unknown:
        near = difflib.get_close_matches(name, _OF_OPTIONS, 1)
        hint = f"Did you mean {near[0]!r}?" if near else f"There are: {', '.join(_OF_OPTIONS)}."
        raise TypeError(f"options() got an unexpected keyword argument {name!r}. {hint}")
