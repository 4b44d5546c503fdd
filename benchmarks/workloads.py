"""What the benchmarks run. Importable, since the standard library's processes import it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sized
from typing import TypeVar

T = TypeVar("T")


def noop() -> None:
    """Nothing: what remains is the executor's own cost."""


def identity(value: T) -> T:
    """Give back the argument."""
    return value


def settle_in(seconds: float) -> None:
    """Keep one process busy, so that as many as are asked for have to be there, and import NumPy.

    Args:
        seconds: long enough for every process to get one.
    """
    with contextlib.suppress(ImportError):
        import numpy as np  # noqa: F401
    time.sleep(seconds)


def noop_with(_: object) -> None:
    """Nothing, for an argument."""


def length(value: Sized, _: object) -> int:
    """How long it is."""
    return len(value)
