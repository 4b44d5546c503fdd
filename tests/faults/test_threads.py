"""Any thread of the client that fails takes its Futures with it, loudly; nobody hangs."""

from __future__ import annotations

import ast
import io
import sys
import threading
import time
from pathlib import Path

import pytest
from fake_kubernetes import FakeKubernetes
from faults import travels, wait_until

import k8sfutures
from k8sfutures import ThreadDied, WorkersTerminated, manager
from k8sfutures.pods import Need
from k8sfutures.pods.kubernetes import jobs, watcher
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
        travels(c.value)
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
        rabbitmq.lose_pod()  # which has not been told


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
    wait_until(lambda: not our_threads(), "the end of all threads")


def our_threads():
    return [one.name for one in threading.enumerate() if one.name.startswith("k8sfutures")]


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


def test_the_call_whose_outcome_ends_the_manager_thread_fails_too(monkeypatch):
    monkeypatch.setattr(manager, "outcome_of", fail)
    with MemoryCluster() as cluster, cluster.executor() as ex, pytest.raises(ThreadDied):
        ex.submit(pow, 2, 2).result(10)


def test_callbacks_that_cancel_other_calls_as_all_fail_leave_nobody_waiting():
    with MemoryCluster([6]) as cluster, cluster.executor() as ex:
        futures = [ex.submit(time.sleep, 60) for _ in range(6)]
        wait_until(lambda: all(future.running() for future in futures), "they run")
        for one, rival in zip(futures[::2], futures[1::2], strict=True):
            one.add_done_callback(lambda _, rival=rival: ex.cancel(rival, running=True))
        ex.kill_workers()
        assert {type(future.exception(10)) for future in futures} == {WorkersTerminated}


# --- threads of pods on Kubernetes


@pytest.fixture
def kubernetes_like(tmp_path):
    """Two CPUs on one node of an API server of ours, with real agents."""
    cluster = FakeKubernetes(tmp_path, {"node-a": 2})
    yield cluster
    cluster.close()


def test_the_watcher(kubernetes_like, monkeypatch):
    with kubernetes_like.executor() as ex:
        ex.submit(pow, 2, 2).result(30)
        checks = check_that_all_fail(ex, "watcher")
        next(checks)
        monkeypatch.setattr(watcher, "Changed", fail)
        # It hears of this.
        kubernetes_like.kill(kubernetes_like.running()[0])
        next(checks, None)


def test_a_thread_that_creates_jobs(tmp_path, monkeypatch):
    both = threading.Barrier(2, timeout=30)  # that thread, and the provisioning thread

    def work(_item):
        both.wait()
        if threading.current_thread().name == "k8sfutures jobs":
            fail()

    in_parallel = jobs._in_parallel
    monkeypatch.setattr(jobs, "_in_parallel", lambda _work, items: in_parallel(work, items))
    cluster = FakeKubernetes(tmp_path, {"node-a": 1, "node-b": 1})
    try:
        with cluster.executor() as ex:
            checks = check_that_all_fail(ex, "provisioning")
            next(checks)
            next(checks, None)
    finally:
        cluster.close()


# --- what is shown is not worth a result


class Exiting(io.StringIO):
    """A stream of a program's own, that gives up on one word."""

    def write(self, text):
        if "fatal" in text:
            sys.exit(3)
        return super().write(text)


def test_a_stream_that_exits_costs_no_result_and_no_other_line(monkeypatch, caplog):
    stream = Exiting()
    with MemoryCluster() as cluster, cluster.executor() as ex:
        ex.submit(pow, 2, 2).result()
        monkeypatch.setattr("sys.stdout", stream)
        assert ex.submit(print, "fatal").result(30) is None
        assert ex.submit(print, "fine").result(30) is None
        wait_until(lambda: "fine" in stream.getvalue())
        assert ex.submit(print, "fatal", end="").result(30) is None
    assert "cannot show what print#2 says: SystemExit(3)" in caplog.text


# --- all of them


TESTED = {
    "manager": test_the_manager_thread,
    "connection": test_the_connection_thread,
    "provisioning": test_the_provisioning_thread,
    "output": test_a_stream_that_exits_costs_no_result_and_no_other_line,
    "watcher": test_the_watcher,
    "jobs": test_a_thread_that_creates_jobs,
}
"""Threads by the second word of their names, and what shows that nobody hangs when one dies."""


def names_of_threads():
    """The constant beginnings of the names of all threads that the package starts."""
    for path in sorted(Path(k8sfutures.__file__).parent.rglob("*.py")):
        if path.name == "testing.py":  # pods in memory
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("Thread", "Timer")):
                (name,) = (one.value for one in node.keywords if one.arg == "name")
                yield name.values[0].value if isinstance(name, ast.JoinedStr) else name.value


def test_every_thread_of_the_client_has_a_test_here():
    assert {name.split()[1] for name in names_of_threads()} == TESTED.keys()
