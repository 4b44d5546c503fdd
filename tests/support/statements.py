"""A program as lines to be typed: one statement after another, each ended by an empty line."""

from __future__ import annotations

import ast
from collections.abc import Iterator


def statements(source: str) -> Iterator[str]:
    """The top-level statements, without empty lines in them, which would end them too early.

    Args:
        source: of a program without empty lines in its texts.
    """
    lines = source.splitlines()
    for node in ast.parse(source).body:
        first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
        block = [line for line in lines[first - 1 : node.end_lineno] if line.strip()]
        yield "\n".join([*block, ""])
