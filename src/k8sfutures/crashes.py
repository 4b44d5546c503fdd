"""What is known of a call, or an initializer, whose CPU process died: what its story becomes here.

The story, from the pod, is a msgpack map. That tells ``pod``, ``node``, ``cpu_id``, ``pid``,
``signal``, ``exitcode``, ``memory_peak``, ``memory_limit`` and ``out_of_memory``; then ``seconds``
(how long the call ran), ``output`` and ``stack`` (the last that it printed, and where Python was);
and, where the pod has ended the process, ``ended`` (why) and ``limit`` (seconds that the call could
have had).
"""

from __future__ import annotations

import signal
import textwrap
from typing import Any, Final

import msgpack

from .attempts import attempt_with, called, ending_in_words, in_words
from .errors import CallCancelled, CallTimeout, InitializerFailed, WorkerCrashed
from .messages import CANCELLED, TIMEOUT
from .pod_files import in_text

_FIELDS: Final = ("pod", "node", "cpu_id", "pid", "seconds", "memory_peak", "output", "stack")
_OF_CRASHES: Final = ("signal", "exitcode", "out_of_memory", "memory_limit")


def crash_of(
    body: bytes, function: str, index: int | None = None
) -> CallTimeout | CallCancelled | WorkerCrashed:
    """The exception for an outcome with the status `messages.CRASHED`.

    Args:
        body: of the outcome.
        function: name of what was called.
        index: of its item in a map, or None where it was submitted.

    Returns:
        What became of the call, with all that is known of it.
    """
    story = _story_of(body)
    call = function if index is None else called(function, index)
    error = _failure_of(story, call)
    if not isinstance(error, CallCancelled):  # else nobody is told
        error.attempts = (attempt_with(error, error.pod, 1),)  # what was before is not known here
    return error


def initializer_crash(body: bytes, name: str) -> InitializerFailed:
    """What an executor is broken by whose initializer has ended a CPU process.

    Args:
        body: a story.
        name: of the initializer.

    Returns:
        The failure; its cause is a `WorkerCrashed`, with all that is known.
    """
    story = _story_of(body)
    how = (
        f"{ending_in_words(story['signal'], story['exitcode'])} after {in_words(story['seconds'])}"
    )
    failure = InitializerFailed(
        f"the CPU process that ran the initializer {name} {how}"
        f"{_why(story, f'the initializer {name}')} ({_place(story)}); no call of this executor can "
        f"run{_last_words(story)}"
    )
    cause = WorkerCrashed(f"the CPU process {how}", **_known(story))
    failure.__cause__ = cause
    return failure


def _story_of(body: bytes) -> dict[str, Any]:
    story: dict[str, Any] = msgpack.unpackb(body)
    if story.get("stack"):
        # No frame of the user's is below its heading where the function itself is no Python.
        is_bare = story["stack"].rstrip().endswith("(most recent call first):")
        story["stack"] = "" if is_bare else in_text(story["stack"])
    return story


def _known(story: dict[str, Any]) -> dict[str, Any]:
    return {name: story[name] for name in (*_FIELDS, *_OF_CRASHES) if name in story}


def _failure_of(story: dict[str, Any], call: str) -> CallTimeout | CallCancelled | WorkerCrashed:
    known = {name: story[name] for name in _FIELDS if name in story}
    if story.get("ended") == TIMEOUT:
        limit = story.get("limit")
        ran = f" (it ran for {in_words(known['seconds'])})" if "seconds" in known else ""
        return CallTimeout(
            f"{call} was ended, as it ran for longer than timeout={limit:g} s{ran}; its CPU "
            f"process has been replaced ({_place(story)}){_last_words(story)}",
            timeout=limit,
            **known,
        )
    if story.get("ended") == CANCELLED:
        return CallCancelled(
            f"{call} was cancelled while it ran ({_place(story)})", pod=story.get("pod")
        )
    after = f" after {in_words(known['seconds'])}" if "seconds" in known else ""
    how = ending_in_words(story["signal"], story["exitcode"])
    return WorkerCrashed(
        f"the CPU process that ran {call} {how}{after}{_why(story, 'the call')} "
        f"({_place(story)}); "
        f"no other call is affected, and the process has been replaced{_last_words(story)}",
        **_known(story),
    )


def _place(story: dict[str, Any]) -> str:
    node = f", node {story['node']}" if story.get("node") else ""
    return f"pod {story['pod']}{node}, CPU id {story['cpu_id']}, pid {story['pid']}"


def _why(story: dict[str, Any], what: str) -> str:
    peak = story.get("memory_peak")
    had = f" (this process had {peak >> 20} MiB at its peak)" if peak else ""
    if story.get("out_of_memory"):
        limit = story.get("memory_limit")
        of = "" if limit is None else f" of {limit >> 20} MiB"
        return (
            f" by the kernel, because the memory{of} of its pod was used up{had}: give pods more "
            "(setting memory), have fewer calls at once in each (worker_processes), or let calls "
            "use less"
        )
    number = story["signal"]
    if number == signal.SIGKILL:
        return f"; out of memory{had}, or killed by someone?"
    return _HINTS.get(number, "") if number is not None else _EXIT_HINT.format(what)


def _last_words(story: dict[str, Any]) -> str:
    words = ""
    if story.get("stack"):
        words += f". Where it was:\n{textwrap.indent(story['stack'], '    ')}"
    if story.get("output"):
        end = "\n" if words else ". "
        words += f"{end}What it printed last:\n{textwrap.indent(story['output'], '    ')}"
    return words


_EXIT_HINT = "; did {} end its process, with os._exit for one?"
_HINTS = {
    signal.SIGSEGV: "; a crash in native code?",
    signal.SIGABRT: "; an abort in native code?",
    signal.SIGBUS: "; a crash in native code, or a full /dev/shm?",
}
