"""Tracebacks as rows that travel, and as objects that every tool of Python's takes.

A frame cannot travel. What is shown of it can: file, function, line, columns, and the local
variables in words. From such rows `rebuilt` makes a traceback of frames that have never run: no
caller, no variables but those words, and so nothing that they would keep alive. `traceback`,
`sys.excepthook`, `pdb.post_mortem`, IPython and `logging` read them like any others.

Of each frame of a module that the pod has imported, the lines around come along. Where this
process has other lines in that file, or no such file, `linecache` is told them. What a function
of the client's own code does (it travels by value, under its file's name) the client knows.
"""

from __future__ import annotations

import itertools
import linecache
import reprlib
import sys
import threading
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from .pod_files import at_client

Row = tuple[
    str, str, str, int, int, int | None, int | None, int | None, str, tuple[tuple[str, str], ...]
]
"""(file, name, qualified name, first line of the function, line, last line of the statement,
its first column, its last column, module, (name of a variable, value in words)...)"""

Sources = dict[str, dict[int, str]]
"""Lines by number, by file."""

AROUND: Final = 5
"""Lines before and after that come along, as many as debuggers show."""

MOST_LINES: Final = 500
"""Lines of one traceback that come along."""

LONGEST_LINE: Final = 500
"""Characters of each."""

MOST_VARIABLES: Final = 100
"""Variables of one traceback that are described, those of the innermost frames first."""

MOST_FILES: Final = 256
"""Files of pods that `linecache` is told of at once."""

LAST_LINE: Final = 200_000
"""Lines of a file; of longer ones none come along."""


class Words:
    """A variable of a frame on a pod, in words: its ``repr`` is what it was described by there."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return self.text


class _Describer(reprlib.Repr):
    """Describes values without running anybody's code: short, and only what is built in."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 3
        self.maxstring = self.maxother = 120

    def repr1(self, x: Any, level: int) -> str:
        kind = type(x)
        if kind is Words:
            text: str = x.text
            return text
        if kind in _BUILT_IN:
            return super().repr1(x, level) if kind in _CONTAINERS or kind is str else _short(x)
        if kind.__module__.partition(".")[0] in _ARRAYS:
            shape = getattr(x, "shape", None)
            if type(shape) is tuple:
                return f"<{kind.__module__}.{kind.__qualname__}, shape {shape}>"
        if kind in _NAMED:
            return f"<{kind.__name__} {getattr(x, '__qualname__', x.__name__)}>"
        return f"<{kind.__module__}.{kind.__qualname__} object>"


_CONTAINERS: Final = frozenset({list, tuple, dict, set, frozenset})
_BUILT_IN: Final = _CONTAINERS | {str, bytes, int, float, complex, bool, type(None), range}
_NAMED: Final = frozenset({types.FunctionType, types.ModuleType, types.BuiltinFunctionType, type})
_ARRAYS: Final = frozenset({"numpy", "pandas"})
_REMOTE: Final = "__k8sfutures_remote__"
_describer: Final = _Describer()


def _short(value: object) -> str:
    text = repr(value[:200] if isinstance(value, bytes) else value)
    return text if len(text) <= 120 else f"{text[:80]}...{text[-30:]}"


# --- from a traceback to rows


def entries(traceback: types.TracebackType | None) -> Iterator[types.TracebackType]:
    """The parts of a traceback, outermost first."""
    while traceback is not None:
        yield traceback
        traceback = traceback.tb_next


def rows_of(traceback: types.TracebackType | None) -> tuple[list[Row], Sources]:
    """What is to travel of a traceback.

    Args:
        traceback: of frames that have ended, or that run.

    Returns:
        A row for each frame, and the lines around those that are of an imported module.
    """
    rows: list[Row] = []
    sources: Sources = {}
    variables = MOST_VARIABLES
    for entry in reversed(list(entries(traceback))):
        described = _variables(entry.tb_frame, variables)
        variables -= len(described)
        row = _row(entry, described)
        rows.append(row)
        _add_lines(entry.tb_frame, row, sources)
    rows.reverse()
    return rows, sources


def _row(entry: types.TracebackType, described: tuple[tuple[str, str], ...]) -> Row:
    frame = entry.tb_frame
    code = frame.f_code
    _, end, column, end_column = next(
        itertools.islice(code.co_positions(), max(0, entry.tb_lasti) // 2, None), (None,) * 4
    )
    name = frame.f_globals.get("__name__")
    return (
        *(code.co_filename, code.co_name, code.co_qualname, code.co_firstlineno),
        *(entry.tb_lineno, end, column, end_column),
        name if isinstance(name, str) else "",
        described,
    )


def _variables(frame: types.FrameType, most: int) -> tuple[tuple[str, str], ...]:
    if most <= 0 or frame.f_code.co_name == "<module>":
        return ()
    described = []
    for name, value in itertools.islice(frame.f_locals.items(), most):
        try:
            described.append((name, _describer.repr1(value, _describer.maxlevel)))
        except Exception as error:  # of a number with too many digits, for one
            described.append((name, f"<{type(value).__qualname__}: {type(error).__name__}>"))
    return tuple(described)


def _add_lines(frame: types.FrameType, row: Row, sources: Sources) -> None:
    filename, line, end = row[0], row[4], row[5] or row[4]
    module = sys.modules.get(row[8])
    is_imported = module is not None and module.__dict__ is frame.f_globals
    has_no_file = filename.startswith("<") and filename in linecache.cache
    if not (is_imported or has_no_file or filename in _told):
        return  # it came by value, and its file is the client's
    if sum(map(len, sources.values())) > MOST_LINES or end > LAST_LINE:
        return
    linecache.checkcache(filename)
    lines = linecache.getlines(filename, frame.f_globals)
    if not lines:
        return
    known = sources.setdefault(filename, {})
    for number in range(max(1, line - AROUND), min(len(lines), min(end, line + 20) + AROUND) + 1):
        known[number] = lines[number - 1].rstrip("\n")[:LONGEST_LINE]


# --- from rows to a traceback


def rebuilt(rows: Iterable[Row], sources: Sources) -> types.TracebackType | None:
    """A traceback of what has travelled.

    Args:
        rows: from `rows_of`, likewise the sources.
        sources: `linecache` is told what differs from what this process has.

    Returns:
        It; None of no rows.
    """
    rows = list(rows)
    shown = {row[0]: at_client(row[0]) for row in rows}
    for name, lines in sources.items():
        shown[name] = _shown_as(at_client(name), lines)
    traceback = None
    for row in reversed(rows):
        name = shown[row[0]]
        traceback = types.TracebackType(traceback, _frame(row, name, {_REMOTE: True}), 0, row[4])
    return traceback


def alone(traceback: types.TracebackType | None) -> types.TracebackType | None:
    """The same traceback, of frames that keep neither a caller's nor their own variables alive.

    Args:
        traceback: of this process; frames that have travelled stay as they are.
    """
    result = None
    for entry in reversed(list(entries(traceback))):
        frame = entry.tb_frame
        if _REMOTE not in frame.f_globals:
            row = _row(entry, ())
            frame = _frame(row, row[0], {})
        lasti = entry.tb_lasti if frame is entry.tb_frame else 0
        result = types.TracebackType(result, frame, lasti, entry.tb_lineno)
    return result


def reduce_traceback(traceback: types.TracebackType) -> tuple[Any, ...]:
    """For `copyreg`: how a traceback is pickled."""
    return rebuilt, rows_of(traceback)


def _stub() -> Iterator[None]:
    yield


_UNITS: Final = len(_stub.__code__.co_code) // 2


def _frame(row: Row, filename: str, extra: Mapping[str, Any]) -> types.FrameType:
    _, name, qualname, first, line, end, column, end_column, module, variables = row
    code = _stub.__code__.replace(
        co_filename=filename,
        co_name=name,
        co_qualname=qualname,
        co_firstlineno=first,
        co_linetable=_line_table(line - first, line, end, column, end_column),
        co_varnames=tuple([variable for variable, _ in variables]),
        co_nlocals=len(variables),
        co_argcount=len(variables),
        co_stacksize=1,
    )
    namespace = {"__name__": module, "__builtins__": __builtins__, **extra}
    if not filename.startswith("<"):
        namespace["__file__"] = filename
    # A generator that has not begun has a frame, and nobody has called that.
    values = [Words(text) for _, text in variables]
    alone: types.FrameType = types.FunctionType(code, namespace)(*values).gi_frame
    return alone


def _line_table(
    delta: int, line: int, end: int | None, column: int | None, end_column: int | None
) -> bytes:
    """All of the code at one place: location entries of CPython's Objects/locations.md."""
    if end is None or column is None or end_column is None or end < line:
        kind, first, following = 13, _signed(delta), _signed(0)  # without columns
    else:
        place = _varint(end - line) + _varint(column + 1) + _varint(end_column + 1)
        kind, first, following = 14, _signed(delta) + place, _signed(0) + place
    lengths = [min(8, _UNITS - start) for start in range(0, _UNITS, 8)]
    return b"".join(
        bytes((0x80 | kind << 3 | length - 1,)) + (following if at else first)
        for at, length in enumerate(lengths)
    )


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 64:
        out.append(0x40 | number & 63)
        number >>= 6
    out.append(number)
    return bytes(out)


def _signed(number: int) -> bytes:
    return _varint((-number << 1) | 1 if number < 0 else number << 1)


# --- the lines of files that are not here


_told: Final[dict[str, dict[int, str]]] = {}
"""What `linecache` has been told, by the name that it is shown under; oldest first."""

_telling: Final = threading.Lock()


def _shown_as(filename: str, lines: dict[int, str]) -> str:
    """The name to show a pod's file by; its lines are known under that name."""
    with _telling:
        if filename not in _told:
            linecache.checkcache(filename)
            here = linecache.getlines(filename)
            if here and all(
                number <= len(here) and _same(here[number - 1], line)
                for number, line in lines.items()
            ):
                return filename
        candidates = itertools.chain(
            [filename] if filename in _told or not linecache.getlines(filename) else [],
            [f"{filename} (pod)"],
            (f"{filename} (pod, {number})" for number in range(2, MOST_FILES)),
        )
        for name in candidates:
            known = _told.pop(name, {})
            if all(_same(known.get(number, line), line) for number, line in lines.items()):
                break
            _told[name] = known
        _tell(name, known | lines)
        return name


def _same(here: str, there: str) -> bool:
    return here.rstrip("\n")[:LONGEST_LINE] == there


def _tell(name: str, lines: dict[int, str]) -> None:
    _told[name] = lines
    text = [f"{lines.get(number, '')}\n" for number in range(1, max(lines, default=0) + 1)]
    # Without a time of change: `linecache.checkcache` leaves it alone.
    linecache.cache[name] = (sum(map(len, text)), None, text, name)
    while len(_told) > MOST_FILES:
        oldest = next(iter(_told))
        del _told[oldest]
        linecache.cache.pop(oldest, None)
