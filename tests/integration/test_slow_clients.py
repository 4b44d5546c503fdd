"""A client that takes nothing for a while: there is a bound for what its pod keeps for it."""

from __future__ import annotations

import contextlib
import inspect
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
from typing import Any

import pytest

from k8sfutures import session
from k8sfutures.bulk_memory import MOST_KEPT
from k8sfutures.errors import WorkerCrashed
from k8sfutures.testing import MemoryCluster
from k8sfutures.worker import agent
from k8sfutures.worker.memory import MemoryVerdict

pytestmark = pytest.mark.timeout(60)

SIZE = 8_000_000
ITEMS = 60  # 480 MB, where the bound is at 268
BLOCK = bytes(SIZE)
PAGE = 4096

# The first item waits until the client is suspended, all of whose items are with the pod by then.
CLIENT = f"""
    import signal, socket, sys
    from k8sfutures import K8sRabbitExecutor

    BLOCK = bytes({SIZE})

    def make(index, host, port):
        if index == 0:
            with socket.create_connection((host, port)) as connection:
                connection.recv(1)
        return index, BLOCK  # so quickly that a process is given many of them

    if __name__ == "__main__":
        then, host, port, slots = sys.argv[1:]
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCONT])
        with K8sRabbitExecutor(int(slots)) as ex:
            assert ex.submit(pow, 2, 3).result() == 8
            where = [host] * {ITEMS}, [port] * {ITEMS}
            results = ex.map(make, range({ITEMS}), *where, chunksize={ITEMS // 2})
            signal.sigwait([signal.SIGCONT])
            if then == "shutdown":
                ex.shutdown(cancel_futures=True)
            elif then == "kill_workers":
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


class LocalPod:
    """One pod on this machine."""

    host = "127.0.0.1"
    often = 0.002  # seconds between two looks at what it keeps

    def __init__(self, rabbitmq) -> None:
        self.executor = rabbitmq.executor
        self.settings: dict[str, Any] = {"pods": "local", "pool": rabbitmq.pool}
        self.slots = rabbitmq.slots
        self._rabbitmq = rabbitmq

    def kept(self) -> int:
        (agent,) = self._rabbitmq.pids().values()
        return kept_by(agent)


class KubernetesPod:
    """One pod on a cluster, and a look into it from outside."""

    often = 0.2
    slots = 2

    def __init__(self, kubernetes) -> None:
        self.host = kubernetes.host
        self.settings = kubernetes.settings(pool="slow", worker_processes=self.slots)
        self._kubernetes = kubernetes

    def executor(self):
        return self._kubernetes.executor(self.slots, pool="slow", worker_processes=self.slots)

    def kept(self) -> int:
        running = self._kubernetes.running("slow")
        if not running:
            return 0  # Kubernetes has not heard of it yet
        (pod,) = running
        look = f"{inspect.getsource(kept_by)}\nprint(kept_by(1))"
        program = f"from pathlib import Path\n{look}"
        return int(self._kubernetes.run_in(pod.metadata.name, "python", "-c", program))


@pytest.fixture(
    params=[
        pytest.param("local", marks=pytest.mark.broker),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ]
)
def pod(request: pytest.FixtureRequest) -> Iterator[LocalPod | KubernetesPod]:
    """A pod of two CPU processes, or of as many as there are CPUs here."""
    if request.param == "local":
        yield LocalPod(request.getfixturevalue("rabbitmq"))
        return
    kubernetes = request.getfixturevalue("kubernetes")
    kubernetes.clear()
    yield KubernetesPod(kubernetes)
    kubernetes.clear()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


class Slow:
    """A client that is suspended, and a look at what its pod keeps."""

    def __init__(self, pod: LocalPod | KubernetesPod, then: str) -> None:
        with pod.executor() as ex:
            assert ex.submit(pow, 2, 3).result() == 8
        self._pod = pod
        settings = {f"K8SFUTURES_{name.upper()}": str(it) for name, it in pod.settings.items()}
        with socket.create_server((pod.host, 0)) as server:
            server.settimeout(40)
            arguments = [then, pod.host, str(server.getsockname()[1]), str(pod.slots)]
            self.program = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(CLIENT), *arguments],
                env=os.environ | settings,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                first, _ = server.accept()
                with first:
                    self.program.send_signal(signal.SIGSTOP)
                    os.waitid(os.P_PID, self.program.pid, os.WSTOPPED)
            except BaseException:
                self.program.kill()
                raise
        self.most = 0
        self._stop = threading.Event()
        self._watch = threading.Thread(target=self._watched)
        self._watch.start()

    def kept(self) -> int:
        return self._pod.kept()

    def _watched(self) -> None:
        while not self._stop.wait(self._pod.often):
            self.most = max(self.most, self.kept())

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
def suspended(pod) -> Iterator[Callable[[str], Slow]]:
    """Starts clients; returns when they are suspended, and their pod keeps all that it may."""
    with contextlib.ExitStack() as stack:

        def start(then: str) -> Slow:
            slow = Slow(pod, then)
            stack.callback(slow.close)
            until(lambda: slow.most >= MOST_KEPT, "the pod keeps less than it may")
            return slow

        yield start


def test_its_pod_keeps_what_is_bounded_and_works_for_others(pod, suspended):
    slow = suspended("takes")
    with pod.executor() as ex:
        # They take turns: as many calls of the slow one would have run.
        assert list(ex.map(pow, range(50), [2] * 50)) == [n * n for n in range(50)]
    assert slow.go_on() == f"{ITEMS}\n"
    assert slow.most < MOST_KEPT + pod.slots * (SIZE + PAGE)


def test_processes_may_die_meanwhile(pod, suspended):
    slow = suspended("takes")
    with pod.executor() as ex:
        for future in [ex.submit(os._exit, 1) for _ in range(2 * pod.slots)]:
            assert isinstance(future.exception(), WorkerCrashed)
    assert slow.go_on() == f"{ITEMS}\n", "none of its calls ran there"


@pytest.mark.parametrize("then", ["shutdown", "kill_workers"])
def test_it_may_leave(pod, suspended, then):
    slow = suspended(then)
    assert slow.go_on() == ""
    until(lambda: slow.kept() == 0, "the pod keeps what nobody wants")
    with pod.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8


def test_a_callback_may_take_its_time(pod):
    """It holds the thread that takes the results of all calls."""
    if pod.slots < 2:
        pytest.skip("two calls wait for each other")
    entered, gate = threading.Event(), threading.Event()

    def hold(_future) -> None:
        entered.set()
        assert gate.wait(50)

    def wait_for_word(address: tuple[str, int]) -> None:
        with socket.create_connection(address) as connection:
            connection.recv(1)

    def make(index: int, address: tuple[str, int]) -> tuple[int, bytes]:
        if index == 0:
            wait_for_word(address)
        return index, BLOCK

    with pod.executor() as ex, socket.create_server((pod.host, 0)) as server:
        assert ex.submit(pow, 2, 3).result() == 8
        address = server.getsockname()
        ex.submit(wait_for_word, address).add_done_callback(hold)
        first, _ = server.accept()
        results = ex.map(make, range(ITEMS), [address] * ITEMS, chunksize=ITEMS)
        second, _ = server.accept()
        with first, second:
            first.sendall(b"1")
            assert entered.wait(30)
            second.sendall(b"2")
            until(lambda: pod.kept() >= MOST_KEPT, "the pod keeps less than it may")
            with pod.executor() as other:
                assert other.submit(pow, 2, 3).result() == 8
            assert pod.kept() < MOST_KEPT + pod.slots * (SIZE + PAGE)
            gate.set()
            assert [index for index, block in results if block == BLOCK] == [*range(ITEMS)]


@pytest.mark.slow
def test_it_may_die(pod, suspended):
    slow = suspended("takes")
    slow.program.kill()
    with pod.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        until(lambda: slow.kept() == 0, "the pod keeps what nobody wants")


class SmallPods(MemoryVerdict):
    """Of pods that may use 64 MiB, and so keep 8 MiB for one client."""

    limit = 64 << 20  # type: ignore[assignment]


def several_mib(_number: int) -> bytes:
    return bytes(3 << 20)


def test_a_small_pod_goes_on_as_soon_as_its_client_has_what_fills_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And not at the client's next sign of life, of which there is none here."""
    monkeypatch.setattr(agent, "MemoryVerdict", SmallPods)
    monkeypatch.setattr(session, "RENEW_EVERY", 3600.0)
    with MemoryCluster([2]) as cluster, cluster.executor() as ex:
        results = ex.map(several_mib, range(30), timeout=30)
        assert [len(one) for one in results] == [3 << 20] * 30
