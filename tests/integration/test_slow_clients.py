"""A client that takes nothing for a while: there is a bound for what its pod keeps for it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8sfutures.errors import WorkerCrashed
from k8sfutures.worker.kept import MOST_KEPT

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]

SIZE = 8_000_000
ITEMS = 60  # 480 MB, where the bound is at 268
SLOTS = len(os.sched_getaffinity(0))
BLOCK = bytes(SIZE)
PAGE = 4096

# The first item suspends the client, all of whose items are with the pod by then.
CLIENT = f"""
    import os, signal, sys
    from k8sfutures import K8sRabbitExecutor

    BLOCK = bytes({SIZE})

    def make(index, client):
        if index == 0:
            os.kill(client, signal.SIGSTOP)
        return index, BLOCK  # so quickly that a process is given many of them

    if __name__ == "__main__":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])
        with K8sRabbitExecutor(pods="local", pool=sys.argv[1]) as ex:
            assert ex.submit(pow, 2, 3).result() == 8
            results = ex.map(make, range({ITEMS}), [os.getpid()] * {ITEMS}, chunksize={ITEMS // 2})
            signal.sigwait([signal.SIGCONT])
            if sys.argv[2] == "shutdown":
                ex.shutdown(cancel_futures=True)
            elif sys.argv[2] == "kill_workers":
                ex.kill_workers()
            else:
                for index, result in enumerate(results):
                    assert result == (index, BLOCK)
                print(index + 1)
"""


def kept_by(agent: int) -> int:
    """Bytes of the files in memory that an agent has mapped: of outcomes that it keeps."""
    total = 0
    for line in Path(f"/proc/{agent}/maps").read_text().splitlines():
        if "memfd:k8sfutures" in line:
            start, _, end = line.partition(" ")[0].partition("-")
            total += int(end, 16) - int(start, 16)
    return total


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Slow:
    """A client that is suspended, and a look at what its pod keeps."""

    def __init__(self, rabbitmq, then: str) -> None:
        with rabbitmq.executor() as ex:
            assert ex.submit(pow, 2, 3).result() == 8
        (self.agent,) = rabbitmq.pids().values()
        self.program = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CLIENT), rabbitmq.pool, then],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.most = 0
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._watched)
        self._watch.start()

    def _watched(self) -> None:
        while not self._stop.wait(0.002):
            self.most = max(self.most, kept_by(self.agent))

    def go_on(self) -> str:
        """Continue the client; returns what it says at its end."""
        self.program.send_signal(signal.SIGCONT)
        said, complaints = self.program.communicate(timeout=50)
        assert (self.program.returncode, complaints) == (0, "")
        return said

    def close(self) -> None:
        self._stop.set()
        self._watch.join()
        self.program.kill()
        with contextlib.suppress(ValueError):  # its output has been read
            self.program.communicate()


@pytest.fixture
def suspended(rabbitmq) -> Iterator[Callable[[str], Slow]]:
    """Starts clients; returns when they are suspended, and their pod keeps all that it may."""
    with contextlib.ExitStack() as stack:

        def start(then: str) -> Slow:
            slow = Slow(rabbitmq, then)
            stack.callback(slow.close)
            until(lambda: slow.most >= MOST_KEPT, "the pod keeps less than it may")
            return slow

        yield start


def test_its_pod_keeps_what_is_bounded_and_works_for_others(rabbitmq, suspended):
    slow = suspended("takes")
    with rabbitmq.executor() as ex:
        # They take turns: as many calls of the slow one would have run.
        assert list(ex.map(pow, range(50), [2] * 50)) == [n * n for n in range(50)]
    assert slow.go_on() == f"{ITEMS}\n"
    assert slow.most < MOST_KEPT + SLOTS * (SIZE + PAGE)


def test_processes_may_die_meanwhile(rabbitmq, suspended):
    slow = suspended("takes")
    with rabbitmq.executor() as ex:
        for future in [ex.submit(os._exit, 1) for _ in range(2 * SLOTS)]:
            assert isinstance(future.exception(), WorkerCrashed)
    assert slow.go_on() == f"{ITEMS}\n", "none of its calls ran there"


@pytest.mark.parametrize("then", ["shutdown", "kill_workers"])
def test_it_may_leave(rabbitmq, suspended, then):
    slow = suspended(then)
    assert slow.go_on() == ""
    until(lambda: kept_by(slow.agent) == 0, "the pod keeps what nobody wants")
    with rabbitmq.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8


@pytest.mark.skipif(SLOTS < 2, reason="two calls wait for each other")
def test_a_callback_may_take_its_time(rabbitmq):
    """It holds the thread that takes the results of all calls."""
    entered, gate = threading.Event(), threading.Event()

    def hold(_future) -> None:
        entered.set()
        assert gate.wait(50)

    def wait_for_word(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.recv(1)

    def make(index: int, port: int) -> tuple[int, bytes]:
        if index == 0:
            wait_for_word(port)
        return index, BLOCK

    with rabbitmq.executor() as ex, socket.create_server(("127.0.0.1", 0)) as server:
        assert ex.submit(pow, 2, 3).result() == 8
        (agent,) = rabbitmq.pids().values()
        port = server.getsockname()[1]
        ex.submit(wait_for_word, port).add_done_callback(hold)
        first, _ = server.accept()
        results = ex.map(make, range(ITEMS), [port] * ITEMS, chunksize=ITEMS)
        second, _ = server.accept()
        with first, second:
            first.sendall(b"1")
            assert entered.wait(30)
            second.sendall(b"2")
            until(lambda: kept_by(agent) >= MOST_KEPT, "the pod keeps less than it may")
            with rabbitmq.executor() as other:
                assert other.submit(pow, 2, 3).result() == 8
            assert kept_by(agent) < MOST_KEPT + SLOTS * (SIZE + PAGE)
            gate.set()
            assert [index for index, block in results if block == BLOCK] == [*range(ITEMS)]


@pytest.mark.slow
def test_it_may_die(rabbitmq, suspended):
    slow = suspended("takes")
    slow.program.kill()
    with rabbitmq.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        until(lambda: kept_by(slow.agent) == 0, "the pod keeps what nobody wants")
