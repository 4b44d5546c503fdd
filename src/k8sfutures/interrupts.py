"""Ctrl-C while calls run: the first one is answered, the second one ends them.

A process pool's calls get the terminal's signal themselves; ours run elsewhere. So a program that
was interrupted waits for them, in ``with``, in `shutdown` or at the interpreter's exit, and whoever
has pressed the keys sees nothing happen. One line says what it waits for (a log record, level
WARNING: where logging is not set up, that is a line on stderr), and another Ctrl-C ends what runs.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from .control import Terminate

if TYPE_CHECKING:
    from .manager import Manager

logger = logging.getLogger(__name__)

END_TIMEOUT: Final = 10.0
"""Seconds for an executor to let go of calls that are to end."""


def note(manager: Manager, kind: type[BaseException] | None) -> None:
    """A ``with`` block has ended.

    Args:
        manager: of its executor.
        kind: what has ended it, if it was an exception.
    """
    if kind is not None and issubclass(kind, KeyboardInterrupt):
        manager.interrupted = True
        _say([manager])


def wait_for(manager: Manager) -> None:
    """Wait until an executor has let go, in `shutdown`.

    Raises:
        KeyboardInterrupt: somebody has pressed Ctrl-C meanwhile. Where it was not the first one,
            what ran has been ended.
    """
    try:
        manager.thread.join()
    except KeyboardInterrupt:
        if manager.interrupted:
            _end([manager])
        manager.interrupted = True
        raise


def wait_at_exit(managers: Iterable[Manager]) -> None:
    """Wait until all executors have let go, as the interpreter ends.

    A Ctrl-C that comes here cannot be raised any more: Python would show it as a traceback of
    ours. The first one is answered, the next one ends what runs.
    """
    waiting = list(managers)
    interrupted = any(manager.interrupted for manager in waiting)
    # Of what has ended the program (or, in a session, has been shown last).
    last = getattr(sys, "last_type", None)
    if interrupted or (last is not None and issubclass(last, KeyboardInterrupt)):
        interrupted = True
        _say(waiting)
    while waiting:
        try:
            waiting[-1].thread.join()
            waiting.pop()
        except KeyboardInterrupt:
            if interrupted:
                # Once more, and the interpreter shows it and ends: it has been patient enough.
                _end(waiting)
                return
            interrupted = True
            _say(waiting)


def _say(managers: Iterable[Manager]) -> None:
    """Say what is waited for, once for each executor."""
    count = 0
    for manager in managers:
        if not manager.told_to_wait and manager.thread.is_alive():
            manager.told_to_wait = True
            look = manager.statistics()
            count += look.pending + look.in_flight
    if count:
        calls = "1 call" if count == 1 else f"{count} calls"
        logger.warning("waiting for %s to end; press Ctrl-C again to end what runs", calls)


def _end(managers: Iterable[Manager]) -> None:
    """End what runs, and what waits."""
    managers = list(managers)
    for manager in managers:
        manager.close(cancel=True)
        manager.post(Terminate(signal.SIGKILL, "Ctrl-C"))
    deadline = time.monotonic() + END_TIMEOUT
    for manager in managers:
        if manager.thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):  # the interpreter could not start it
                manager.thread.join(max(0.0, deadline - time.monotonic()))
