"""What a call prints, in its CPU process: live to the agent, and marked with its item.

Text that Python writes goes line by line through the data socket, so that each line is marked
with the item that wrote it. Whatever else writes to file descriptors 1 and 2 (subprocesses, C
code, a fault handler) writes into two pipes. The agent reads them while a call runs, and what is
there at the end of an item, or before a line of Python's, the process takes out itself: so it is
marked right and stands where it was written. What a process leaves in a pipe as it dies, the
agent still finds.

Many lines at once go into the pipes, too: there the agent takes them in bulk, and a call that
prints a gigabyte waits for it, and costs it no more than the copying.
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ..messages import STDERR, STDOUT
from .strangers import Strangers

PIPE: Final = 1 << 16
"""Bytes that a pipe holds, by Linux' default."""

LONGEST_LINE: Final = 1 << 16
"""Characters of a line that is not ended; more are sent as they are."""

REDRAW: Final = 0.1
"""Seconds between two states of a line that is written over and over, as a progress bar is."""

BURST: Final = 32
"""Frames in quick succession; what comes faster, or is larger than a pipe, goes in bulk."""

FRAMES_PER_SECOND: Final = 500
"""Frames that a process can go on sending."""


class Allowance:
    """So many at once, and so many a second.

    Args:
        burst: how many at once.
        rate: how many a second.
    """

    def __init__(self, burst: float, rate: float) -> None:
        self._burst = self._left = burst
        self._rate = rate
        self._at = time.monotonic()

    def take(self) -> bool:
        """One more; returns whether it may be."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Outlet:
    """Both streams of a CPU process, and what comes through its pipes.

    Args:
        send: sends text or a record to the agent, by kind, for the item that runs.
        ends: the writing ends of the pipes, of stdout and of stderr.
        strangers: the threads that do not speak for the item that runs.
        aside: sends what these say.
    """

    def __init__(
        self,
        send: Callable[[int, bytes], None],
        ends: tuple[int, int] = (1, 2),
        strangers: Strangers | None = None,
        aside: Callable[[int, bytes], None] = lambda _kind, _body: None,
    ) -> None:
        self._send = send
        self._strangers = strangers or Strangers()
        self._aside = aside
        self._pid = os.getpid()
        self._allowance = Allowance(BURST, FRAMES_PER_SECOND)
        # Re-entrant: a finaliser or a signal handler that prints may run inside a write.
        self._lock = threading.RLock()
        self._poller = select.poll()
        self._pipes: dict[int, int] = {}  # stream by reading end
        self._bulk: dict[int, int] = {}  # writing end by stream, whatever a call makes of 1 and 2
        for stream, end in zip((STDOUT, STDERR), ends, strict=True):
            # A description of our own, which does not block, on the pipe's other end.
            pipe = os.open(f"/proc/self/fd/{end}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            self._pipes[pipe] = stream
            self._poller.register(pipe, select.POLLIN)
            self._bulk[stream] = os.dup(end)
        self.streams = (Stream(self, STDOUT), Stream(self, STDERR))
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        """In a child, where no thread will give a lock back."""
        self._lock = threading.RLock()
        for stream in self.streams:
            stream.forked()
        while self._pipes:  # once: a child of this one may have other files of these numbers
            pipe, _ = self._pipes.popitem()
            os.close(pipe)  # what nobody reads any more must not block its writer

    def install(self) -> None:
        """Have Python print through us."""
        sys.stdout, sys.stderr = self.streams
        sys.__stdout__, sys.__stderr__ = self.streams  # type: ignore[misc, assignment]

    def text(self, stream: int, text: str) -> None:
        """Something that Python wrote."""
        data = text.encode("utf-8", "backslashreplace")
        with self._lock:
            # A process that the call has forked has no say in what travels on our socket.
            is_frame = os.getpid() == self._pid and len(data) <= PIPE and self._allowance.take()
            if is_frame:
                self.drain()
                self._send(stream, data)
            else:
                rest = memoryview(data)
                while rest:
                    rest = rest[os.write(self._bulk[stream], rest) :]

    def is_aside(self, stream: int, text: str) -> bool:
        """Whether text is not of the item that runs; then it has been sent aside."""
        if not self._strangers.is_here():
            return False
        if os.getpid() == self._pid and self._allowance.take():  # else there is too much of it
            self._aside(stream, text.encode("utf-8", "backslashreplace")[:PIPE])
        return True

    def record(self, kind: int, body: bytes) -> None:
        """A record: it is no text, and a forked process cannot send it."""
        if os.getpid() == self._pid and not self._strangers.is_here():
            with self._lock:
                self.drain()
                self._send(kind, body)

    def finish(self) -> None:
        """The item has ended: send what is left of it."""
        for stream in self.streams:
            stream.finish()
        self.drain()

    def drain(self) -> None:
        """Send what is in the pipes."""
        for pipe, _ in self._poller.poll(0):
            stream = self._pipes[pipe]
            try:
                data = os.read(pipe, PIPE)
            except BlockingIOError:
                continue  # the agent was faster
            self._send(stream, data)


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``: bytes that are text."""

    def __init__(self, text: Stream) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._text.fileno()

    def write(self, data: Any, /) -> int:
        with memoryview(data) as view:
            self._text.write(self._decoder.decode(view.tobytes()))
            return view.nbytes

    def flush(self) -> None:
        self._text.flush()

    def close(self) -> None:
        """Stay open, as the text does."""


class Stream(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` of a call: what it writes goes on by lines.

    Threads do not write into each other's lines.
    A line that is not ended goes on when it is flushed, and at the end of the call. One that is
    written over and over (with carriage returns, as progress bars do) goes on ten times a second
    at most, as it looks then.
    """

    errors = "backslashreplace"
    line_buffering = True
    write_through = False
    mode = "w"

    def __init__(self, outlet: Outlet, stream: int) -> None:
        self._outlet = outlet
        self._stream = stream
        self._lines: dict[int, str] = {}  # not ended, by thread
        self._drawn = 0.0
        self._lock = threading.RLock()
        self.name = "<stdout>" if stream == STDOUT else "<stderr>"
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    def reconfigure(self, **options: object) -> None:
        """Accept what `io.TextIOWrapper` does; the text travels as UTF-8 in any case."""

    def forked(self) -> None:
        """In a child, where no thread will give the lock back."""
        self._lock = threading.RLock()

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._outlet.is_aside(self._stream, text):
            return len(text)
        thread = threading.get_ident()
        with self._lock:
            line = self._lines.pop(thread, "") + text
            if "\n" in text or len(line) > LONGEST_LINE:
                lines, newline, rest = line.rpartition("\n")
                if not newline:
                    lines, rest = rest, ""
                if "\r" in lines:
                    lines = "\n".join([_overwritten(one) for one in lines.split("\n")])
                self._outlet.text(self._stream, lines + newline)
                line = rest
            if line:
                self._lines[thread] = line
        return len(text)

    def flush(self) -> None:
        if self._lines:
            with self._lock:
                self._flush(threading.get_ident())

    def _flush(self, thread: int) -> None:
        line = self._lines.pop(thread, "")
        if "\r" in line:
            line = _overwritten(line)
            now = time.monotonic()
            if now - self._drawn < REDRAW:
                self._lines[thread] = line
                return
            self._drawn = now
        if line:
            self._outlet.text(self._stream, line)

    def finish(self) -> None:
        """Send the lines that are not ended."""
        if self._lines:
            with self._lock:
                lines, self._lines = self._lines, {}
                for line in lines.values():
                    self._outlet.text(self._stream, _overwritten(line))

    def close(self) -> None:
        """Stay open: later calls, of other clients even, write here too."""
        self.flush()


def _overwritten(line: str) -> str:
    """The last state of a line that is written over and over; other lines as they are.

    It begins with the carriage return where it replaces what was there before.
    """
    end = "\r" if line.endswith("\r") else ""
    body = line[: len(line) - len(end)]
    before, carriage_return, last = body.rpartition("\r")
    return f"{carriage_return}{last}{end}" if before or carriage_return else line
