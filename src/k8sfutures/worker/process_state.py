"""What Python and the kernel keep for a whole process, each client's own in a CPU process.

A client that leaves a process at the end of its turn finds it at its next one as it was; another
does not find its handler of SIGINT, its umask or its random numbers. What libraries keep (their
options, and what was put in place of their functions) is as the last client has left it, and so
is what the kernel does not take back: a hard limit that was lowered, niceness.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import locale
import os
import random
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple

_SIGNALS: Final = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGPIPE, signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD, signal.SIGCONT),
    *(signal.SIGWINCH, signal.SIGVTALRM, signal.SIGPROF),
)
"""Those that programs handle. The faults are `faulthandler`'s."""

_getsignal: Final[Callable[[int], Any]] = importlib.import_module("_signal").getsignal
"""That of `signal` makes enums of what it returns, which takes as long as all the rest."""

_TIMERS: Final = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF

_LIMITS: Final = tuple(
    sorted({getattr(resource, name) for name in dir(resource) if name.startswith("RLIMIT_")})
)

_HOOKS: Final = (
    *((sys, name) for name in ("stdin", "excepthook", "unraisablehook", "displayhook")),
    (threading, "excepthook"),
)


class Kept(NamedTuple):
    """One thing that is kept for the process.

    Attributes:
        read: what it is.
        write: make it this; after it was read.
    """

    read: Callable[[], Any]
    write: Callable[[Any], object]


State = list[Any]
"""The value of each of `_KEPT`."""


def _handlers() -> tuple[Any, ...]:
    return tuple([_getsignal(number) for number in _SIGNALS])


def _set_handlers(wanted: tuple[Any, ...]) -> None:
    for number, handler in zip(_SIGNALS, wanted, strict=True):
        if handler is not None and _getsignal(number) is not handler:
            signal.signal(number, handler)


def _stop_timers() -> tuple[tuple[float, float], ...]:
    """What is left of them: one must not go off in the turn of another."""
    return tuple([signal.setitimer(which, 0) for which in _TIMERS])


def _start_timers(wanted: tuple[tuple[float, float], ...]) -> None:
    for which, (seconds, interval) in zip(_TIMERS, wanted, strict=True):
        if seconds:
            signal.setitimer(which, seconds, interval)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _set_locale(wanted: str) -> None:
    with contextlib.suppress(locale.Error):  # C code has set what no name says
        locale.setlocale(locale.LC_ALL, wanted)


def _enable_faulthandler(wanted: bool) -> None:
    if wanted:
        faulthandler.enable(file=2)
    else:
        faulthandler.disable()


def _limits() -> tuple[tuple[int, int], ...]:
    return tuple([resource.getrlimit(which) for which in _LIMITS])


def _set_limits(wanted: tuple[tuple[int, int], ...]) -> None:
    for which, (soft, hard) in zip(_LIMITS, wanted, strict=True):
        most = resource.getrlimit(which)[1]
        if resource.getrlimit(which) == (soft, hard):
            continue
        try:
            resource.setrlimit(which, (soft, hard))
        except (OSError, ValueError):  # the hard limit was lowered, for good
            fits = soft != resource.RLIM_INFINITY and soft < most
            resource.setrlimit(which, (soft if fits else most, most))


def _hooks() -> tuple[Any, ...]:
    return tuple([getattr(module, name, None) for module, name in _HOOKS])


def _set_hooks(wanted: tuple[Any, ...]) -> None:
    for (module, name), value in zip(_HOOKS, wanted, strict=True):
        setattr(module, name, value)


def _set_random(state: Any) -> None:
    if state is None:
        random.seed()
    else:
        random.setstate(state)


def _numpy_random() -> Any:
    """The generator behind ``numpy.random.random`` and the like, where NumPy can exchange it."""
    module: Any = sys.modules.get("numpy.random")
    return module.get_bit_generator() if hasattr(module, "get_bit_generator") else None


def _set_numpy_random(generator: Any) -> None:
    module: Any = sys.modules.get("numpy.random")
    if hasattr(module, "set_bit_generator"):
        module.set_bit_generator(module.MT19937() if generator is None else generator)


_KEPT: Final = (
    # Timers last: their handlers are in place then.
    Kept(_handlers, _set_handlers),
    Kept(_umask, os.umask),
    Kept(lambda: locale.setlocale(locale.LC_ALL), _set_locale),
    Kept(_limits, _set_limits),
    Kept(lambda: os.sched_getaffinity(0), lambda cpus: os.sched_setaffinity(0, cpus)),
    Kept(sys.getrecursionlimit, sys.setrecursionlimit),
    Kept(sys.getswitchinterval, sys.setswitchinterval),
    Kept(sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    Kept(socket.getdefaulttimeout, socket.setdefaulttimeout),
    Kept(gc.isenabled, lambda on: gc.enable() if on else gc.disable()),
    Kept(faulthandler.is_enabled, _enable_faulthandler),
    Kept(_hooks, _set_hooks),
    Kept(random.getstate, _set_random),
    Kept(_numpy_random, _set_numpy_random),
    Kept(_stop_timers, _start_timers),
)
_SEEDED: Final = (random.getstate, _numpy_random)


def read() -> State:
    """What is kept now. Timers do not run any more, before `write`."""
    return [one.read() for one in _KEPT]


def unseeded(state: State) -> State:
    """The same, with random numbers that nobody has had."""
    return [None if one.read in _SEEDED else value for one, value in zip(_KEPT, state, strict=True)]


_WRITTEN_ALWAYS: Final = (_enable_faulthandler, _start_timers)
"""They run into another's file or not at all, though what was read of them is the same."""


def write(wanted: State, now: State) -> None:
    """Have the process keep this.

    Args:
        wanted: from `read`.
        now: likewise, of just now.
    """
    for one, value, before in zip(_KEPT, wanted, now, strict=True):
        if value is None or value != before or one.write in _WRITTEN_ALWAYS:
            one.write(value)
