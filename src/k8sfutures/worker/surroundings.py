"""What calls see of their client's process, in a CPU process that clients share.

One client's variables, arguments and paths are in place at a time. What its calls change of them
stays for its later calls in that process, as in a process pool, and for nobody else.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any, Final, NamedTuple

from ..surroundings import Surroundings, Variables, variables
from . import process_state

THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Set to 1 for the CPU processes unless the environment of the pod, or the client's, says
otherwise: each is pinned to one CPU, and a library that starts a thread for each CPU of the node
would only trip over itself."""


class Left(NamedTuple):
    """What a client's calls have in this process, and find again.

    Attributes:
        variables: the environment.
        argv: ``sys.argv``.
        path: ``sys.path``.
        temporary: ``tempfile.tempdir``, where the standard library keeps what ``TMPDIR`` was.
        process: see `process_state`.
    """

    variables: Variables
    argv: list[str]
    path: list[str]
    temporary: str | None
    process: process_state.State


class Stage:
    """See the module's text."""

    def __init__(self) -> None:
        self._environ, self._environb = os.environ, os.environb
        self._variables = variables()
        self._argv = sys.argv
        self._path = list(sys.path)
        self._process: process_state.State | None = None  # before any client's call
        self._now: process_state.State | None = None  # since the last client has left

    def enter(self, wanted: Surroundings | None, left: Left | None) -> None:
        """A client's call is next.

        Args:
            wanted: what the client has sent, or None.
            left: what `leave` has returned for it, or None when its first call is next.
        """
        now, self._now = self._now or process_state.read(), None
        if self._process is None:
            self._process = process_state.unseeded(now)
        place = self._first(wanted, self._process) if left is None else left
        process_state.write(place.process, now)
        os.environ, os.environb = self._environ, self._environb  # a call may have put others there
        _set_variables(place.variables)
        sys.argv = place.argv
        sys.path[:] = place.path
        tempfile: Any = sys.modules.get("tempfile")
        if tempfile is not None:
            tempfile.tempdir = place.temporary

    def leave(self) -> Left:
        """Another client's call is next."""
        tempfile: Any = sys.modules.get("tempfile")
        temporary = None if tempfile is None else tempfile.tempdir
        self._now = process_state.read()
        return Left(variables(), sys.argv, list(sys.path), temporary, self._now)

    def _first(self, wanted: Surroundings | None, process: process_state.State) -> Left:
        if wanted is None:
            return Left(self._variables, list(self._argv), self._path, None, process)
        base = self._variables
        if isinstance(wanted.own, dict):  # the agent has opened what was in a seal
            base = {os.fsencode(name): b"1" for name in THREAD_VARIABLES} | wanted.own
        return Left(base | wanted.named, wanted.argv, self._path, None, process)


def _set_variables(wanted: Variables) -> None:
    """Make the environment this one; most of it is that already."""
    now = variables()
    for name in now.keys() - wanted.keys():
        os.environb.pop(name, None)
    for name, value in wanted.items():
        if now.get(name) != value:
            os.environb[name] = value
    if now.get(b"TZ") != wanted.get(b"TZ"):
        time.tzset()
