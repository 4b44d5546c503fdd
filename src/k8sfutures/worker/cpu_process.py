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
body)``, where the status is one of an outcome, or of those at the end of `frames`.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import types
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgpack

from ..errors import ResultNotLoadable
from ..exceptions import dumps_exception, with_traceback
from ..functions import invoke
from ..messages import EXCEPTION, INLINE_LIMIT, NOT_LOADABLE, RESULT
from ..place import Place, is_here
from ..serialization import split
from ..unpicklable import blame_result
from . import bulk
from .client_state import ClientState
from .forwarding import Forwarder
from .frames import (
    ADOPT,
    BEGUN,
    FORGET,
    GO_ON,
    INITIALIZED,
    INITIALIZER_RAISED,
    JOBS,
    LEAVE,
    NO_TOKEN,
    PRINTED,
    REPORTING,
    TIMED,
    TOKEN_SIZE,
)
from .modules import Environments
from .output import Outlet
from .strangers import Strangers
from .surroundings import Stage
from .unpacked import pods_folder

_RECEIVE: Final = 1 << 20


class _Job:
    """What one token is about: a call, or a part of a range of a map."""

    __slots__ = ("bodies", "client", "function", "is_range", "items", "next")

    def __init__(
        self, client: str, function: int, items: int, start: int, stop: int, body: bytes
    ) -> None:
        self.client = client
        self.function = function
        self.items = stop - start if items else 1
        self.is_range = bool(items)
        self.next = start
        self.bodies: list[bytes | None] | bytes = body


class CpuProcess:
    """The main loop; see the module's text.

    Args:
        data: the stream socket to the agent.
        tokens: file descriptor of the token pipe.
        place: where this is, for exceptions.
    """

    def __init__(self, data: socket.socket, tokens: int, place: Place) -> None:
        self._data = data
        self._tokens = tokens
        self._place = place
        self._unpacker = msgpack.Unpacker(use_list=False, strict_map_key=False, max_buffer_size=0)
        self._packer = msgpack.Packer()
        self._sending = threading.Lock()  # threads of the user's may print
        self._strangers = Strangers()
        self._outlet = Outlet(self._say, strangers=self._strangers, aside=self._say_for_nobody)
        self._forwarder = Forwarder(self._outlet)
        self._stage = Stage()
        self._current: ClientState | None = None  # whose environment, levels and so on are set
        self._environments = Environments(pods_folder.get)
        self._clients: dict[str, ClientState] = {}
        self._jobs: dict[int, _Job] = {}
        self._timed: set[int] = set()  # tokens of the jobs whose items have a limit
        self._files: deque[bulk.File] = deque()
        self._token = 0
        self._item = 0
        self._waits = False  # for the agent to have room for another file
        self._pid = os.getpid()

    def run(self) -> None:
        """Run items until the agent closes the token pipe."""
        is_here(self._place)
        self._outlet.install()
        read, tokens = os.read, self._tokens
        while True:
            while self._waits:
                if not self._receive():
                    return
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

    def _say(self, kind: int, body: bytes) -> None:
        """Send what the item that runs has to say."""
        self._send((self._token, self._item, PRINTED, kind, body))

    def _say_for_nobody(self, kind: int, body: bytes) -> None:
        """Send what another client's thread has to say."""
        self._send((NO_TOKEN, 0, PRINTED, kind, body))

    # --- frames

    def _receive(self) -> bool:
        """Take in at least one frame; False when the agent is gone."""
        taken = False
        while not taken:
            received = bulk.receive(self._data, _RECEIVE, self._files)
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
        if kind == ADOPT:
            self._place = Place(name, *rest)
            is_here(self._place)
            pin(self._place.cpu_id)
        elif kind == LEAVE:
            left = self._clients.pop(name, None)
            if left is not None:
                left.scope.leave()
            if left is self._current:
                self._leave()
            self._environments.forget(name)
        elif kind == GO_ON:
            self._waits = False
        elif kind == FORGET:
            self._timed.difference_update(rest[0])
            for token in rest[0]:
                self._jobs.pop(token, None)
        elif kind == TIMED:
            self._timed.update(rest[0])
        else:
            client = self._clients.get(name)
            if client is None:
                client = self._clients[name] = ClientState(name, self._environments)
            if kind == JOBS:
                for token, function, items, start, stop, body in rest[0]:
                    self._jobs[token] = _Job(name, function, items, start, stop, body)
            elif kind == REPORTING:
                client.reporting = rest[0]
                if client is self._current:
                    self._leave()
            else:
                client.take(kind, rest[0], self._files)

    def _send(self, frame: tuple[int, int, int, int, bytes], file: int | None = None) -> None:
        with self._sending:
            data = self._packer.pack(frame)
            if file is None:
                self._data.sendall(data)
            else:
                bulk.send(self._data, data, file)

    # --- calls

    def _leave(self) -> None:
        """Another client's item is next, or it is to be told anew what the client wants."""
        if self._current is not None:
            self._outlet.finish()  # what threads and programs of its have said since its last item
            self._strangers.left()
            self._current.setup = self._forwarder.leave()
            self._current.left = self._stage.leave()
            self._current = None

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
        if client is not self._current:
            self._leave()
            self._current = client
            self._strangers.turn(client.name)
            self._forwarder.enter(client.reporting, client.setup)
            self._stage.enter(client.surroundings, client.left)
            client.scope.enter()
        if client.initializer is not None and not client.context.run(self._initialize, client):
            return
        if job.is_range and isinstance(job.bodies, bytes):
            job.bodies = client.items(job.bodies)
        body = job.bodies
        if isinstance(body, list):
            single = body[item]
            if single is None:  # it has failed at the client, which only waits for the range
                self._send((token, item, NOT_LOADABLE, 0, b""))
                return
            body[item] = None
            body = single
        status, micros, made, file = client.context.run(
            self._call, client, job.function, body, is_item=job.is_range
        )
        self._leave_if_forked(0 if status == RESULT else 1)
        self._outlet.finish()
        self._waits = file is not None
        self._send((token, item, status, micros, made), file)
        if not job.items:
            self._timed.discard(token)

    def _initialize(self, client: ClientState) -> bool:
        pickled, client.initializer = client.initializer, None
        try:
            function, args = client.initializing(pickled or b"")
            function(*args)
        except BaseException as error:
            client.initializer = pickled
            made = bulk.initializer_error(_trimmed(error))
            self._leave_if_forked(1)
            self._send((self._token, self._item, INITIALIZER_RAISED, 0, made))
            return False
        self._leave_if_forked(0)
        self._send((self._token, self._item, INITIALIZED, 0, b""))
        return True

    def _leave_if_forked(self, code: int) -> None:
        """User code may have forked, and this may be the child: it is no second CPU process."""
        if os.getpid() != self._pid:
            os._exit(code)

    def _call(
        self, client: ClientState, function_id: int, body: bytes, *, is_item: bool
    ) -> tuple[int, int, bytes, int | None]:
        """Run one item: (status, microseconds, body of the outcome, file with its parts)."""
        clock = time.perf_counter_ns
        start = clock()
        try:
            function = client.function(function_id)
            if is_item:
                args, kwargs = client.loads(body), {}
            else:
                args, kwargs = client.loads(body)
        except BaseException as error:  # even SystemExit is the call's failure, not this process's
            return NOT_LOADABLE, 0, *self._failed(error)
        if self._timed and self._token in self._timed:
            self._send((self._token, self._item, BEGUN, 0, b""))
        try:
            value = function(*args, **kwargs)
            if type(value) is types.GeneratorType:
                value = list(value)  # one that runs cannot travel; what it makes can
        except BaseException as error:
            return EXCEPTION, (clock() - start) // 1000, *self._failed(error)
        try:
            segments, buffers = split(value, INLINE_LIMIT)
            return RESULT, (clock() - start) // 1000, *bulk.outcome_body(segments, buffers)
        except BaseException as error:
            blame_result(error, function if function is not invoke else args[0], value)
            return EXCEPTION, (clock() - start) // 1000, *self._failed(error)

    def _failed(self, error: BaseException) -> tuple[bytes, int | None]:
        try:
            data = dumps_exception(_trimmed(error), self._place)
        except BaseException as problem:  # its class is the user's, and may forbid anything
            described = ResultNotLoadable(
                f"the call raised {type(error).__qualname__}, and that exception can neither be "
                f"pickled nor told of: {type(problem).__qualname__}"
            )
            data = dumps_exception(described, self._place)
        return bulk.outcome_body([data], [])


def pin(cpu_id: int) -> None:
    """Have this process run on one CPU; one that is kept ready has none yet."""
    if cpu_id >= 0:
        with contextlib.suppress(OSError):  # not a CPU of the pod: see `cpus.choose`
            os.sched_setaffinity(0, {cpu_id})


_OURS: Final = f"{Path(__file__).parent.parent}{os.sep}"


def _trimmed(error: BaseException) -> BaseException:
    """The exception without the frames of this module: its traceback starts in user code."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename.startswith(_OURS):
        frames = frames.tb_next
    with_traceback(error, frames)
    return error
