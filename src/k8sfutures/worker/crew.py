"""The CPU processes of a pod, on the agent's loop: started, fed, heard, replaced when they end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

import msgpack

from ..exceptions import Place
from .configuration import AgentConfig
from .dispatch import SIGKILL, Dispatcher
from .instructions import Feed, Kill
from .memory import MemoryVerdict
from .pipes import Ears
from .processes import STARTED, Channels, ZygoteHandle, ending
from .store import Store

logger = logging.getLogger(__name__)

KILL_AFTER: Final = 3.0
"""Seconds for a CPU process to end by itself, or by a signal that it may ignore."""

_READABLE: Final = 1
_WRITABLE: Final = 4


class Crew:
    """See the module's text.

    Args:
        config: who this pod is.
        zygote: what forks the CPU processes.
        loop: the event loop that everything here runs on.
        dispatcher: told what processes say, and that they came and went.
        store: has the blobs that processes are given.
        carry_out: does what the dispatcher wants.
        fail: ends the pod for a reason.
    """

    def __init__(
        self,
        config: AgentConfig,
        zygote: ZygoteHandle,
        loop: Any,
        dispatcher: Dispatcher,
        store: Store,
        carry_out: Callable[[], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._zygote = zygote
        self._loop = loop
        self._dispatcher = dispatcher
        self._store = store
        self._carry_out = carry_out
        self._fail = fail
        self._channels: dict[int, Channels] = {}  # by CPU id
        self._retired: dict[int, Channels] = {}  # by pid
        self._memory = MemoryVerdict()
        self._ears = Ears(loop, self._process_readable, self._printed)

    def start(self) -> None:
        """Start a process for each CPU id."""
        self._loop.add_handler(self._zygote.control.fileno(), self._zygote_readable, _READABLE)
        for cpu_id in self._config.cpu_ids:
            self.spawn(cpu_id)

    def close(self) -> None:
        """End every process; the loop turns no more."""
        for channels in self._channels.values():
            self._stop_reading(channels)
            channels.close()
        self._loop.remove_handler(self._zygote.control.fileno())
        self._zygote.close()

    def feed(self, feed: Feed) -> None:
        """Give a process its blobs, frames and tokens."""
        channels = self._channels[feed.cpu_id]
        frames: list[tuple[Any, ...]] = feed.frames
        files: list[int] = []
        if feed.blobs:
            blobs, files = self._store.frames(feed.client, feed.blobs)
            frames = [*blobs, *frames]
        if not channels.feed(frames, feed.tokens, files) and channels.registered:
            self._loop.update_handler(channels.data.fileno(), _READABLE | _WRITABLE)

    def steal(self, cpu_id: int, count: int) -> list[int]:
        """Take back up to so many tokens that a process has not taken."""
        return self._channels[cpu_id].steal(count)

    def spawn(self, cpu_id: int) -> None:
        """Start a process."""
        channels = Channels(Place(self._config.name, self._config.node, cpu_id))
        self._channels[cpu_id] = channels
        self._zygote.spawn(channels)

    def kill(self, kill: Kill) -> None:
        """Send a process a signal, and the last one if it does not end by that."""
        channels = self._channels[kill.cpu_id]
        channels.kill(kill.signal)
        if kill.signal != SIGKILL:
            self._kill_later(channels)

    def _kill_later(self, channels: Channels) -> None:
        def insist() -> None:
            if self._channels.get(channels.cpu_id) is channels:
                channels.kill(SIGKILL)

        self._loop.call_later(KILL_AFTER, insist)

    def retire(self, cpu_id: int) -> None:
        """Let an idle process end, and have another in its place."""
        channels = self._channels.pop(cpu_id)
        self._stop_reading(channels)
        channels.close()
        if channels.pid is not None:
            self._retired[channels.pid] = channels
        self.spawn(cpu_id)

    def _zygote_readable(self, _fd: int, _events: int) -> None:
        report = self._zygote.read()
        if report is None:
            for channels in self._channels.values():
                channels.kill(SIGKILL)
            self._fail(RuntimeError("the zygote of the CPU processes has died"))
            return
        kind, first, second = report
        if kind == STARTED:
            self._started(cpu_id=first, pid=second)
        elif self._retired.pop(first, None) is None:
            self._ended(pid=first, status=second)
        self._carry_out()

    def _started(self, cpu_id: int, pid: int) -> None:
        channels = self._channels[cpu_id]
        channels.pid = pid

        def ready(_fd: int, events: int) -> None:
            if events & _WRITABLE and channels.resume():
                self._loop.update_handler(channels.data.fileno(), _READABLE)
            if events & ~_WRITABLE:
                self._process_readable(channels)

        self._loop.add_handler(channels.data.fileno(), ready, _READABLE)
        channels.registered = True
        self._ears.listen(channels.cpu_id, channels)
        self._dispatcher.ready(cpu_id)

    def _process_readable(self, channels: Channels) -> None:
        try:
            frames, closed = channels.read()
        except (ValueError, msgpack.UnpackException):
            # User code has written into our channel: this process is lost, and no other.
            logger.exception("CPU process %s does not speak our language", channels.pid)
            self._stop_reading(channels)
            channels.kill(SIGKILL)
            return
        if frames:
            self._dispatcher.frames(channels.cpu_id, frames)
        if closed:
            # It has died, and the zygote's report follows; or user code has closed the channel,
            # and then the process is of no use any more.
            self._stop_reading(channels)
            self._kill_later(channels)
        self._carry_out()

    def _stop_reading(self, channels: Channels) -> None:
        if channels.registered:
            channels.registered = False
            self._loop.remove_handler(channels.data.fileno())
            self._ears.stop(channels.output)

    def _printed(self, cpu_id: int, stream: int, data: bytes) -> bool:
        wanted = self._dispatcher.said.printed(cpu_id, stream, data)
        self._carry_out()
        return wanted

    def _ended(self, pid: int, status: int) -> None:
        channels = next((some for some in self._channels.values() if some.pid == pid), None)
        if channels is None:
            return
        cpu_id = channels.cpu_id
        frames = channels.read_rest()
        unclaimed = channels.unclaimed()
        story = {"pod": self._config.name, "cpu_id": cpu_id, "pid": pid, **ending(status)}
        if self._memory.killed() and story["signal"] == SIGKILL:
            story |= {"out_of_memory": True, "memory_limit": self._memory.limit}
        logger.warning("CPU process ended: %s", story)
        self._stop_reading(channels)
        words = channels.output.rest()
        channels.close()
        del self._channels[cpu_id]
        self._dispatcher.died(cpu_id, frames, unclaimed, story, words)
        self.spawn(cpu_id)
