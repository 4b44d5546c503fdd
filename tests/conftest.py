"""Fixtures: one private broker for the whole run, and the two links that a contract runs on."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from journal import Journal
from kubernetes_cluster import KubernetesCluster, OnKubernetes

from k8sfutures import K8sRabbitExecutor
from k8sfutures.broker import stop_local_broker
from k8sfutures.machine import start_time
from k8sfutures.testing import MemoryCluster


class Cluster(Protocol):
    """Where the executors of a test run.

    Attributes:
        slots: so many calls run there at once.
        host: an address of this machine that calls reach.
    """

    slots: int
    host: str

    def executor(self, *args: Any, **kwargs: Any) -> K8sRabbitExecutor: ...

    def data_settings(self) -> dict[str, Any]:
        """Settings of executors whose calls use NumPy, pandas and pyarrow."""

    def environment(self) -> dict[str, str]:
        """Variables by which a program's `K8sRabbitExecutor()` runs its calls there, too."""

    def lose_pod(self, host: str | None = None) -> str:
        """End a pod without warning; returns its name.

        Args:
            host: `platform.node` in the pod's calls, where there may be several.
        """

    def drain_pod(self) -> str:
        """Ask a pod to end; returns its name."""

    def kill_process(self, where: tuple[str, int]) -> None:
        """Kill a process, as `whereabouts` told of it, from outside."""


class InMemory:
    host = "127.0.0.1"

    def __init__(self, sizes: list[int]) -> None:
        self.slots = sum(sizes)
        self.cluster = MemoryCluster(sizes)

    def executor(self, *args: Any, **kwargs: Any) -> K8sRabbitExecutor:
        return self.cluster.executor(*args, **kwargs)

    def data_settings(self) -> dict[str, Any]:
        return {}

    def environment(self) -> dict[str, str]:
        raise NotImplementedError("no other program has a part in it")

    def lose_pod(self, _host: str | None = None) -> str:
        name = self.cluster.pods[0]
        self.cluster.stop_pod(name)
        return name

    def drain_pod(self) -> str:
        name = self.cluster.pods[0]
        self.cluster.stop_pod(name, drain=True)
        return name

    def kill_process(self, where: tuple[str, int]) -> None:
        os.kill(where[1], signal.SIGKILL)

    def close(self) -> None:
        self.cluster.close()


class OnRabbitMQ:
    host = "127.0.0.1"

    def __init__(self, cache: Path, pool: str) -> None:
        self.cache = cache
        self.pool = pool
        self.slots = len(os.sched_getaffinity(0))

    def executor(self, *args: Any, **kwargs: Any) -> K8sRabbitExecutor:
        kwargs.setdefault("pool", self.pool)
        kwargs.setdefault("startup_timeout", 30)
        return K8sRabbitExecutor(*args, pods="local", **kwargs)

    def pids(self) -> dict[str, int]:
        """Pods of the pool that run, and the process ids of their agents."""
        found = {}
        for path in sorted(self.cache.glob(f"pods/{self.pool}@*/*.json")):
            record = json.loads(path.read_text())
            if start_time(record["pid"]) == record["started"]:
                found[path.stem] = record["pid"]
        return found

    def data_settings(self) -> dict[str, Any]:
        return {}

    def environment(self) -> dict[str, str]:
        return {"K8SFUTURES_PODS": "local", "K8SFUTURES_POOL": self.pool}

    def lose_pod(self, _host: str | None = None) -> str:
        name, pid = next(iter(self.pids().items()))
        os.kill(pid, signal.SIGKILL)
        return name

    def drain_pod(self) -> str:
        name, pid = next(iter(self.pids().items()))
        os.kill(pid, signal.SIGTERM)
        return name

    def kill_process(self, where: tuple[str, int]) -> None:
        os.kill(where[1], signal.SIGKILL)

    def close(self) -> None:
        for pid in self.pids().values():
            end_process(pid)


def end_process(pid: int) -> None:
    """SIGTERM, then SIGKILL; waits for the end. Only for processes that a test has started."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            for number in (signal.SIGTERM, signal.SIGKILL):
                os.kill(pid, number)
                if poller.poll(5000):
                    break
        finally:
            os.close(descriptor)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder of the run's own, and what it left there ended: pods, and the broker."""
    folder = tmp_path_factory.mktemp("cache")
    before = os.environ.get("K8SFUTURES_CACHE_DIR")
    os.environ["K8SFUTURES_CACHE_DIR"] = str(folder)
    yield folder
    for path in [*folder.glob("pods/*/*.json"), *folder.glob("pods/*/*.draining")]:
        record = json.loads(path.read_text())
        if start_time(record["pid"]) == record["started"]:
            end_process(record["pid"])
    stop_local_broker()
    if before is None:
        del os.environ["K8SFUTURES_CACHE_DIR"]
    else:
        os.environ["K8SFUTURES_CACHE_DIR"] = before


with_programs = pytest.mark.parametrize(
    "cluster",
    [
        pytest.param("rabbitmq", marks=pytest.mark.broker),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ],
    indirect=True,
)
"""For tests whose executors are those of other programs."""


@pytest.fixture(scope="session")
def kubernetes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesCluster]:
    """The cluster, with a namespace and a broker of this run's own."""
    running = KubernetesCluster(tmp_path_factory.mktemp("broker"))
    yield running
    running.close()


@pytest.fixture(
    scope="module",
    params=[
        "memory",
        pytest.param("rabbitmq", marks=pytest.mark.broker),
        pytest.param("kubernetes", marks=pytest.mark.kubernetes),
    ],
)
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One warm pool for each test module and link."""
    where: InMemory | OnRabbitMQ | OnKubernetes
    if request.param == "memory":
        where = InMemory([2])
    elif request.param == "kubernetes":
        pool = f"contract-{request.module.__name__.rpartition('.')[2]}"
        where = OnKubernetes(request.getfixturevalue("kubernetes"), pool)
    else:
        cache = request.getfixturevalue("cache")
        where = OnRabbitMQ(cache, f"contract-{request.module.__name__.rpartition('.')[2]}")
    yield where
    where.close()


@pytest.fixture
def journal() -> Iterator[Journal]:
    """What calls on this machine do."""
    running = Journal()
    yield running
    running.close()


@pytest.fixture
def rabbitmq(cache: Path, request: pytest.FixtureRequest) -> Iterator[OnRabbitMQ]:
    """A pool of the test's own on the real broker."""
    where = OnRabbitMQ(cache, f"test-{abs(hash(request.node.nodeid)):x}"[:40])
    yield where
    where.close()


@pytest.fixture
def make_executor(cluster: Cluster) -> Iterator[Callable[..., K8sRabbitExecutor]]:
    """Executors that are shut down after the test, whatever became of it."""
    with contextlib.ExitStack() as stack:

        def make(*args: Any, **kwargs: Any) -> K8sRabbitExecutor:
            executor = cluster.executor(*args, **kwargs)
            stack.callback(executor.shutdown, cancel_futures=True)
            return executor

        yield make


@pytest.fixture
def one_machine(cluster: Cluster) -> None:
    """For what only calls on this machine have: the folder and the environment of their program."""
    if isinstance(cluster, OnKubernetes):
        pytest.skip("calls on Kubernetes have neither the folder nor the environment of the client")


@pytest.fixture
def make_executor_on_one_pod(
    cluster: Cluster, make_executor: Callable[..., K8sRabbitExecutor]
) -> Iterator[Callable[..., K8sRabbitExecutor]]:
    """Executors whose calls all run on one pod, where they know each other's process ids."""
    if not isinstance(cluster, OnKubernetes):
        yield make_executor
        return
    cluster.close()  # the others hold all CPUs
    with contextlib.ExitStack() as stack:

        def make(*args: Any, **kwargs: Any) -> K8sRabbitExecutor:
            executor = cluster.executor(*args, pool="one-pod", worker_processes=2, **kwargs)
            stack.callback(executor.shutdown, cancel_futures=True)
            return executor

        yield make
    cluster.close()


@pytest.fixture
def ex(make_executor: Callable[..., K8sRabbitExecutor]) -> K8sRabbitExecutor:
    return make_executor()
