"""Files of the client's own that have other names on pods, shown by the client's.

A module that was shipped is imported on a pod from the folder that its bundle was unpacked in, and
``__file__`` says so there: its data files lie beside it. What the client is told of such a file,
in tracebacks, warnings, log records and exceptions that name source files, has the name that the
file has here. What a call prints stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import PurePath
from typing import Final

from .bundles import FOLDER_PREFIX

_IN_TEXT: Final = re.compile(rf'(?<=File ")[^"\n]*{FOLDER_PREFIX}[^"\n]*(?=")')
"""How Python names a file of source, wherever it says in words where something was."""


class _Finder:
    """Where a pod's file is at this client: by default under the same name."""

    def __init__(self) -> None:
        self.at_client: Callable[[str], str] = lambda name: name


_finder: Final = _Finder()


def find_files_with(at_client: Callable[[str], str]) -> None:
    """Show the files of this client's own that pods have under other names.

    Args:
        at_client: gives, for the name of a pod's file, the one that it has here.
    """
    _finder.at_client = at_client


def at_client(name: str) -> str:
    """The name that a pod's file has here.

    Args:
        name: as the pod has it.

    Returns:
        The client's; the same name where it is no file that was shipped from here.
    """
    return _finder.at_client(name)


def in_text(text: str) -> str:
    """A text of Python's that says where something was, with the names that files have here.

    Args:
        text: a traceback, or what `faulthandler` says.
    """
    if FOLDER_PREFIX not in text:
        return text
    return _IN_TEXT.sub(lambda match: at_client(match[0]), text)


def in_error(error: BaseException) -> None:
    """Have an exception that names a file of source name the one that is here.

    Args:
        error: changed where it is a `SyntaxError` or an `ImportError`; its causes are not.
    """
    if isinstance(error, SyntaxError):
        _in_syntax_error(error)
    elif isinstance(error, ImportError):
        _in_import_error(error)


def _in_syntax_error(error: SyntaxError) -> None:
    there = error.filename
    here = at_client(there) if isinstance(there, str) else there
    if here == there:
        return
    error.filename = here
    if len(error.args) == 2 and isinstance(error.args[1], tuple) and error.args[1][:1] == (there,):
        error.args = (error.args[0], (here, *error.args[1][1:]))


def _in_import_error(error: ImportError) -> None:
    there = error.path
    here = at_client(there) if isinstance(there, str) else there
    if here == there or not isinstance(there, str) or not isinstance(here, str):
        return
    error.path = here
    # "cannot import name 'x' from 'package' (/file/of/the/package.py)"
    if isinstance(error.msg, str):
        error.msg = error.msg.replace(there, here)
    error.args = tuple(
        one.replace(there, here) if isinstance(one, str) else one for one in error.args
    )


def names_of(path: str) -> dict[str, str]:
    """What a log record has of its file.

    Args:
        path: of the file, as the pod has it.

    Returns:
        The attributes ``pathname``, ``filename`` and ``module`` of `logging.LogRecord`.
    """
    here = at_client(path)
    place = PurePath(here)
    return {"pathname": here, "filename": place.name, "module": place.stem}
