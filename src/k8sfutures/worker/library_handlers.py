"""Handlers that an installed library adds to its own loggers as it is imported.

It is imported once in a CPU process, and stays for all clients. What a client's calls set up of
loggers is that client's own; but these handlers are the library's, and who imports it later
expects them.
"""

from __future__ import annotations

import functools
import logging
import sys
import types
from typing import Any

from ..own_modules import is_installed


class LibraryHandlers:
    """Watches `logging.Logger.addHandler`, from now on."""

    def __init__(self) -> None:
        self._added: list[tuple[logging.Logger, logging.Handler]] = []
        add = logging.Logger.addHandler

        @functools.wraps(add)
        def add_handler(logger: logging.Logger, hdlr: logging.Handler) -> None:
            add(logger, hdlr)
            if _imported_library(sys._getframe(1)) == logger.name.partition(".")[0]:  # noqa: SLF001
                self._added.append((logger, hdlr))

        logging.Logger.addHandler = add_handler  # type: ignore[method-assign, assignment]

    def __len__(self) -> int:
        """How many there are so far."""
        return len(self._added)

    def add(self, known: int) -> None:
        """Add them to their loggers, but for the first ones.

        Args:
            known: how many of them were there when the loggers were as they are now.
        """
        for logger, handler in self._added[known:]:
            if handler not in logger.handlers:
                logger.handlers.append(handler)


def _imported_library(frame: types.FrameType | None) -> str | None:
    """The top-level name of the library whose import these frames are, the innermost such."""
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    if frame is None or not is_installed(frame.f_code.co_filename):
        return None
    name: Any = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else None
