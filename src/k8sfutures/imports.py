"""What Python code imports, read without running it."""

from __future__ import annotations

import ast
import contextlib
import dis
import re
import threading
import types
from collections.abc import Iterable, Iterator
from typing import Final

# --- source

_START: Final = rb"(?:^|[;:])[^\S\n]*"
_GAP: Final = rb"(?:[^\S\n]|\\\r?\n)"
_LIKELY: Final = re.compile(
    _START
    + rb"import"
    + _GAP
    + rb"+((?:[\w.,]|"
    + _GAP
    + rb")+)|"
    + _START
    + rb"from"
    + _GAP
    + rb"*([\w.]+)"
    + rb"|\b(?:import_module|__import__)\(\s*[\"']([\w.]+)[\"']",
    re.MULTILINE,
)


def likely_imports(source: bytes) -> set[str]:
    """Names of modules that a source may import: too many rather than too few, in no time.

    Args:
        source: of a module.

    Returns:
        What stands after ``import`` and ``from``, docstrings included; relative names begin
        with a dot.
    """
    found: set[str] = set()
    for match in _LIKELY.finditer(source):
        listed, after_from, literal = match.groups()
        if listed is not None:
            for one in listed.replace(b"\\", b" ").split(b","):
                found.update(word.decode("utf-8", "replace") for word in one.split()[:1])
        else:
            found.add((after_from or literal).decode("utf-8", "replace"))
    return found


def imports(source: bytes, package: str) -> set[str]:
    """Names of what a source imports, wherever the import stands.

    Args:
        source: of a module.
        package: what relative imports are relative to.

    Returns:
        Full names of modules, and of what is taken from them (``a.b`` and ``a.b.c`` for
        ``from a.b import c``), since that may be a module, too. Nothing for a source that is
        no Python of this version. What stands under ``if TYPE_CHECKING:`` is left out.
    """
    try:
        return set(_imports(ast.parse(source), package))
    except (SyntaxError, ValueError, RecursionError):
        return set()  # it cannot be imported on the pod, either


def _imports(node: ast.AST, package: str) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                yield from (alias.name for alias in child.names)
            case ast.ImportFrom():
                base = _absolute(child, package)
                if base:
                    yield base
                    yield from (f"{base}.{alias.name}" for alias in child.names)
            case ast.Call(
                func=ast.Attribute(attr="import_module")
                | ast.Name(id="import_module" | "__import__"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for line in child.orelse:
                    yield from _imports(ast.Module([line], []), package)
            case _:
                yield from _imports(child, package)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if not node.level:
        return node.module or ""
    above = package.split(".") if package else []
    if node.level - 1 >= len(above):
        return ""
    above = above[: len(above) - node.level + 1]
    return ".".join([*above, *filter(None, [node.module])])


# --- compiled code

_IMPORT_NAME: Final = dis.opmap["IMPORT_NAME"]
_IMPORT_FROM: Final = dis.opmap["IMPORT_FROM"]
_EXTENDED_ARG: Final = dis.opmap["EXTENDED_ARG"]


def imports_of_code(code: types.CodeType) -> set[str]:
    """Names of what the body of a function imports; of those within it, it says nothing.

    Args:
        code: of the function.

    Returns:
        As `imports`, with the names of relative imports as they stand.
    """
    found: set[str] = set()
    instructions = code.co_code
    if _IMPORT_NAME not in instructions:
        return found
    base, extended = "", 0
    for at in range(0, len(instructions), 2):
        operation, argument = instructions[at], instructions[at + 1] | extended
        extended = argument << 8 if operation == _EXTENDED_ARG else 0
        if operation == _IMPORT_NAME and argument < len(code.co_names):
            base = code.co_names[argument]
            found.add(base)
        elif operation == _IMPORT_FROM and argument < len(code.co_names):
            found.add(f"{base}.{code.co_names[argument]}")
    found.discard("")
    return found


class _Noted(threading.local):
    def __init__(self) -> None:
        self.names: set[str] = set()


_noted: Final = _Noted()


def note_imports(code: types.CodeType) -> None:
    """Keep in mind what code imports that this thread pickles, for `take_noted`."""
    _noted.names |= imports_of_code(code)


def note_names(names: Iterable[str]) -> None:
    """Likewise, of names that are known."""
    if names:
        _noted.names.update(names)


@contextlib.contextmanager
def noted_apart() -> Iterator[set[str]]:
    """Give what is noted within."""
    before, _noted.names = _noted.names, set()
    apart = _noted.names
    try:
        yield apart
    finally:
        _noted.names = before


def take_noted() -> set[str]:
    """What the code imports that this thread has pickled since the last time."""
    names = _noted.names
    if names:
        _noted.names = set()
    return names
