"""Log records and warnings on their way from a call to its client, and what the client wants.

msgpack, never pickle, and nothing in it can fail more than itself. What cannot travel as it is
(arguments of a record, an exception, the message object of a warning) travels as its text.
"""

from __future__ import annotations

import importlib
import logging
import re
import sys
import types
import warnings
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgpack

from .pod_files import at_client, in_text, names_of

LONGEST: Final = 1 << 16
"""Characters of a message, or of the traceback in a record; what is longer is cut."""

_MOST_LOGGERS: Final = 1000
_MOST_EXTRAS: Final = 20
_PLAIN: Final = (str, int, float, bool, type(None))
_SENT: Final = (
    *("name", "levelno", "levelname", "pathname", "lineno", "funcName", "stack_info"),
    *("created", "msecs", "relativeCreated", "process", "processName"),
    *("thread", "threadName", "taskName"),
)
_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_formatter: Final = logging.Formatter()


# --- log records


def pack_record(record: logging.LogRecord) -> bytes:
    """A log record as it travels.

    Args:
        record: any; what was given as ``extra`` travels where it is text, a number or None.

    Returns:
        A msgpack map for `unpack_record`.

    Raises:
        Exception: what formatting its message raised.
    """
    given = record.__dict__
    fields = {key: _cut(given[key]) for key in _SENT if type(given.get(key, ...)) in _PLAIN}
    fields["msg"] = _cut(record.getMessage())
    if record.exc_text or record.exc_info:
        text = record.exc_text or _formatter.formatException(record.exc_info)  # type: ignore[arg-type]
        fields["exc_text"] = text[-LONGEST:]
    extras = [key for key in given if key not in _STANDARD and type(given[key]) in _PLAIN]
    for key in extras[:_MOST_EXTRAS]:
        fields[key] = _cut(given[key])
    return _packed(fields)


def _cut(value: Any) -> Any:
    return value[:LONGEST] if isinstance(value, str) else value


def unpack_record(body: bytes) -> logging.LogRecord:
    """The record in a body of `pack_record`.

    Raises:
        ValueError: it is none.
    """
    fields = _unpacked(body)
    if not (isinstance(fields.get("name"), str) and isinstance(fields.get("levelno"), int)):
        raise ValueError("a log record without name or level")  # noqa: TRY004
    for key in ("exc_text", "stack_info"):
        if isinstance(fields.get(key), str):
            fields[key] = in_text(fields[key])
    if isinstance(fields.get("pathname"), str):
        fields |= names_of(fields["pathname"])
    return logging.makeLogRecord({"args": None, "exc_info": None, **fields})


# --- warnings


def pack_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int
) -> bytes:
    """A warning as it travels, with the module that it is about.

    Args:
        message: as `warnings.showwarning` gets it; likewise the others.
        category: its class; its bases travel, too, in case that it is not known elsewhere.
        filename: where.
        lineno: likewise.

    Returns:
        A msgpack map for `issue`.
    """
    return _packed(
        {
            "text": str(message)[:LONGEST],
            "categories": [_name_of(cls) for cls in category.__mro__ if issubclass(cls, Warning)],
            "filename": filename,
            "lineno": lineno,
            "module": _module_at(filename, lineno),
        }
    )


def _module_at(filename: str, lineno: int) -> str | None:
    """Name of the module that a line belongs to, if it is running."""
    frame: types.FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if frame.f_lineno == lineno and frame.f_code.co_filename == filename:
            name = frame.f_globals.get("__name__")
            return name if isinstance(name, str) else None
        frame = frame.f_back
    return None


_registries: Final[dict[str, dict[Any, Any]]] = {}
"""Which warnings have been shown, as Python keeps it, for modules that are not loaded here."""


def issue(body: bytes) -> None:
    """Warn here, as this process' filters say, of what a call was warned of.

    Args:
        body: from `pack_warning`.

    Raises:
        Warning: where a filter says "error".
        ValueError: it is none of our warnings.
    """
    fields = _unpacked(body)
    try:
        text = fields["text"]
        filename, lineno = at_client(str(fields["filename"])), int(fields["lineno"])
        # Of no module Python says nothing; by default it takes the file's name for one.
        module = fields["module"] or filename.removesuffix(".py")
        found = [cls for name in fields["categories"] if (cls := _class_named(name)) is not None]
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a warning: {error!r}") from None
    loaded = sys.modules.get(module)
    if loaded is not None:
        registry = loaded.__dict__.setdefault("__warningregistry__", {})
    else:
        registry = _registries.setdefault(module, {})
    for category in found:
        try:
            message = category(text)
        except Exception:  # noqa: S112  # it wants other arguments; one of its bases does not
            continue
        warnings.warn_explicit(message, category, filename, lineno, module, registry)
        return


def _name_of(cls: type) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _class_named(name: str) -> type[Warning] | None:
    module, _, path = name.partition(":")
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) and issubclass(found, Warning) else None


# --- what the client wants


def packed_filters() -> list[tuple[Any, ...]]:
    """The filters of warnings, as they are now, for `reporting`."""
    return [_packed_filter(*one) for one in warnings.filters]


def reporting(filters: list[tuple[Any, ...]]) -> bytes:
    """What this process wants to hear of: what its loggers let pass, and its filters.

    Args:
        filters: from `packed_filters`.

    Returns:
        A body for `Reporting`.
    """
    manager = logging.root.manager
    levels = {
        name: logger.level
        for name, logger in list(manager.loggerDict.items())
        if isinstance(logger, logging.Logger) and logger.level and "k8sfutures" not in name
    }
    return _packed(
        {
            "root": logging.root.level,
            "disable": manager.disable,
            "levels": dict(list(levels.items())[:_MOST_LOGGERS]),
            "filters": filters,
        }
    )


def _packed_filter(
    action: str, message: Any, category: Any, module: Any, lineno: int
) -> tuple[Any, ...]:
    return action, _pattern(message), _name_of(category), _pattern(module), lineno


def _pattern(given: Any) -> tuple[str, int] | None:
    """A filter has a pattern, or a name as it is, or nothing."""
    if isinstance(given, str):
        return rf"{re.escape(given)}\Z", 0
    return None if given is None else (given.pattern, given.flags)


class _Logger(NamedTuple):
    """How a logger is set up."""

    level: int
    handlers: list[logging.Handler]
    filters: list[Any]
    propagate: bool
    disabled: bool


class State(NamedTuple):
    """Loggers and filters of a process, as one client has them there."""

    disable: int
    loggers: dict[str, _Logger]
    filters: list[Any]


_UNTOUCHED: Final = _Logger(logging.NOTSET, [], [], True, False)


class Reporting:
    """Makes a CPU process report what a client wants to hear, and nothing else.

    What calls of a client, or its initializer, set there on top of that stays its own.
    """

    def __init__(self) -> None:
        self.first = self.state()
        """What the process began with."""

    def state(self) -> State:
        """What is set now, for `restore`."""
        loggers = {
            name: _Logger(one.level, one.handlers, one.filters, one.propagate, one.disabled)
            for name, one in _set_up()
        }
        return State(logging.root.manager.disable, loggers, list(warnings.filters))

    def restore(self, state: State) -> None:
        """Set what was set before another client came."""
        now = dict.fromkeys((name for name, _ in _set_up()), _UNTOUCHED)
        for name, was in (now | state.loggers).items():
            logger = logging.getLogger(name)
            logger.level = was.level
            # Lists of its own: the state may be that of the beginning, for the next client.
            logger.handlers, logger.filters = list(was.handlers), list(was.filters)
            logger.propagate, logger.disabled = was.propagate, was.disabled
        logging.disable(state.disable)  # which also has all loggers forget what they let pass
        self._set_filters(state.filters)

    def apply(self, body: bytes, before: bytes | None) -> None:
        """Set what a client wants, so far as that is new.

        Args:
            body: from `reporting`.
            before: what it wanted before, if that has been set.
        """
        wants = _unpacked(body)
        had = _unpacked(before) if before is not None else {"levels": {}}
        levels: dict[str, int] = wants["levels"]
        for name in had["levels"].keys() - levels.keys():
            logging.getLogger(name).setLevel(logging.NOTSET)
        for name, level in levels.items():
            if had["levels"].get(name) != level:
                logging.getLogger(name).setLevel(level)
        if had.get("root") != wants["root"]:
            logging.root.setLevel(wants["root"])
        if had.get("disable") != wants["disable"]:
            logging.disable(wants["disable"])
        if had.get("filters") != wants["filters"]:
            given = (_filter(*one) for one in wants["filters"])
            self._set_filters([one for one in given if one is not None])

    @staticmethod
    def _set_filters(filters: list[Any]) -> None:
        warnings.resetwarnings()
        warnings.filters[:] = filters  # type: ignore[index]
        # What happens anyway where no filter matches; and Python forgets what it has shown.
        warnings.simplefilter("default", append=True)


def _set_up() -> Iterator[tuple[str, logging.Logger]]:
    """The loggers that are not as they were made, by their names; of the root that is ""."""
    yield "", logging.root
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and (
            logger.level
            or logger.handlers
            or logger.filters
            or logger.disabled
            or not logger.propagate
        ):
            yield name, logger


def _filter(
    action: Any, message: Any, category: str, module: Any, lineno: int
) -> tuple[Any, ...] | None:
    cls = _class_named(category)
    if cls is None:
        return None  # nothing here can be of that class
    patterns = [None if one is None else re.compile(one[0], one[1]) for one in (message, module)]
    return action, patterns[0], cls, patterns[1], lineno


# --- encoding


def _packed(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, unicode_errors="backslashreplace")
    return packed


def _unpacked(body: bytes) -> dict[str, Any]:
    try:
        value = msgpack.unpackb(body, use_list=False)
    except (ValueError, msgpack.UnpackException) as error:
        raise ValueError(f"a record that cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ValueError("a record that is no map")  # noqa: TRY004
    return value
