"""What calls say while they run, brought to the client's own streams, loggers and warnings.

It has a thread of its own: a terminal that is stopped, a pipe that nobody reads or a handler that
takes its time must not hold up Futures; how long the call's own waits for it, `postponed` says. How
lines are marked, `Marker` decides.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from .config import Output
from .messages import DROPPED, RECORD, STDERR, STDOUT, WARNING, Outcome
from .outcomes import mark_of
from .records import issue, unpack_record
from .values import dataclass
from .worker.said import cost_of

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 16 << 20
"""Bytes, as `cost_of` counts them, that may wait for a slow terminal; what is more is dropped."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What calls on one pod have said; see `messages.Printed`."""

    pod: str
    lines: list[tuple[int, int, int, int, bytes]]


class Saying(NamedTuple):
    """One thing that a call said.

    Attributes:
        mark: the call, for people: ``simulate#12`` as submitted, ``simulate[3]`` of a map.
        pod: where it runs.
        cpu_id: likewise.
        kind: of `messages`.
        body: text or record.
    """

    mark: str
    pod: str
    cpu_id: int
    kind: int
    body: bytes


class Marker:
    """Which text is written to which stream: pure.

    Each line begins with the mark of its call. A line that one call has begun is ended before
    another call's begins; one that is written over and over (with carriage returns) is replaced
    in place, until something else is written.
    """

    def __init__(self) -> None:
        self._owner: tuple[str, int] | None = None  # mark and stream of the line that is not ended
        self._is_drawn = False  # whether that one began with a carriage return
        self._width = 0  # of it

    def lines(self, mark: str, stream: int, text: str) -> list[tuple[int, str]]:
        """What to write for a piece of text of a call.

        Args:
            mark: the call's.
            stream: 1 or 2.
            text: not always whole lines.

        Returns:
            (stream, text) pieces, in order.
        """
        out: list[tuple[int, str]] = []
        lines = text.replace("\r\n", "\n").split("\n")
        for line in lines[:-1]:
            self._piece(mark, stream, line, out)
            self._put(stream, "\n", out)
            self._owner = None
        if lines[-1]:
            self._piece(mark, stream, lines[-1], out)
        return out

    def _piece(self, mark: str, stream: int, text: str, out: list[tuple[int, str]]) -> None:
        states = [state for state in text.split("\r") if state]
        drawn = "\r" in text
        text = states[-1] if states else ""
        owner = (mark, stream)
        if self._owner == owner and not drawn:
            self._width += len(text)
        elif self._owner is not None and self._owner[1] == stream and drawn and self._is_drawn:
            text = f"{mark} | {text}"
            width, self._width = self._width, len(text)
            text = f"\r{text.ljust(width)}"
        else:
            self.end(out)
            text = f"{mark} | {text}" if text else f"{mark} |"
            self._width = len(text)
        self._owner = owner
        self._is_drawn = self._is_drawn or drawn
        self._put(stream, text, out)

    def end(self, out: list[tuple[int, str]]) -> None:
        """End the line that is not ended, if there is one."""
        if self._owner is not None:
            self._put(self._owner[1], "\n", out)
            self._owner = None
        self._is_drawn = False

    @staticmethod
    def _put(stream: int, text: str, out: list[tuple[int, str]]) -> None:
        if out and out[-1][0] == stream:
            out[-1] = (stream, out[-1][1] + text)
        elif text:
            out.append((stream, text))


class Printer:
    """Says what calls say; starts its thread with the first word.

    Args:
        name: of the executor, for the thread's.
        output: the setting.
    """

    def __init__(self, name: str, output: Output = "marked") -> None:
        self._name = name
        self._marker = Marker() if output == "marked" else None
        self._queue: queue.SimpleQueue[Saying | Callable[[], None] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._waiting = 0  # bytes
        self._dropped = 0  # lines
        self._put_in = 0  # how many sayings the thread was given
        self._done = 0  # how many of them it has said; counted by it
        self.unsaid: dict[int, int] = {}
        """By id of a call, the number of the last that it said. It may have been written since."""

    def hear(
        self,
        heard: Heard,
        place_of: Callable[[str, int], tuple[int, int | None]],
        name_of: Callable[[int], str],
    ) -> None:
        """Say it soon; never blocks.

        Args:
            heard: from a pod.
            place_of: for a pod and a call there, the function's id and, of a range of a map, the
                index of its first item.
            name_of: the name of a function.
        """
        self._forget_said()
        for call, item, cpu_id, kind, body in heard.lines:
            function, start = place_of(heard.pod, call)
            mark = mark_of(name_of(function), call, None if start is None else start + item)
            if self._put(Saying(mark, heard.pod, cpu_id, kind, body)):
                self._put_in += 1
                self.unsaid[call] = self._put_in

    def _forget_said(self) -> None:
        if self._done == self._put_in:
            self.unsaid.clear()

    def divide(self, outcomes: list[Outcome]) -> tuple[list[Outcome], list[Outcome]]:
        """The outcomes of calls all of whose words are written, and the others."""
        self._forget_said()
        unsaid, done = self.unsaid, self._done
        if not unsaid:
            return outcomes, []
        ready: list[Outcome] = []
        late: list[Outcome] = []
        for one in outcomes:
            (late if unsaid.get(one[0], 0) > done else ready).append(one)
        return ready, late

    def then(self, do: Callable[[], None]) -> None:
        """Do something on our thread, after all that was heard so far has been said."""
        self._queue.put(do)

    def _put(self, saying: Saying) -> bool:
        """Have the thread say it; returns whether there was room for it."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"k8sfutures output {self._name}", daemon=True
            )
            self._thread.start()
        with self._lock:
            if self._waiting > MOST_WAITING:
                self._dropped += max(1, saying.body.count(b"\n"))
                return False
            self._waiting += cost_of(saying.body)
        self._queue.put(saying)
        return True

    def close(self, timeout: float) -> None:
        """Say what waits, for at most this many seconds."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join(timeout)
            if self._thread.is_alive():
                logger.warning("output of calls is lost: nobody reads our stdout or stderr")

    # --- the thread

    def _run(self) -> None:
        while (saying := self._queue.get()) is not None:
            if not isinstance(saying, Saying):
                saying()
                continue
            try:
                self._say(saying)
                self._tell_dropped(cost_of(saying.body))
            except BaseException as error:
                # A closed pipe, a missing stream, a handler that fails, or exits: results matter
                # more, and what the next call says.
                logger.warning("cannot show what %s says: %r", saying.mark, error)
            self._done += 1
        try:
            self._end_line()
        except BaseException as error:
            logger.warning("cannot end the last line that calls have printed: %r", error)

    def _tell_dropped(self, done: int) -> None:
        with self._lock:
            self._waiting -= done
            if not self._dropped or self._waiting:
                return  # it is told when all that came before has been said
            dropped, self._dropped = self._dropped, 0
        self._note(f"[k8sfutures: {dropped:,} lines dropped, as they came faster than they go]")

    def _say(self, saying: Saying) -> None:
        mark, kind, body = saying.mark, saying.kind, saying.body
        if kind in {STDOUT, STDERR}:
            text = body.decode("utf-8", "replace")
            _write([(kind, text)] if self._marker is None else self._marker.lines(mark, kind, text))
        elif kind == RECORD:
            self._log(saying)
        elif kind == WARNING:
            self._end_line()
            try:
                issue(body)
            except Warning as error:  # a filter here makes errors of them
                logger.warning("%s was warned: %s: %s", mark, type(error).__name__, error)
        elif kind == DROPPED:
            lines, size = map(int, body.split())
            self._note(f"{mark} | [k8sfutures: {lines:,} lines dropped, {size:,} bytes]")

    def _log(self, saying: Saying) -> None:
        record = unpack_record(saying.body)
        target = logging.getLogger(record.name)
        if not target.isEnabledFor(record.levelno):
            return
        for name, value in (
            ("k8s_call", saying.mark),
            ("k8s_pod", saying.pod),
            ("k8s_cpu_id", saying.cpu_id),
        ):
            if not hasattr(record, name):  # else the call has heard it from a call of its own
                setattr(record, name, value)
        if self._marker is not None:
            record.msg = f"{saying.mark} | {record.msg}"
        self._end_line()
        target.handle(record)

    def _note(self, text: str) -> None:
        self._end_line()
        _write([(STDERR, f"{text}\n")])

    def _end_line(self) -> None:
        out: list[tuple[int, str]] = []
        if self._marker is not None:
            self._marker.end(out)
        _write(out)


def _write(pieces: list[tuple[int, str]]) -> None:
    """Write to what is stdout and stderr now: a notebook's cell, a test's capture."""
    for stream, text in pieces:
        out = sys.stdout if stream == STDOUT else sys.stderr
        if out is not None:
            out.write(text)
            out.flush()
