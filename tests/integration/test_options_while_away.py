"""What is chosen for calls holds although client or pod were away from the broker meanwhile."""

from __future__ import annotations

import os
import time

import pytest
from outputs import wait_for_output

from k8sfutures import CallCancelled, CallTimeout
from k8sfutures.testing import MemoryCluster

pytestmark = pytest.mark.timeout(60)

LONG = 600


def say_and_wait(seconds=LONG):
    print("I am", os.getpid(), flush=True)
    time.sleep(seconds)


@pytest.fixture
def cluster():
    with MemoryCluster([1]) as running:
        yield running


@pytest.fixture(params=["pod", "client"])
def victim(request, cluster):
    """Names whoever is to be away, once all are there."""
    return lambda: (cluster.pods if request.param == "pod" else cluster.clients)[0]


def test_a_cancellation_that_was_lost_is_told_again(cluster, victim, capfd):
    """The only process would be busy for ever if the pod did not hear of it."""
    with cluster.executor() as ex:
        future = ex.submit(say_and_wait)
        wait_for_output(capfd, "I am")
        cluster.cut(victim())
        assert ex.cancel(future, running=True)
        assert type(future.exception()) is CallCancelled
        cluster.heal(victim())
        assert ex.submit(pow, 2, 3).result(30) == 8


def test_a_limit_ends_while_nobody_hears_of_it_and_is_told_afterwards(
    cluster, victim, capfd, wait_for_end
):
    with cluster.executor() as ex:
        future = ex.options(timeout=0.3).submit(say_and_wait)
        said = wait_for_output(capfd, "I am")
        cluster.cut(victim())
        assert wait_for_end(int(said.split()[-1]), 30)
        assert not future.done()
        cluster.heal(victim())
        assert type(future.exception(30)) is CallTimeout
        assert ex.submit(pow, 2, 3).result(30) == 8


def test_what_was_lost_on_its_way_to_the_pod_has_its_limit_still(cluster, victim, capfd):
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 2).result(30) == 4
        cluster.cut(victim())
        future = ex.options(timeout=0.3).submit(say_and_wait)
        again = ex.options(timeout=0.3).submit(say_and_wait)
        cluster.heal(victim())
        assert type(future.exception(30)) is CallTimeout
        assert type(again.exception(30)) is CallTimeout
