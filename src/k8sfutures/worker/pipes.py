"""The agent's end of what CPU processes print: their pipes, read on its loop, and the pod's log."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from ..messages import STDERR, STDOUT

if TYPE_CHECKING:
    from .processes import Channels

_READ: Final = 1 << 16
_READABLE: Final = 1

PAUSE: Final = 0.001
"""Seconds that a pipe is left alone whose words are not wanted any more: a call that prints
without end then waits for us, at some 10 MB a second, and not everybody else for it."""

MOST_LOGGED: Final = 1 << 16
"""Bytes that calls may write into the pod's log between two of the agent's ticks."""


class OutputPipes:
    """One pipe for stdout and one for stderr of a CPU process, and of all that it starts."""

    def __init__(self) -> None:
        self.listening = False
        self._ends = {stream: os.pipe() for stream in (STDOUT, STDERR)}
        for read, _ in self._ends.values():
            os.set_blocking(read, False)

    def descriptor(self, stream: int) -> int:
        """The end that is read."""
        return self._ends[stream][0]

    def hand_over(self) -> list[int]:
        """The ends for the process, stdout's first; close them with `handed_over`."""
        return [write for _, write in self._ends.values()]

    def handed_over(self) -> None:
        """The process has its ends."""
        for write in self.hand_over():
            os.close(write)

    def read(self, stream: int) -> bytes | None:
        """What is there; None where nothing is, and b"" where nobody can write any more."""
        try:
            return os.read(self.descriptor(stream), _READ)
        except BlockingIOError:
            return None

    def rest(self) -> list[tuple[int, bytes]]:
        """All that a process has left as it died, by stream."""
        return [(stream, data) for stream in self._ends if (data := self.read(stream))]

    def close(self) -> None:
        """Close our ends: what a call has left running finds nobody to print to."""
        for read, _ in self._ends.values():
            os.close(read)


class Ears:
    """Reads the pipes of CPU processes.

    Args:
        loop: the agent's.
        before: called with the channels of a process before one of its pipes is read: whose
            item it is that prints, the frames say that are there already.
        heard: takes CPU id, stream and bytes; returns whether there was room for them.
    """

    def __init__(
        self,
        loop: Any,
        before: Callable[[Channels], None],
        heard: Callable[[int, int, bytes], bool],
    ) -> None:
        self._loop = loop
        self._before = before
        self._heard = heard
        self._paused: set[int] = set()

    def listen(self, cpu_id: int, channels: Channels) -> None:
        """Begin to read what a process prints."""
        channels.output.listening = True
        for stream in (STDOUT, STDERR):
            self._register(cpu_id, channels, stream)

    def _register(self, cpu_id: int, channels: Channels, stream: int) -> None:
        pipes = channels.output
        descriptor = pipes.descriptor(stream)

        def readable(_fd: int, _events: int) -> None:
            self._before(channels)
            data = pipes.read(stream) if pipes.listening else None
            if data is None:
                return
            if not data:
                self._pause(descriptor)
            elif not self._heard(cpu_id, stream, data) and pipes.listening:
                self._pause(descriptor)
                self._loop.call_later(PAUSE, again)

        def again() -> None:
            if pipes.listening:
                self._paused.discard(descriptor)
                self._loop.add_handler(descriptor, readable, _READABLE)

        again()

    def _pause(self, descriptor: int) -> None:
        self._paused.add(descriptor)
        self._loop.remove_handler(descriptor)

    def stop(self, pipes: OutputPipes) -> None:
        """Read no more; before the pipes are closed."""
        if pipes.listening:
            pipes.listening = False
            for stream in (STDOUT, STDERR):
                descriptor = pipes.descriptor(stream)
                if descriptor not in self._paused:
                    self._loop.remove_handler(descriptor)
                self._paused.discard(descriptor)


class PodLog:
    """What calls print and no client wants to hear, in the pod's own log: not without end."""

    def __init__(self) -> None:
        self._left = MOST_LOGGED
        self._dropped = 0

    def write(self, data: bytes) -> None:
        """Write bytes, or count them as dropped."""
        if not data:
            return
        if len(data) > self._left:
            self._dropped += len(data)
            return
        self._left -= len(data)
        sys.stderr.write(data.decode("utf-8", "replace"))
        sys.stderr.flush()

    def renew(self) -> None:
        """Time has passed: there is room again."""
        self._left = MOST_LOGGED
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            sys.stderr.write(f"[k8sfutures: {dropped:,} bytes that calls printed are left out]\n")
