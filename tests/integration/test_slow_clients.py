"""A client that takes nothing for a while: there is a bound for what its pod keeps for it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from k8sfutures.worker.kept import MOST_KEPT

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]

SIZE = 8_000_000
ITEMS = 60  # 480 MB, where the bound is at 268
SLOTS = len(os.sched_getaffinity(0))

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


def children_of(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


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
    page = 4096
    assert slow.most < MOST_KEPT + SLOTS * (SIZE + page)


def test_its_processes_may_die_meanwhile(suspended):
    slow = suspended("takes")
    (zygote,) = children_of(slow.agent)
    processes = children_of(zygote)
    assert len(processes) == SLOTS
    for process in processes:
        os.kill(process, signal.SIGKILL)
    assert slow.go_on() == f"{ITEMS}\n", "something ran there"


@pytest.mark.parametrize("then", ["shutdown", "kill_workers"])
def test_it_may_leave(rabbitmq, suspended, then):
    slow = suspended(then)
    assert slow.go_on() == ""
    until(lambda: kept_by(slow.agent) == 0, "the pod keeps what nobody wants")
    with rabbitmq.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8


@pytest.mark.slow
def test_it_may_die(rabbitmq, suspended):
    slow = suspended("takes")
    slow.program.kill()
    with rabbitmq.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        until(lambda: kept_by(slow.agent) == 0, "the pod keeps what nobody wants")
