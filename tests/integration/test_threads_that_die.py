"""Any thread of the client that fails takes its Futures with it, loudly; nobody hangs."""

from __future__ import annotations

import time

import pytest

from k8sfutures import ThreadDied
from k8sfutures.pods import Need
from k8sfutures.testing import MemoryCluster

pytestmark = pytest.mark.timeout(60)


class Mishap(Exception):
    pass


def fail(*_args, **_kwargs):
    raise Mishap("on purpose")


def check_that_all_fail(ex, which):
    """Futures and maps that were there when it happened, and what is asked for afterwards."""
    futures = [ex.submit(time.sleep, 60) for _ in range(5)]
    results = ex.map(time.sleep, [60] * 5)
    yield
    for wait in (*(future.result for future in futures), results.__next__):
        with pytest.raises(ThreadDied, match=f"the {which} thread failed: Mishap: on purpose") as c:
            wait()
        assert isinstance(c.value.__cause__, Mishap)
    with pytest.raises(ThreadDied):
        ex.submit(pow, 2, 2)
    with pytest.raises(ThreadDied):
        ex.map(pow, [2], [2])
    ex.shutdown()


@pytest.mark.broker
def test_the_connection_thread(rabbitmq):
    with rabbitmq.executor() as ex:
        ex.submit(pow, 2, 2).result()
        checks = check_that_all_fail(ex, "connection")
        next(checks)
        ex._manager._session._link._loop.add_callback_threadsafe(fail)
        next(checks, None)


@pytest.mark.parametrize("link", ["memory", pytest.param("rabbitmq", marks=pytest.mark.broker)])
def test_the_manager_thread(link, request, monkeypatch):
    with MemoryCluster() as cluster:
        where = cluster if link == "memory" else request.getfixturevalue("rabbitmq")
        with where.executor() as ex:
            ex.submit(pow, 2, 2).result()
            checks = check_that_all_fail(ex, "manager")
            next(checks)
            monkeypatch.setattr(ex._manager, "_on_time", fail)
            next(checks, None)


def test_the_manager_thread_that_cannot_even_leave(monkeypatch):
    with MemoryCluster() as cluster, cluster.executor() as ex:
        ex.submit(pow, 2, 2).result()
        checks = check_that_all_fail(ex, "manager")
        next(checks)
        monkeypatch.setattr(ex._manager._session, "leave", fail)
        monkeypatch.setattr("threading.excepthook", lambda _: None)
        monkeypatch.setattr(ex._manager, "_on_time", fail)
        next(checks, None)


def test_the_provisioning_thread(monkeypatch):
    with MemoryCluster() as cluster, cluster.executor() as ex:
        ex.submit(pow, 2, 2).result()
        checks = check_that_all_fail(ex, "provisioning")
        next(checks)
        monkeypatch.setattr(ex._manager._plan.source, "ensure", fail)
        ex._manager._provisioner.want_pods(Need())
        next(checks, None)


def test_a_callback_that_exits_the_interpreter_ends_nobody_else_s_wait():
    with MemoryCluster() as cluster, cluster.executor() as ex:
        first = ex.submit(time.sleep, 0.2)
        first.add_done_callback(lambda _: exit(3))
        second = ex.submit(time.sleep, 0.5)
        with pytest.raises(ThreadDied, match="manager"):
            second.result()
