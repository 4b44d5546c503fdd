"""What is bulky, as a CPU process has it: the blobs of calls, and the outcomes of its own."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import socket
from collections import deque
from collections.abc import Sequence
from typing import ClassVar, Final

from ..bodies import with_parts
from ..errors import ResultNotLoadable
from ..exceptions import dumps_exception
from ..messages import GROUP_LIMIT, INLINE_LIMIT
from . import shared_memory

MOST_OPEN: Final = 256
"""Files in memory that a CPU process keeps open."""

_MOST_FILES: Final = 64


class File:
    """A file in memory that has come through the socket.

    A process may have 1024 open files by default, and they are the calls'. So only so many of
    ours are open at once; of more, only the memory is kept, and copied for each use.

    Args:
        descriptor: closed by this.
    """

    __slots__ = ("_descriptor", "_memory", "_size")
    _open: ClassVar[int] = 0

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._size = os.fstat(descriptor).st_size
        self._memory: memoryview | None = None
        File._open += 1
        if File._open > MOST_OPEN:
            self._memory = shared_memory.view(descriptor, self._size)
            self._close()

    def own_copy(self) -> memoryview:
        """Its bytes, to be changed without anybody else's seeing it."""
        if self._memory is not None:
            return memoryview(bytearray(self._memory))
        return shared_memory.own_copy(self._descriptor, self._size)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            File._open -= 1
            self._descriptor = -1

    def __del__(self) -> None:
        self._close()


def receive(data: socket.socket, size: int, files: deque[File]) -> bytes:
    """Receive from the agent.

    Args:
        data: the socket.
        size: bytes, at most.
        files: those that come are added.

    Returns:
        The bytes; none when the agent is gone.

    Raises:
        OSError: a file could not be received, since too many are open here.
    """
    received, descriptors, flags, _ = socket.recv_fds(data, size, _MOST_FILES)
    files.extend(map(File, descriptors))
    if flags & socket.MSG_CTRUNC:
        most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        raise OSError(
            errno.EMFILE,
            f"calls have left so many files open in this process, which may have {most}, that an "
            "argument could not be received: have them close their files, or raise that limit in "
            "an initializer (resource.RLIMIT_NOFILE)",
        )
    return received


def send(data: socket.socket, frame: bytes, file: int) -> None:
    """Send a frame to the agent, with the file that it wants.

    Args:
        data: the socket.
        frame: its bytes.
        file: descriptor; closed by this.
    """
    try:
        try:
            sent = socket.send_fds(data, [frame], [file])
        except OSError as error:
            if error.errno != errno.ETOOMANYREFS:
                raise
            # Files are on their way to other processes, too, and all of one user count together:
            # as many may be as this process may have open (unix(7)).
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            try:
                sent = socket.send_fds(data, [frame], [file])
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    finally:
        os.close(file)
    data.sendall(frame[sent:])


class Blob:
    """A blob that the agent has passed on: bytes, or a file in memory.

    Args:
        kind: `messages.DATA` or `messages.MODULES`.
        data: its bytes, or None where the next of the files has them.
        files: that have come.
    """

    __slots__ = ("_data", "_file", "kind")

    def __init__(self, kind: int, data: bytes | None, files: deque[File]) -> None:
        self.kind = kind
        self._data = data
        self._file = files.popleft() if data is None else None

    def own_copy(self) -> memoryview:
        """Its bytes, to be changed without anybody else's seeing it."""
        if self._file is not None:
            return self._file.own_copy()
        return memoryview(bytearray(self._data or b""))


def outcome_body(
    segments: Sequence[bytes], buffers: Sequence[pickle.PickleBuffer]
) -> tuple[bytes, int | None]:
    """The body of an outcome, and the file that holds its bulky parts, if there are any.

    Args:
        segments: of its pickle.
        buffers: those that are out of band.
    """
    if not buffers and len(segments) == 1 and len(segments[0]) <= INLINE_LIMIT:
        return segments[0], None
    parts: list[bytes | memoryview] = []

    def number_of(part: bytes | memoryview) -> int:
        parts.append(part)
        return len(parts) - 1

    numbers = [
        segment if len(segment) <= INLINE_LIMIT else number_of(segment) for segment in segments
    ]
    outside = [number_of(buffer.raw()) for buffer in buffers]
    body = with_parts(numbers, outside, [len(part) for part in parts])
    if len(body) > INLINE_LIMIT:  # of very many parts, or of many that are not bulky by themselves
        body = with_parts([number_of(body)], [], [len(part) for part in parts])
    return body, shared_memory.holding(parts)


def initializer_error(error: BaseException) -> bytes:
    """The pickle of what an initializer raised; of words about it where one message is too small.

    Args:
        error: what it raised.
    """
    data = dumps_exception(error)
    if len(data) <= GROUP_LIMIT:
        return data
    described = ResultNotLoadable(
        f"the initializer raised {type(error).__qualname__}, whose pickle has {len(data)} bytes, "
        f"more than the {GROUP_LIMIT} that can travel from there; it begins: {str(error)[:1000]!r}"
    )
    return dumps_exception(described.with_traceback(error.__traceback__))
