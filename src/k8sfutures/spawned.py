"""The user's ``__main__`` and modules in processes that a call starts by `multiprocessing`.

A process that is forked has them. With the start methods "spawn" and "forkserver" it is a new
interpreter, which would look for functions of ``__main__`` in vain. To run the script there anew,
as `multiprocessing` does by itself, would start the program once more where it has no guard. What
the new process is told of its parent has one thing that is ours, the name of the parent's
``__main__``: unpickled, that name brings along what the parent has.
"""

from __future__ import annotations

import functools
import pickle
import sys
import types
from collections.abc import Callable
from typing import Any, Final, NoReturn

_BEGIN: Final = (
    "__import__('sys').path.__setitem__(slice(None), path)"
    " or __import__('k8sfutures.spawned', None, None, ['begin']).begin(data)"
)
"""What a new process does, before it knows where this package is."""


class MainName(str):
    """The name of a ``__main__`` that has come from elsewhere, in its ``__spec__``."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """For `multiprocessing`, which pickles it for a process that it starts anew."""
        from .serialization import dumps  # which imports the module that makes these names

        main = sys.modules["__main__"].__dict__
        definitions: dict[str, bytes] = {}
        missing: dict[str, str] = {}
        for name, value in list(main.items()):
            if isinstance(value, types.FunctionType | type) and value.__module__ == self:
                try:
                    definitions[name] = dumps(value)
                except Exception as error:  # told where it is looked for
                    missing[name] = f"{type(error).__name__}: {error}"
        finders = [one for one in sys.meta_path if type(one).__module__.startswith(_PACKAGE)]
        if not main.keys() - _EMPTY and not finders:
            return str, (str(self),)
        data = pickle.dumps((main.get("__file__"), finders, definitions, missing))
        return eval, (_BEGIN, {"path": list(sys.path), "data": data})


_PACKAGE: Final = f"{__package__}."
_EMPTY: Final = types.ModuleType("__main__").__dict__.keys() | {"__builtins__", "__file__"}


def begin(data: bytes) -> str:
    """Have in this new process what its parent has; what the pickle of a `MainName` calls.

    Args:
        data: what that has made of the parent's.

    Returns:
        The name of ``__main__``.
    """
    from .scopes import Scope

    file, finders, definitions, missing = pickle.loads(data)
    sys.meta_path[:0] = finders
    scope = Scope()
    scope.begin(file)
    scope.enter()
    for name, definition in definitions.items():
        value = pickle.loads(definition)
        setattr(sys.modules["__main__"], name, value)
    if missing:
        lookup = functools.partial(_refuse, missing)
        setattr(sys.modules["__main__"], "__getattr__", lookup)  # noqa: B010 - of a module
    return "__main__"


def _refuse(missing: dict[str, str], name: str) -> NoReturn:
    reason = missing.get(name)
    if reason is None:
        raise AttributeError(f"module '__main__' has no attribute {name!r}")
    # Unpickling puts words of its own in the place of those of an AttributeError.
    raise pickle.UnpicklingError(
        f"{name} of __main__ cannot be had in a process that is started anew, not forked: {reason}"
    )
