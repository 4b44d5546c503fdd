"""A CPU process that is kept ready, to take the place of one that has ended.

It is forked while nothing waits for it. When it is needed, it is told where it is by its first
frame, and takes work at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ..place import Place
from .frames import ADOPT
from .processes import Channels, ZygoteHandle

NOWHERE: Final = -1
"""The CPU id of a process that has none yet."""

PAUSE: Final = 0.02
"""Seconds after which another is made. Its fork is not to take the CPU from what has just begun."""

_PAUSE_AFTER_DEATH: Final = 1.0


class Spare:
    """See the module's text.

    Args:
        zygote: forks it.
        loop: the agent's.
        place: makes the place of a CPU id.
    """

    def __init__(self, zygote: ZygoteHandle, loop: Any, place: Callable[[int], Place]) -> None:
        self._zygote = zygote
        self._loop = loop
        self._place = place
        self._channels: Channels | None = None
        self._due = self._closed = False

    def prepare(self, pause: float = PAUSE) -> None:
        """Make one soon, if there is none."""
        if not self._due and self._channels is None:
            self._due = True
            self._loop.call_later(pause, self._make)

    def _make(self) -> None:
        self._due = False
        if not self._closed:
            self._channels = Channels(self._place(NOWHERE))
            self._zygote.spawn(self._channels)

    def started(self, pid: int) -> None:
        """The zygote has forked it."""
        if self._channels is not None:
            self._channels.pid = pid

    def take(self, cpu_id: int) -> Channels | None:
        """A process for this CPU id, if one is ready."""
        channels = self._channels
        if channels is None or channels.pid is None:
            return None
        self._channels = None
        channels.place = self._place(cpu_id)
        channels.cpu_id = cpu_id
        channels.feed([(ADOPT, *channels.place)], [])
        self.prepare()
        return channels

    def ended(self, pid: int) -> bool:
        """A process has ended; returns whether it was this one, which is then replaced."""
        channels = self._channels
        if channels is None or channels.pid != pid:
            return False
        channels.close()
        self._channels = None
        self.prepare(_PAUSE_AFTER_DEATH)
        return True

    def close(self) -> None:
        """Let it end; no other is made."""
        self._closed = True
        if self._channels is not None:
            self._channels.close()
            self._channels = None
