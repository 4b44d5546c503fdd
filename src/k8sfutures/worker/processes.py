"""The agent's end of its CPU processes: the zygote that forks them, and their channels."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgpack

from ..bodies import PARTS
from ..messages import CRASHED
from ..place import Place
from .frames import TOKEN_SIZE
from .parentage import Child
from .pipes import OutputPipes
from .reports import CONTINUED, END_SIGNAL, ENDED, STARTED, STOPPED, ZygoteKilled
from .shared_memory import Shared

__all__ = [
    "CONTINUED",
    "ENDED",
    "END_SIGNAL",
    "STARTED",
    "STOPPED",
    "Channels",
    "ZygoteHandle",
    "ending",
    "is_ending",
]

_READ: Final = 1 << 18
_BUFFER: Final = 1 << 20
_MOST_FILES: Final = 64
"""Open files that one message through a socket carries; the kernel takes 253."""

_PARTS: Final = bytes((PARTS,))

_SHAPE: Final = (int, int, int, int, bytes)

Frame = tuple[int, int, int, int, bytes]
"""What a CPU process says; see `cpu_process`."""


class Channels:
    """What the agent has of one CPU process: data socket, token pipe, and its pid once known."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.cpu_id = place.cpu_id
        self.pid: int | None = None
        self.registered = False  # with the agent's loop
        self.ended = False  # by us, for what it ran
        self.halted = False  # by a signal of somebody's
        self.data, self._theirs = socket.socketpair()
        for end in (self.data, self._theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self.data.setblocking(False)
        self._tokens_theirs, self._tokens_write = os.pipe()
        # A file description of our own on the pipe's reading end, which does not block: flags
        # belong to the description, and the process must block on its one.
        self._tokens_read = os.open(
            f"/proc/self/fd/{self._tokens_theirs}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        )
        self.output = OutputPipes()
        self._packer = msgpack.Packer()
        self._unpacker = msgpack.Unpacker(use_list=False, max_buffer_size=0)
        self._unsent: deque[tuple[memoryview, list[int]]] = deque()
        self._files: deque[int] = deque()  # that have come, and whose frame has not

    def hand_over(self) -> list[int]:
        """The descriptors for the process; close them with `handed_over`."""
        return [self._theirs.fileno(), self._tokens_theirs, *self.output.hand_over()]

    def handed_over(self) -> None:
        """The process has its ends; ours of them are closed, so that its end shows as EOF."""
        self._theirs.close()
        os.close(self._tokens_theirs)
        self.output.handed_over()

    def feed(
        self, frames: list[tuple[Any, ...]], tokens: list[int], files: Sequence[int] = ()
    ) -> bool:
        """Write frames, then tokens; what the socket does not take now is kept for `resume`.

        Args:
            frames: see `frames`.
            tokens: for the items in them.
            files: descriptors that the frames want, in order; copied here, and so free.

        Returns:
            Whether everything has been written.
        """
        packed = [self._packer.pack(frame) for frame in frames]
        if sum(map(len, packed)) <= _BUFFER:
            packed = [b"".join(packed)]
        data = memoryview(packed[0])
        for start in range(0, len(files), _MOST_FILES):
            # A file comes with the first byte of what it is sent with, and so before its frame.
            copies = [os.dup(file) for file in files[start : start + _MOST_FILES]]
            self._unsent.append((data[:1] if copies else data, copies))
            data = data[1:]
        self._unsent.append((data, []))
        self._unsent += ((memoryview(more), []) for more in packed[1:])
        done = self.resume()
        if tokens:
            os.write(
                self._tokens_write,
                b"".join([token.to_bytes(TOKEN_SIZE, "little") for token in tokens]),
            )
        return done

    def resume(self) -> bool:
        """Write on where the socket was full.

        Returns:
            Whether everything has been written.
        """
        unsent = self._unsent
        try:
            while unsent:
                data, files = unsent[0]
                sent = socket.send_fds(self.data, [data], files) if files else self.data.send(data)
                for file in files:
                    os.close(file)
                if sent == len(data):
                    unsent.popleft()
                else:
                    unsent[0] = (data[sent:], [])
        except BlockingIOError:
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._drop_unsent()  # it has died; the zygote will say how
        return True

    def _drop_unsent(self) -> None:
        for _, files in self._unsent:
            for file in files:
                os.close(file)
        self._unsent.clear()

    def read(self) -> tuple[list[Frame], bool]:
        """What the process has said since the last time.

        Returns:
            The frames, and whether the process has closed its end.

        Raises:
            ValueError: it said something that is none.
        """
        try:
            received = self._receive()
        except BlockingIOError:
            return [], False
        except ConnectionResetError:
            return [], True
        if not received:
            return [], True
        return self._frames(received), False

    def _receive(self) -> bytes:
        received, files, _, _ = socket.recv_fds(self.data, _READ, _MOST_FILES)
        self._files.extend(files)
        return received

    def _frames(self, received: bytes) -> list[Frame]:
        self._unpacker.feed(received)
        frames = list(self._unpacker)
        if not all(type(frame) is tuple and tuple(map(type, frame)) == _SHAPE for frame in frames):
            raise ValueError("not the frames of a CPU process")
        if self._files or any(frame[4][:1] == _PARTS for frame in frames):
            frames = [self._with_memory(frame) for frame in frames]
        return frames

    def _with_memory(self, frame: Frame) -> Frame:
        """An outcome whose parts are in shared memory, with that."""
        token, item, status, number, body = frame
        if status > CRASHED or body[:1] != _PARTS:
            return frame
        if not self._files:
            raise ValueError("an outcome without its file")
        return token, item, status, number, Shared.of(body, self._files.popleft())

    def read_rest(self) -> list[Frame]:
        """Everything that a process has said before it died."""
        frames: list[Frame] = []
        while True:
            try:
                received = self._receive()
            except (BlockingIOError, ConnectionResetError):
                return frames
            if not received:
                return frames
            try:
                frames += self._frames(received)
            except (ValueError, msgpack.UnpackException):
                return frames  # user code has written into our channel

    def steal(self, count: int) -> list[int]:
        """Take back up to so many tokens that the process has not taken."""
        try:
            taken = os.read(self._tokens_read, count * TOKEN_SIZE)
        except BlockingIOError:
            return []
        return [
            int.from_bytes(taken[start : start + TOKEN_SIZE], "little")
            for start in range(0, len(taken), TOKEN_SIZE)
        ]

    def unclaimed(self) -> list[int]:
        """All tokens that a dead process has left."""
        tokens: list[int] = []
        while taken := self.steal(4096):
            tokens += taken
        return tokens

    def close(self) -> None:
        """Close everything; an idle process ends when it sees this."""
        self._drop_unsent()
        while self._files:
            os.close(self._files.popleft())
        self.data.close()
        os.close(self._tokens_write)
        os.close(self._tokens_read)
        self.output.close()

    def kill(self, number: int) -> None:
        """Send the process a signal."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill_rest(self) -> None:
        """End what a call of the process has started, and has left in its process group."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)


class ZygoteHandle:
    """The zygote, as the agent sees it.

    Args:
        control: the socket to it.
        child: its process.
    """

    def __init__(self, control: socket.socket, child: Child) -> None:
        self.control = control
        self._child = child

    def spawn(self, channels: Channels) -> None:
        """Ask for a CPU process at the other end of `channels`."""
        packet = msgpack.packb(channels.place)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # `read` tells of it
            socket.send_fds(self.control, [packet], channels.hand_over())
        channels.handed_over()

    def read(self) -> tuple[int, int, int, int] | None:
        """One report, as the zygote says it; None if the zygote died."""
        try:
            packet = self.control.recv(4096)
        except ConnectionResetError:
            packet = b""
        if not packet:
            return None
        kind, first, second, third = msgpack.unpackb(packet)
        return kind, first, second, third

    def how_it_died(self) -> RuntimeError:
        """What has become of it, once it has closed its end; waits for that."""
        try:
            code = self._child.wait(5)
        except subprocess.TimeoutExpired:
            return RuntimeError("the zygote of the CPU processes listens no more")
        if code < 0:
            return ZygoteKilled(f"signal {-code} has ended the zygote of the CPU processes")
        return RuntimeError(f"the zygote of the CPU processes ended with exit code {code}")

    def close(self) -> None:
        """End the zygote and, through it, every CPU process; wait until they are gone."""
        self.control.close()
        try:
            self._child.wait(5)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def is_ending(pid: int) -> bool:
    """Whether a process is on its way out, or gone.

    That may take a while: the kernel writes its core (Linux says so since 4.15), then takes its
    memory apart.

    Args:
        pid: of a process that has not been waited for.
    """
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return True
    return "\nCoreDumping:\t1\n" in status or "\nVmSize:" not in status


def ending(status: int) -> dict[str, int | None]:
    """How a process ended, from its wait status: fields of `WorkerCrashed`."""
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status), "exitcode": None}
    return {"signal": None, "exitcode": os.waitstatus_to_exitcode(status)}
