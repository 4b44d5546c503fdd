"""Ctrl-C: the program ends, and so do its calls.

The processes of a process pool get the terminal's signal themselves, and what they run ends by it.
Ours run elsewhere, and would go on; so would the program, which waits for them at the end of
``with``, in `shutdown`, or as the interpreter ends. So a Ctrl-C that comes there, or that has
brought the program there, does what the terminal does in a process pool: calls that wait are
cancelled, those that run get SIGINT (and SIGKILL, where that does not end them), and the executor
is shut down. Another Ctrl-C gets out at once.

A `KeyboardInterrupt` that the program catches inside the ``with`` block changes nothing.

Threads are waited for by an event of ours: `threading.Thread.join` that a signal interrupts takes
the thread for ended, and does not wait for it any more (CPython before 3.13).
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .control import Terminate

if TYPE_CHECKING:
    from .manager import Manager

logger = logging.getLogger(__name__)

PATIENCE: Final = 5.0
"""Seconds for an executor to let go after a Ctrl-C."""


def wait_for(manager: Manager) -> None:
    """Wait until an executor has let go, in `shutdown`.

    Args:
        manager: of the executor.

    Raises:
        KeyboardInterrupt: somebody has pressed Ctrl-C meanwhile; the executor's calls were ended.
    """
    try:
        _wait(manager, None)
    except KeyboardInterrupt:
        leave(manager)
        raise


def leave(manager: Manager) -> None:
    """A Ctrl-C ends the program's use of an executor: end its calls, and wait until it lets go.

    Args:
        manager: of the executor.
    """
    with contextlib.suppress(KeyboardInterrupt):  # another one: out at once, with the first
        if _interrupt([manager]):
            _wait(manager, PATIENCE)


def wait_at_exit(managers: Iterable[Manager]) -> None:
    """Let executors finish as the interpreter ends, unless that is by Ctrl-C.

    A Ctrl-C that comes here cannot be raised: Python would show it as a traceback of ours. It ends
    the program all the same, as soon as everything else that is to be done at its end has been.

    Args:
        managers: of all executors.
    """
    waiting = [manager for manager in managers if not manager.interrupted]
    with contextlib.suppress(KeyboardInterrupt):  # the second one
        try:
            if _is_end_by_ctrl_c():
                _interrupt(waiting)
            for manager in waiting:
                manager.close()
            for manager in waiting:
                _wait(manager, PATIENCE if manager.interrupted else None)
        except KeyboardInterrupt:
            _end_as_by_ctrl_c()
            if _interrupt(waiting):
                for manager in waiting:
                    _wait(manager, PATIENCE)


def _end_as_by_ctrl_c() -> None:
    """Have the program end as one does that a `KeyboardInterrupt` has left: shells count that 130.

    Python notes that such an exception has left code that was given as text, and ends itself by
    SIGINT when all else is done. Nothing that runs at the end of a program can tell it otherwise.
    """
    with contextlib.suppress(KeyboardInterrupt):
        exec("raise KeyboardInterrupt")  # noqa: S102


def _is_end_by_ctrl_c() -> bool:
    """Whether a `KeyboardInterrupt` has ended the program; in a session it ends one statement."""
    last = getattr(sys, "last_type", None)  # what was shown last
    return last is not None and issubclass(last, KeyboardInterrupt) and not hasattr(sys, "ps1")


def _interrupt(managers: list[Manager]) -> bool:
    """End calls, and say so; returns whether there was any executor to do that for."""
    managers = [manager for manager in managers if not manager.interrupted]
    looks = [manager.statistics() for manager in managers if not manager.ended.is_set()]
    for manager in managers:
        manager.interrupted = True
        manager.close(cancel=True)
        manager.post(Terminate(signal.SIGINT, "Ctrl-C"))
    running, waiting = sum(look.in_flight for look in looks), sum(look.pending for look in looks)
    if running or waiting:
        logger.warning(
            "Ctrl-C: calls that pods have are ended: %d; calls that wait are cancelled: %d",
            running,
            waiting,
        )
    return bool(managers)


def _wait(manager: Manager, timeout: float | None) -> None:
    if manager.thread.ident is not None and manager.ended.wait(timeout):
        manager.thread.join()  # it has nothing more to do
