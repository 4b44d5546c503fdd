"""What is bulky and shared by many calls is sent to each pod once: the bytes at the broker tell."""

from __future__ import annotations

import functools
import os
import platform
import time
from collections.abc import Callable, Iterator

import pytest

from k8sfutures import K8sRabbitExecutor
from k8sfutures.broker import ensure_local_broker
from tests.conftest import OnRabbitMQ, with_programs
from tests.integration.conftest import Proxy

pytestmark = [with_programs, pytest.mark.timeout(120)]

SIZE = 8_000_000
CALLS = 60

Call = tuple[str, int]
Submit = Callable[[K8sRabbitExecutor], Iterator[Call]]


@pytest.fixture(scope="module")
def executor(cluster) -> Iterator[tuple[K8sRabbitExecutor, Proxy]]:
    """One that has all pods, and the proxy that its messages go through; the pods' do not."""
    local = isinstance(cluster, OnRabbitMQ)
    url = ensure_local_broker() if local else cluster.cluster.amqp_url
    proxy = Proxy(url)
    with cluster.executor(amqp_url=proxy.url, pod_amqp_url=url) as ex:
        deadline = time.monotonic() + 60
        while ex._manager.statistics().slots < cluster.slots:
            assert time.monotonic() < deadline, "not all pods have come"
            ex.submit(time.sleep, 0.05).result()
        yield ex, proxy
    proxy.close()


def use(block: bytes, _: int) -> Call:
    time.sleep(0.01)
    return platform.node(), len(block)


class Model:
    def __init__(self) -> None:
        self.weights = os.urandom(SIZE)

    def use(self, number: int) -> Call:
        return use(self.weights, number)


def argument(ex: K8sRabbitExecutor) -> Iterator[Call]:
    block = os.urandom(SIZE)
    futures = [ex.submit(use, block, number) for number in range(CALLS)]
    return (future.result() for future in futures)


def of_a_partial(ex: K8sRabbitExecutor) -> Iterator[Call]:
    return ex.map(functools.partial(use, os.urandom(SIZE)), range(CALLS))


def of_a_bound_method(ex: K8sRabbitExecutor) -> Iterator[Call]:
    model = Model()
    futures = [ex.submit(model.use, number) for number in range(CALLS)]
    return (future.result() for future in futures)


def of_a_closure(ex: K8sRabbitExecutor) -> Iterator[Call]:
    block = os.urandom(SIZE)
    return ex.map(lambda number: use(block, number), range(CALLS))


def global_(ex: K8sRabbitExecutor) -> Iterator[Call]:
    names = {"__name__": "__main__", "use": use, "block": os.urandom(SIZE)}
    exec("def use_global(number): return use(block, number)", names)
    futures = [ex.submit(names["use_global"], number) for number in range(CALLS)]
    return (future.result() for future in futures)


@pytest.mark.parametrize(
    "submit",
    [argument, of_a_partial, of_a_bound_method, of_a_closure, global_],
    ids=lambda submit: submit.__name__,
)
def test_it_is_sent_to_each_pod_once(executor, submit: Submit) -> None:
    ex, proxy = executor
    before = proxy.published_bytes
    results = list(submit(ex))
    assert [size for _, size in results] == [SIZE] * CALLS
    pods = len({pod for pod, _ in results})
    sent = proxy.published_bytes - before
    assert pods * SIZE <= sent < pods * SIZE * 1.05 + 200_000
