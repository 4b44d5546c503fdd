"""The CPU processes of a pod, on the agent's loop: started, fed, heard, replaced when they end."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgpack

from ..place import Place
from .configuration import AgentConfig
from .dispatch import SIGKILL, Dispatcher
from .instructions import Feed, Kill
from .memory import MemoryVerdict
from .pipes import Ears
from .processes import (
    CONTINUED,
    END_SIGNAL,
    STARTED,
    STOPPED,
    Channels,
    ZygoteHandle,
    ending,
    is_ending,
)
from .spare import NOWHERE, Spare
from .store import Store

logger = logging.getLogger(__name__)

KILL_AFTER: Final = 3.0
"""Seconds for a CPU process to end by itself, or by a signal that it may ignore."""

END_WITHIN: Final = 1.0
"""Seconds for a CPU process to end whose call has run for too long, or is wanted no more."""

_MOST_READS: Final = 16
"""More than what fits into a process's socket takes."""

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
        memory: the pod's.
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
        memory: MemoryVerdict,
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
        self._spare = Spare(zygote, loop, self._place)
        self._memory = memory
        self._ears = Ears(loop, self._process_readable, self._printed)

    def _place(self, cpu_id: int) -> Place:
        return Place(self._config.name, self._config.node, cpu_id)

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
        self._spare.close()
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
        """Start a process, or take the one that is kept ready."""
        channels = self._spare.take(cpu_id)
        if channels is None:
            self._channels[cpu_id] = channels = Channels(self._place(cpu_id))
            self._zygote.spawn(channels)
        else:
            self._channels[cpu_id] = channels
            self._serves(channels)

    def kill(self, kill: Kill) -> None:
        """Send a process a signal, and the last one if it does not end by that."""
        channels = self._channels[kill.cpu_id]
        channels.kill(kill.signal)
        if kill.signal != SIGKILL:
            self._kill_later(channels)

    def end(self, cpu_id: int) -> None:
        """End a process, if the dispatcher wants that of all that the process has said."""
        channels = self._channels[cpu_id]
        self._hear_all(channels)
        if self._dispatcher.decide(cpu_id):
            channels.ended = True
            channels.kill(END_SIGNAL)
            self._kill_later(channels, END_WITHIN)

    def on_the_way_out(self, cpu_ids: Iterable[int]) -> list[int]:
        """Those of these CPU ids whose process is on its way out."""
        pids = {cpu_id: self._channels[cpu_id].pid for cpu_id in cpu_ids}
        return [cpu_id for cpu_id, pid in pids.items() if pid is not None and is_ending(pid)]

    def _kill_later(self, channels: Channels, within: float = KILL_AFTER) -> None:
        def insist() -> None:
            if self._channels.get(channels.cpu_id) is channels:
                channels.kill(SIGKILL)

        self._loop.call_later(within, insist)

    def retire(self, cpu_id: int) -> None:
        """Let an idle process end, and have another in its place."""
        channels = self._channels.pop(cpu_id)
        self._stop_reading(channels)
        channels.close()
        if channels.pid is not None:
            self._retired[channels.pid] = channels
            if channels.halted:
                channels.kill(SIGKILL)  # it does not see that it is to end
        self.spawn(cpu_id)

    def _zygote_readable(self, _fd: int, _events: int) -> None:
        report = self._zygote.read()
        if report is None:
            for channels in self._channels.values():
                channels.kill(SIGKILL)
            self._fail(self._zygote.how_it_died())
            return
        kind, first, second, third = report
        if kind == STARTED:
            self._started(cpu_id=first, pid=second)
        elif kind in (STOPPED, CONTINUED):
            self._halted(pid=first, number=second, stopped=kind == STOPPED)
        elif self._retired.pop(first, None) is None and not self._spare.ended(first):
            self._ended(pid=first, status=second, peak=third)
        self._carry_out()

    def _started(self, cpu_id: int, pid: int) -> None:
        if cpu_id == NOWHERE:
            self._spare.started(pid)
            return
        channels = self._channels[cpu_id]
        channels.pid = pid
        self._serves(channels)
        if all(one.pid is not None for one in self._channels.values()):
            self._spare.prepare()

    def _serves(self, channels: Channels) -> None:
        """A process is there, and takes work."""

        def ready(_fd: int, events: int) -> None:
            if events & _WRITABLE and channels.resume():
                self._loop.update_handler(channels.data.fileno(), _READABLE)
            if events & ~_WRITABLE:
                self._process_readable(channels)

        self._loop.add_handler(channels.data.fileno(), ready, _READABLE)
        channels.registered = True
        self._ears.listen(channels.cpu_id, channels)
        self._dispatcher.ready(channels.cpu_id, time.monotonic())

    def _process_readable(self, channels: Channels) -> None:
        self._hear(channels)
        self._carry_out()

    def _hear(self, channels: Channels) -> None:
        """Take in what a process has said."""
        try:
            frames, closed = channels.read()
        except (ValueError, msgpack.UnpackException):
            # User code has written into our channel: this process is lost, and no other.
            logger.exception("CPU process %s does not speak our language", channels.pid)
            self._stop_reading(channels)
            channels.kill(SIGKILL)
            return
        if frames:
            self._dispatcher.frames(channels.cpu_id, frames, time.monotonic())
        if closed:
            # It has died, and the zygote's report follows; or user code has closed the channel,
            # and then the process is of no use any more.
            self._stop_reading(channels)
            self._kill_later(channels)

    def _hear_all(self, channels: Channels) -> None:
        """Take in all that a process has said so far."""
        for _ in range(_MOST_READS):
            if channels.registered:
                self._hear(channels)

    def _stop_reading(self, channels: Channels) -> None:
        if channels.registered:
            channels.registered = False
            self._loop.remove_handler(channels.data.fileno())
            self._ears.stop(channels.output)

    def _printed(self, cpu_id: int, stream: int, data: bytes) -> bool:
        wanted = self._dispatcher.said.printed(cpu_id, stream, data)
        self._carry_out()
        return wanted

    def _halted(self, pid: int, number: int, *, stopped: bool) -> None:
        """Somebody has stopped a process with a signal, or has let it go on."""
        channels = next((some for some in self._channels.values() if some.pid == pid), None)
        if channels is not None:
            channels.halted = stopped
            if stopped:
                logger.warning(
                    "CPU process %s (CPU id %s) was stopped by signal %s: it is given no calls, "
                    "and what it runs waits for SIGCONT, or for its timeout",
                    *(pid, channels.cpu_id, number),
                )
                self._hear_all(channels)
            self._dispatcher.halted(channels.cpu_id, time.monotonic(), stopped=stopped)
        elif stopped:
            # Kept ready, or to end by itself: it can do neither.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, SIGKILL)

    def _ended(self, pid: int, status: int, peak: int) -> None:
        channels = next((some for some in self._channels.values() if some.pid == pid), None)
        if channels is None:
            return
        cpu_id = channels.cpu_id
        frames = channels.read_rest()
        unclaimed = channels.unclaimed()
        name, node, _ = channels.place
        story = {"pod": name, "node": node, "cpu_id": cpu_id, "pid": pid, **ending(status)}
        story |= {"memory_peak": peak, "memory_limit": self._memory.limit}
        if self._memory.killed() and story["signal"] == SIGKILL:
            story["out_of_memory"] = True
        if channels.ended:
            channels.kill_rest()
        number, code = story["signal"], story["exitcode"]
        logger.log(
            logging.INFO if channels.ended else logging.WARNING,
            "CPU process %s (CPU id %s) ended with %s%s",
            *(pid, cpu_id, f"exit code {code}" if number is None else f"signal {number}"),
            ", out of memory" if "out_of_memory" in story else "",
        )
        self._stop_reading(channels)
        words = channels.output.rest()
        channels.close()
        del self._channels[cpu_id]
        self._dispatcher.died(cpu_id, frames, unclaimed, story, words, time.monotonic())
        self.spawn(cpu_id)
