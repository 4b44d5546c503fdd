"""What to say of a call that cannot be pickled."""

from __future__ import annotations

from typing import Any

from .functions import name_of
from .serialization import dumps


def blame(error: BaseException, function: object, args: Any, kwargs: Any) -> None:
    """Note on a pickling error which part of the call it comes from.

    Args:
        error: what pickling the whole call raised; gets a note.
        function: what was submitted.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    parts = [("the function", function)]
    parts += [(f"args[{index}]", value) for index, value in enumerate(args)]
    parts += [(f"kwargs[{name!r}]", value) for name, value in kwargs.items()]
    for where, value in parts:
        try:
            dumps(value)
        except BaseException:  # even SystemExit: this only looks for the culprit
            kind = type(value).__qualname__
            error.add_note(
                f"k8sfutures: {where} of the call to {name_of(function)}, "
                f"of type {kind!r}, cannot be pickled"
            )
            return
