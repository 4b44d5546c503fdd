"""``dataclass`` for the many small frozen classes of this package, at a fraction of its price.

The standard library's decorator writes and compiles a source text for every method of every class:
0.3 ms for a frozen one, and so 30 ms of the start of each client and each pod. Type checkers see
that very decorator, and hold the code to ``frozen``. At run time, this one has it make
``__init__`` alone; the rest is inherited from here, and assignment is not refused. What it makes
is a dataclass in every other way.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(
        cls: type | None = None, /, *, frozen: bool = False, eq: bool = True, **options: Any
    ) -> Any:
        """As ``dataclasses.dataclass``; see the module's text."""

        def made(cls: type) -> type:
            own = vars(cls).keys()
            names = []
            if eq:
                names += ["__eq__", "__hash__"] if frozen else ["__eq__"]
            if options.get("repr", True):
                names.append("__repr__")
            result = dataclasses.dataclass(cls, **{**options, "eq": False, "repr": False})
            if eq and not frozen:
                result.__hash__ = None
            for name in names:
                if name not in own:
                    setattr(result, name, vars(_Methods)[name])
            return result

        return made if cls is None else made(cls)

    class _Methods:
        def __eq__(self, other: object) -> bool:
            if other.__class__ is not self.__class__:
                return NotImplemented
            return _compared(self) == _compared(other)

        def __hash__(self) -> int:
            return hash(_compared(self))

        def __repr__(self) -> str:
            shown = (one.name for one in dataclasses.fields(self) if one.repr)
            values = ", ".join(f"{name}={getattr(self, name)!r}" for name in shown)
            return f"{self.__class__.__qualname__}({values})"

    def _compared(one: object) -> tuple[Any, ...]:
        return tuple(getattr(one, item.name) for item in dataclasses.fields(one) if item.compare)


__all__ = ["dataclass"]
