"""What values of settings can be."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from typing import Any, Final

_QUANTITY: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(m|k|[KMGTPE]i|[MGTPE]|[eE][+-]?\d+)?")

LONGEST_VARIABLE: Final = 128 * 1024 - 2
"""Bytes of a variable's name and value: with more, Linux would start no program."""

MOST_OF_VARIABLES: Final = 1024 * 1024
"""Bytes of all of them: half of what Linux gives a program by default."""


def is_text(text: str) -> bool:
    """Whether it is a text that begins and ends in something that one sees."""
    return bool(text) and text == text.strip() and text.isprintable()


def is_amount(amount: float | str) -> bool:
    """Whether it is a number of something, or a quantity as Kubernetes writes them; above 0."""
    if isinstance(amount, str):
        match = _QUANTITY.fullmatch(amount)
        return match is not None and float(match[1]) > 0
    return 0 < amount < math.inf  # False for NaN.


def copied(value: object) -> Any:
    """What the caller changes later does not change ours; what JSON cannot hold is refused."""
    return json.loads(json.dumps(value, allow_nan=False))


def are_variables(variables: Mapping[object, object]) -> bool:
    """Whether these can be variables of an environment.

    Args:
        variables: their values by their names.

    Raises:
        ValueError: one cannot; it is named, and its value is not shown.
    """
    total = 0
    for name, value in variables.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ValueError(f"{name!r} is no name of a variable")
        if not isinstance(value, str):
            raise ValueError(f"the value of {name!r} is of type {type(value).__name__}")  # noqa: TRY004
        if "\0" in value:
            raise ValueError(f"the value of {name!r} has a null character in it")
        try:
            size = len(os.fsencode(name)) + len(os.fsencode(value))
        except UnicodeEncodeError:
            size = -1
        if size < 0:  # not in there: the error would hold the value
            raise ValueError(f"{name!r} or its value cannot be encoded")
        if size > LONGEST_VARIABLE:
            raise ValueError(f"{name!r} has {size:,} bytes, more than {LONGEST_VARIABLE:,}")
        total += size
    if total > MOST_OF_VARIABLES:
        raise ValueError(f"they have {total:,} bytes together, more than {MOST_OF_VARIABLES:,}")
    return True
