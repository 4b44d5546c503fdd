"""How an agent comes to its zygote: two ways, one for each kind of process that it is itself.

The worker program *forks* it as the first thing that it does, with all that both need imported
once: two interpreters that start side by side would cost half as much again, in each pod, on CPUs
that the node's other pods want at that moment. What has threads already, as a test with pods in
its own process has, must not fork and *executes* it in an interpreter of its own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from typing import Protocol

from .forked import run_and_exit
from .reports import ZYGOTE


class Child(Protocol):
    """A child process, in the terms of `subprocess.Popen`."""

    pid: int

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, or minus the signal that ended it.

        Raises:
            subprocess.TimeoutExpired: it still runs.
        """
        ...

    def kill(self) -> None:
        """Send it SIGKILL."""
        ...


class Forked:
    """See `Child`.

    Args:
        pid: of a child that nobody else waits for.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._code: int | None = None
        self._end: int | None = None  # a descriptor that is readable once it has ended
        # Before Linux 5.3 there is none, and `wait` has no timeout: it is called for a zygote whose
        # control socket is closed, which ends by that.
        # Nor does every build of Python have the function.
        with contextlib.suppress(OSError, AttributeError):
            self._end = os.pidfd_open(pid)

    def wait(self, timeout: float | None = None) -> int:
        """See `Child.wait`."""
        if self._code is not None:
            return self._code
        if self._end is not None:
            if timeout is not None and not select.select([self._end], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("the zygote", timeout)
            os.close(self._end)
            self._end = None
        _, status = os.waitpid(self.pid, 0)
        self._code = os.waitstatus_to_exitcode(status)
        return self._code

    def kill(self) -> None:
        """See `Child.kill`."""
        if self._code is None:
            os.kill(self.pid, signal.SIGKILL)


def fork_zygote() -> tuple[socket.socket, Child]:
    """Fork the zygote; in a process that has no threads, and no secrets yet.

    Returns:
        The control socket, and the child.
    """
    from . import zygote

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    zygote.preload()

    def program() -> None:
        ours.close()
        # Ours may be what tells the agent who it is.
        with open(os.devnull, "rb") as nothing:  # noqa: PTH123
            os.dup2(nothing.fileno(), 0)
        zygote.serve(theirs)

    pid = os.fork()
    if pid == 0:
        run_and_exit(program)
    theirs.close()
    return ours, Forked(pid)


def execute_zygote() -> tuple[socket.socket, Child]:
    """Start the zygote as a program; from any process.

    Returns:
        The control socket, and the child.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        # In an image, files that calls leave in the working directory are no modules.
        safe_path = ["-P"] if sys.flags.safe_path else []
        child = subprocess.Popen(
            [sys.executable, *safe_path, "-m", ZYGOTE, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            pass_fds=[theirs.fileno()],
        )
    return ours, child
