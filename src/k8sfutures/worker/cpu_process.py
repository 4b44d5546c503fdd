"""A CPU process: runs calls one after another, pinned to one CPU id.

It shares two channels with its agent:

* ``data``, a stream socket, carries msgpack frames both ways: jobs and functions in, outcomes
  out, each as soon as it is there;
* ``tokens``, a pipe, carries one token (4 bytes) for each item of work that the agent has
  given. The process takes a token before it starts an item, and the agent can take tokens back
  at any time, without asking: whoever reads a token has the item. So an item is started by one
  process only, the agent knows exactly which item ran when a process died, and calls that were
  queued behind a long one move to another process at once.

Frames to the process: see `frames`. Frames from it: ``(token, item, status, microseconds,
body)``, where the status is one of an outcome, `PRINTED` or `INITIALIZER_RAISED`.
"""

from __future__ import annotations

import codecs
import io
import os
import socket
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any, Final

import msgpack

from ..exceptions import dumps_exception
from ..functions import invoke
from ..messages import EXCEPTION, NOT_LOADABLE, RESULT
from ..scopes import Loaded, Scope
from ..serialization import dumps, loads
from ..unpicklable import blame_result
from .frames import (
    FORGET,
    FUNCTIONS,
    INITIALIZE,
    INITIALIZER_RAISED,
    JOBS,
    LEAVE,
    PRINTED,
    RELEASE,
    TOKEN_SIZE,
)

_RECEIVE: Final = 1 << 20
_LONGEST_LINE: Final = 1 << 16


class _Job:
    """What one token is about: a call, or a part of a range of a map."""

    __slots__ = ("bodies", "client", "function", "items", "next")

    def __init__(
        self, client: str, function: int, items: int, start: int, stop: int, body: bytes
    ) -> None:
        self.client = client
        self.function = function
        self.items = stop - start if items else 1
        self.next = start
        self.bodies: list[bytes | None] | bytes = msgpack.unpackb(body) if items else body


class _Client:
    """What this process keeps for one client."""

    __slots__ = ("functions", "initializer", "pickles", "scope")

    def __init__(self) -> None:
        self.pickles: dict[int, bytes] = {}
        self.functions: dict[int, Loaded] = {}
        self.initializer: bytes | None = None
        self.scope = Scope()

    def function(self, function_id: int) -> Any:
        function = self.functions.get(function_id)
        if function is None:
            function = self.scope.load(self.pickles[function_id])
            self.functions[function_id] = function
        return self.scope.use(function)


class _Bytes(io.RawIOBase):
    """``sys.stdout.buffer``: bytes that are text."""

    def __init__(self, text: _Output) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._text.write(self._decoder.decode(bytes(data)))
        return len(data)

    def flush(self) -> None:
        self._text.flush()

    def close(self) -> None:
        """Stay open, as the text does."""


class _Output(io.TextIOBase):
    """``sys.stdout`` or ``sys.stderr`` of a call: what it writes goes to the agent by lines."""

    def __init__(self, process: CpuProcess, stream: int) -> None:
        self._process = process
        self._stream = stream
        self._line = ""
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream

    def write(self, text: str, /) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._line += text
        if "\n" in text or len(self._line) > _LONGEST_LINE:
            lines, newline, self._line = self._line.rpartition("\n")
            if not newline:
                lines, self._line = self._line, ""
            self._process.printed(self._stream, lines + newline)
        return len(text)

    def flush(self) -> None:
        if self._line:
            line, self._line = self._line, ""
            self._process.printed(self._stream, line)

    def close(self) -> None:
        """Stay open: later calls, of other clients even, write here too."""
        self.flush()


class CpuProcess:
    """The main loop; see the module's text.

    Args:
        data: the stream socket to the agent.
        tokens: file descriptor of the token pipe.
    """

    def __init__(self, data: socket.socket, tokens: int) -> None:
        self._data = data
        self._tokens = tokens
        self._unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, max_buffer_size=0)
        self._packer = msgpack.Packer()
        self._sending = threading.Lock()  # threads of the user's may print
        self._outputs = (_Output(self, 1), _Output(self, 2))
        self._clients: dict[str, _Client] = {}
        self._jobs: dict[int, _Job] = {}
        self._token = 0
        self._item = 0
        self._pid = os.getpid()

    def run(self) -> None:
        """Run items until the agent closes the token pipe."""
        sys.stdout, sys.stderr = self._outputs
        read, tokens = os.read, self._tokens
        while True:
            token = read(tokens, TOKEN_SIZE)
            if not token:
                return
            number = int.from_bytes(token, "little")
            job = self._jobs.get(number)
            while job is None:
                if not self._receive():
                    return
                job = self._jobs.get(number)
            self._run_item(number, job)
            del job

    def printed(self, stream: int, text: str) -> None:
        """Send what a call wrote; from a process that the call forked, write it plainly."""
        if os.getpid() == self._pid:
            self._send((self._token, self._item, PRINTED, stream, text.encode("utf-8", "replace")))
        else:
            os.write(stream, text.encode("utf-8", "replace"))

    # --- frames

    def _receive(self) -> bool:
        """Take in at least one frame; False when the agent is gone."""
        taken = False
        while not taken:
            received = self._data.recv(_RECEIVE)
            if not received:
                return False
            self._unpacker.feed(received)
            del received
            for frame in self._unpacker:
                self._take(frame)
                taken = True
        return True

    def _take(self, frame: tuple[Any, ...]) -> None:
        kind, name, *rest = frame
        if kind == LEAVE:
            left = self._clients.pop(name, None)
            if left is not None:
                left.scope.leave()
        elif kind == FORGET:
            for token in rest[0]:
                self._jobs.pop(token, None)
        else:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = _Client()
            if kind == JOBS:
                for token, function, items, start, stop, body in rest[0]:
                    self._jobs[token] = _Job(name, function, items, start, stop, body)
            elif kind == FUNCTIONS:
                client.pickles.update(rest[0])
            elif kind == RELEASE:
                for function in rest[0]:
                    client.pickles.pop(function, None)
                    client.functions.pop(function, None)
            elif kind == INITIALIZE:
                client.initializer = rest[0]

    def _send(self, frame: tuple[int, int, int, int, bytes | None]) -> None:
        with self._sending:
            self._data.sendall(self._packer.pack(frame))

    # --- calls

    def _run_item(self, token: int, job: _Job) -> None:
        item = job.next
        job.next += 1
        job.items -= 1
        if not job.items:
            del self._jobs[token]
        self._token, self._item = token, item
        client = self._clients.get(job.client)
        if client is None:
            # It has left, and nobody waits for this but the agent, which counts.
            self._send((token, item, NOT_LOADABLE, 0, b""))
            return
        client.scope.enter()
        if client.initializer is not None and not self._initialize(client):
            return
        body = job.bodies
        if isinstance(body, list):
            single = body[item]
            if single is None:  # it has failed at the client, which only waits for the range
                self._send((token, item, NOT_LOADABLE, 0, b""))
                return
            body[item] = None
            outcome = _call(client, job.function, single, is_item=True)
        else:
            outcome = _call(client, job.function, body, is_item=False)
        if os.getpid() != self._pid:
            # The call has forked, and this is the child: it is no second CPU process.
            os._exit(0 if outcome[0] == RESULT else 1)
        for output in self._outputs:  # whatever the call has made of sys.stdout
            output.flush()
        self._send((token, item, *outcome))

    def _initialize(self, client: _Client) -> bool:
        pickled, client.initializer = client.initializer, None
        try:
            function, args = loads(pickled or b"")
            function(*args)
        except BaseException as error:
            client.initializer = pickled
            error = _trimmed(error)
            self._send((self._token, self._item, INITIALIZER_RAISED, 0, dumps_exception(error)))
            return False
        return True


def _call(
    client: _Client, function_id: int, body: bytes, *, is_item: bool
) -> tuple[int, int, bytes]:
    """Run one item: (status, microseconds, body of the outcome)."""
    clock = time.perf_counter_ns
    start = clock()
    try:
        function = client.function(function_id)
        if is_item:
            args, kwargs = loads(body), {}
        else:
            args, kwargs = loads(body)
    except BaseException as error:  # even SystemExit is the call's failure, not this process's
        return NOT_LOADABLE, 0, dumps_exception(_trimmed(error))
    try:
        value = function(*args, **kwargs)
        if type(value) is types.GeneratorType:
            value = list(value)  # one that runs cannot travel; what it makes can
    except BaseException as error:
        return EXCEPTION, (clock() - start) // 1000, dumps_exception(_trimmed(error))
    try:
        result = dumps(value)
    except BaseException as error:
        blame_result(error, function if function is not invoke else args[0], value)
        return EXCEPTION, (clock() - start) // 1000, dumps_exception(_trimmed(error))
    return RESULT, (clock() - start) // 1000, result


_OURS: Final = f"{Path(__file__).parent.parent}{os.sep}"


def _trimmed(error: BaseException) -> BaseException:
    """The exception without the frames of this module: its traceback starts in user code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    error.__traceback__ = frames
    return error
