"""What a call logs and is warned of, in its CPU process: on its way to the client.

A record goes to the client after the handlers that the call itself may have set up. No handler of
ours is in any logger's list: `logging.basicConfig` in a call works as it does in a fresh process.
Only `logging.warning` and the like do not call it by themselves, as they do where the root has no
handler: the client has its own.
Where such a handler writes to the call's own stdout or stderr, the record reaches the client as
that text, and not a second time.
"""

from __future__ import annotations

import functools
import logging
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TextIO

from ..messages import RECORD, WARNING
from ..records import Reporting, State, pack_record, pack_warning
from .library_handlers import LibraryHandlers
from .output import Allowance, Outlet

_BURST = 1000
_PER_SECOND = 200


class Setup(NamedTuple):
    """What a client's calls have in this process, and what it wanted to hear.

    Attributes:
        streams: ``sys.stdout`` and ``sys.stderr``.
        state: loggers with their handlers, and the filters of warnings.
        showing: what shows warnings, and what did before `logging.captureWarnings`.
        wanted: by the client.
        libraries: how many handlers of libraries it has had; see `library_handlers`.
    """

    streams: tuple[Any, Any]
    state: State
    showing: tuple[Any, Any]
    wanted: bytes | None
    libraries: int


class Forwarder:
    """Installs itself in `logging` and `warnings`, once for the process.

    Args:
        outlet: takes what is sent; its streams are where a record may be seen already.
    """

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._reporting = Reporting()
        self._libraries = LibraryHandlers()
        self._on = False
        self._wanted: bytes | None = None
        self._allowance = Allowance(_BURST, _PER_SECOND)
        self._left_out = 0
        self._last_resort = logging.lastResort
        self._show = warnings.showwarning
        handle: Callable[[logging.Logger, logging.LogRecord], None] = logging.Logger.callHandlers

        def call_handlers(logger: logging.Logger, record: logging.LogRecord) -> None:
            handle(logger, record)
            if self._on:
                self._forward(logger, record)

        logging.Logger.callHandlers = call_handlers  # type: ignore[method-assign, assignment]
        configure = logging.basicConfig

        @functools.wraps(configure)
        def basic_config(**options: Any) -> None:
            caller = sys._getframe(1)  # noqa: SLF001 - which costs nothing, unlike `inspect`
            implied = not options and caller.f_globals is vars(logging)
            if not (implied and self._on):
                configure(**options)

        logging.basicConfig = basic_config

    def enter(self, wants: bytes | None, setup: Setup | None) -> None:
        """A client's call is next: report what it wants to hear.

        Args:
            wants: from the client; None where it wants nothing.
            setup: what `leave` has returned for it, or None when its first call is next.
        """
        self._on = wants is not None
        if setup is None:
            self._outlet.install()
            self._reporting.restore(self._reporting.first)
            showing = (self._warned if self._on else self._show), None
        else:
            sys.stdout, sys.stderr = setup.streams
            self._reporting.restore(setup.state)
            showing = setup.showing
        self._libraries.add(0 if setup is None else setup.libraries)
        warnings.showwarning, logging._warnings_showwarning = showing  # type: ignore[attr-defined]  # noqa: SLF001
        self._wanted = None if setup is None else setup.wanted
        if wants is not None and wants != self._wanted:
            self._reporting.apply(wants, self._wanted)
            self._wanted = wants
        logging.lastResort = logging.NullHandler() if self._on else self._last_resort

    def leave(self) -> Setup:
        """Another client's call is next."""
        showing = warnings.showwarning, logging._warnings_showwarning  # type: ignore[attr-defined]  # noqa: SLF001
        streams = sys.stdout, sys.stderr
        state = self._reporting.state()
        return Setup(streams, state, showing, self._wanted, len(self._libraries))

    def _forward(self, logger: logging.Logger, record: logging.LogRecord) -> None:
        if self._is_shown(logger, record):
            return
        if not self._allowance.take():
            self._left_out += 1
            return
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            self._outlet.streams[1].write(f"[k8sfutures: {left_out:,} log records dropped]\n")
        try:
            body = pack_record(record)
        except Exception:  # its message does not fit its arguments, for one
            logging.Handler().handleError(record)
            return
        self._outlet.record(RECORD, body)

    def _is_shown(self, logger: logging.Logger | None, record: logging.LogRecord) -> bool:
        while logger is not None:
            for handler in logger.handlers:
                if (
                    isinstance(handler, logging.StreamHandler)
                    and handler.stream in self._outlet.streams
                    and record.levelno >= handler.level
                ):
                    return True
            logger = logger.parent if logger.propagate else None
        return False

    def _warned(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> Any:
        if file is not None:
            self._show(message, category, filename, lineno, file, line)
        elif self._allowance.take():
            self._outlet.record(WARNING, pack_warning(message, category, filename, lineno))
