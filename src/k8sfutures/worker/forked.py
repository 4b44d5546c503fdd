"""How the program of a forked child begins and ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_exit(program: Callable[[], None]) -> NoReturn:
    """End this process with a program, so that nothing of what its parent was doing goes on here.

    Args:
        program: what runs. An exception of it is told on stderr, and the exit code is 1 then.
    """
    status = 1
    try:
        program()
        status = 0
    except BaseException:
        sys.__excepthook__(*sys.exc_info())
    finally:
        for output in (sys.__stdout__, sys.__stderr__):
            if output is not None:
                with contextlib.suppress(OSError):
                    output.flush()
        os._exit(status)
