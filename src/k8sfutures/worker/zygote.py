"""The clean parent of the CPU processes: single-threaded, with everything preloaded.

``fork`` in a process that has threads, sockets and half-read messages is a trap, and a new
interpreter for each process takes 100 ms. So the agent comes to this one small process before it
does anything else (see `parentage`); it has imported what calls need, and forks a CPU process
whenever it is asked to. It is also their parent in the sense of ``wait``: it tells the agent how
each one ended.

The control socket (SOCK_SEQPACKET, so that each message is one packet):

* to the zygote: ``(pod, node, cpu id)`` with the file descriptors of the data socket, the token
  pipe, and the pipes for stdout and stderr;
* from it: ``(STARTED, cpu id, pid, 0)``, ``(ENDED, pid, wait status, bytes of memory that it had at
  its peak)``, ``(STOPPED, pid, signal, 0)`` and ``(CONTINUED, pid, 0, 0)``.

When the agent goes away, so do the zygote and every CPU process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import os
import select
import signal
import socket
import sys
from typing import Final

import msgpack

from ..bulk_memory import get_used_to_bulk
from ..place import Place
from . import cpu_process
from .forked import run_and_exit
from .reports import CONTINUED, END_SIGNAL, ENDED, STARTED, STOPPED
from .surroundings import THREAD_VARIABLES
from .unpacked import pods_folder

_PACKET: Final = 4096

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


class Zygote:
    """Forks CPU processes on request, and reports their ends.

    Args:
        control: the socket to the agent.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: set[int] = set()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def run(self) -> None:
        """Serve until the agent closes the control socket; then end every CPU process."""
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        poller.register(self._wake_read, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poller.poll()}
                if self._wake_read in ready:
                    self._reap()
                if self._control.fileno() in ready and not self._serve():
                    return
        except (BrokenPipeError, ConnectionResetError):
            return  # the agent is gone
        finally:
            for pid in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            pods_folder.remove()

    def _serve(self) -> bool:
        packet, descriptors, _, _ = socket.recv_fds(self._control, _PACKET, 4)
        if not packet:
            return False
        place = Place(*msgpack.unpackb(packet))
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            run_and_exit(lambda: self._run_cpu_process(zygote, place, *descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        self._children.add(pid)
        self._control.send(msgpack.packb((STARTED, place.cpu_id, pid, 0)))
        return True

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._wake_read, 512):
                pass
        while True:
            try:
                pid, status, used = os.wait4(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid not in self._children:
                continue  # a process that a call has left behind
            if os.WIFSTOPPED(status):
                report = STOPPED, pid, os.WSTOPSIG(status), 0
            elif os.WIFCONTINUED(status):
                report = CONTINUED, pid, 0, 0
            else:
                self._children.discard(pid)
                report = ENDED, pid, status, used.ru_maxrss * 1024
            self._control.send(msgpack.packb(report))

    def _run_cpu_process(
        self, zygote: int, place: Place, data: int, tokens: int, stdout: int, stderr: int
    ) -> None:
        """What the forked child does."""
        _end_with(zygote)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.setpgid(0, 0)  # so that what a call has started can be ended with it
        self._control.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        for pipe, descriptor in ((stdout, 1), (stderr, 2)):
            os.dup2(pipe, descriptor)
            os.close(pipe)
        faulthandler.enable(file=2)  # a crash in native code then has some last words
        faulthandler.register(END_SIGNAL, file=2, all_threads=False, chain=True)
        cpu_process.pin(place.cpu_id)
        # Either error says that the agent is gone.
        with (
            contextlib.suppress(BrokenPipeError, ConnectionResetError),
            socket.socket(fileno=data) as stream,
        ):
            cpu_process.CpuProcess(stream, tokens, place).run()


def _adopt_orphans() -> None:
    """Become the parent of whatever calls leave behind, so that it does not stay as a zombie.

    In a container that would be the agent's duty, as process 1 (prctl(2)).
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _end_with(parent: int) -> None:
    """Have this process killed when its parent ends, however that comes about (prctl(2)).

    Else what it runs would go on where agent and zygote are killed at once: it is in a process
    group of its own, which no signal to theirs reaches.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def _prctl(option: int, value: int) -> None:
    import ctypes

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def preload() -> None:
    """Import what calls need, so that no CPU process has to."""
    import cloudpickle  # noqa: F401
    import tblib.pickling_support  # noqa: F401


def serve(control: socket.socket) -> None:
    """Be the zygote until the agent is gone.

    Args:
        control: the socket to the agent; closed at the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")
    _adopt_orphans()
    get_used_to_bulk()
    pods_folder.make()
    # A collection writes to each object that it looks at, and so to memory that is shared so far.
    gc.collect()
    gc.freeze()
    with control:
        Zygote(control).run()


def main() -> None:
    """Run the zygote on the control socket whose file descriptor is the only argument."""
    preload()
    serve(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
