"""Amounts as Kubernetes writes them."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Final

_NUMBER: Final = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_QUANTITY: Final = re.compile(rf"({_NUMBER})(n|u|m|k|[KMGTPE]i|[MGTPE]|[eE][+-]?\d+)?")
_SUFFIXES: Final[dict[str | None, Decimal]] = {
    None: Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    **{letter: Decimal(1000 ** (n + 2)) for n, letter in enumerate("MGTPE")},
    **{f"{letter}i": Decimal(1024 ** (n + 1)) for n, letter in enumerate("KMGTPE")},
}


def quantity(value: str | float | None) -> Decimal:
    """The number that a Kubernetes quantity stands for.

    Args:
        value: such as ``"3920m"``, ``"16Gi"``, ``"1e3"`` or 2; None counts as 0. The format is
            that of ``k8s.io/apimachinery/pkg/api/resource``.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return Decimal(0)
    match = _QUANTITY.fullmatch(str(value))
    if match is None:
        raise ValueError(f"{value!r} is not a Kubernetes quantity")
    number, suffix = match.groups()
    if suffix is not None and suffix[0] in "eE" and len(suffix) > 1 and suffix != "Ei":
        return Decimal(number + suffix)
    return Decimal(number) * _SUFFIXES[suffix]
