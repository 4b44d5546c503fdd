"""Two clients whose calls take turns in one CPU process, and change what the kernel keeps of it."""

from __future__ import annotations

import ctypes
import faulthandler
import resource
import tempfile
from collections.abc import Iterator

import pytest

from k8sfutures import K8sRabbitExecutor, WorkerCrashed
from k8sfutures.testing import MemoryCluster

FILES = resource.RLIMIT_NOFILE


@pytest.fixture
def pair() -> Iterator[tuple[K8sRabbitExecutor, K8sRabbitExecutor]]:
    with MemoryCluster([1]) as cluster, cluster.executor() as one, cluster.executor() as another:
        yield one, another


def test_a_soft_limit_stays_its_clients_own_where_another_lowers_the_hard_one(
    pair: tuple[K8sRabbitExecutor, K8sRabbitExecutor],
) -> None:
    one, another = pair
    one.submit(resource.setrlimit, FILES, (200, 700)).result()
    another.submit(resource.setrlimit, FILES, (500, 600)).result()
    assert one.submit(resource.getrlimit, FILES).result() == (200, 600)
    assert another.submit(resource.getrlimit, FILES).result() == (500, 600)


def have_crashes_told_elsewhere() -> None:
    faulthandler.kept = tempfile.TemporaryFile()  # type: ignore[attr-defined]  # noqa: SIM115
    faulthandler.enable(faulthandler.kept)  # type: ignore[attr-defined]


def crash() -> None:
    ctypes.string_at(0)


def test_where_a_call_crashed_is_not_told_to_another_client(
    pair: tuple[K8sRabbitExecutor, K8sRabbitExecutor],
) -> None:
    one, another = pair
    one.submit(have_crashes_told_elsewhere).result()
    failure = another.submit(crash).exception()
    assert isinstance(failure, WorkerCrashed)
    assert failure.stack is not None
    assert "in crash" in failure.stack
