"""A client whose lease has ended without its knowledge comes back, and loses nothing."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from journal import note

from k8sfutures.link import Unroutable
from k8sfutures.testing import MemoryCluster


@pytest.fixture
def cluster():
    with MemoryCluster([2]) as running:
        yield running


def let_go_of(cluster, client):
    """The pod's lease for a client ends."""
    (pod,) = (one for one in cluster._pods if one.running)

    def drop():
        pod.agent._dispatcher.drop(client, 9)
        pod.agent._carry_out()
        pod.agent._look_after_clients(time.monotonic())

    pod.loop.add_callback_threadsafe(drop)


def mark(journal, n):
    note(journal, "it runs")
    time.sleep(1.5)
    return n


def test_calls_that_the_pod_has_forgotten_run_again(cluster, journal):
    with cluster.executor() as ex:
        future = ex.submit(mark, journal.address, 7)
        journal.nth(1)
        let_go_of(cluster, cluster.clients[0])
        assert future.result(20) == 7
    assert len(journal.lines()) == 2


@pytest.mark.parametrize("size", [10, 3_000_000])
def test_what_is_sent_before_the_client_notices_arrives(cluster, size):
    """None of it counts at the pod; the client knows that, and sends it again, blobs too."""
    data = np.arange(size)
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        let_go_of(cluster, cluster.clients[0])
        for round_ in range(3):
            assert ex.submit(np.sum, data + round_).result(20) == data.sum() + round_ * size
            assert list(ex.map(pow, range(50), range(50))) == [n**n for n in range(50)]


def on_the_loop_of(pod, function):
    """Call something on a pod's loop; returns what it returned."""
    result, done = [], threading.Event()

    def call():
        result.append(function())
        done.set()

    pod.loop.add_callback_threadsafe(call)
    assert done.wait(10)
    return result[0]


def test_a_client_that_was_silent_for_long_has_time_to_come_back(cluster):
    """Broker and client find a dead connection at about the same time, 20 to 30 s late."""
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        (name,) = cluster.clients
        (pod,) = (one for one in cluster._pods if one.running)

        def its_queue_is_gone(since):
            pod.agent._last_heard[name] -= 30
            pod.agent._missing = since
            pod.agent._link_event(Unroutable(name))
            return pod.agent._dispatcher.clients

        assert on_the_loop_of(pod, lambda: list(its_queue_is_gone({}))) == [name]
        assert on_the_loop_of(pod, lambda: list(its_queue_is_gone({name: -1e9}))) == []
        assert ex.submit(pow, 2, 3).result(20) == 8
