"""Pods that go in the middle of work: what they had runs elsewhere, and the reason is known."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time

import pytest
from faults import work_until_word
from kubernetes_cluster import OnKubernetes, wait_until

from k8sfutures import PodLost, demand

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]

CALLS = 2000


def square(number):
    time.sleep(0.003)
    return number * number


def where(_):
    time.sleep(0.02)
    return os.environ["K8SFUTURES_NODE"]


def lose_none(kube, pool, lose):
    """Run calls, lose something in the middle, and see that all come back."""
    with kube.executor(pool=pool) as ex:
        wait_until(lambda: len(set(ex.map(where, range(30)))) == len(kube.nodes()), 40)
        wait_until(lambda: len(kube.running(pool)) == len(kube.nodes()), 20)
        futures = [ex.submit(square, number) for number in range(CALLS)]
        futures[CALLS // 4].result(60)
        lose()
        assert [future.result(90) for future in futures] == [n * n for n in range(CALLS)]


def test_a_container_that_is_killed_loses_none_of_2000_calls(kube):
    lose_none(kube, "killed", lambda: OnKubernetes(kube, "killed").lose_pod())


def test_a_pod_that_is_deleted_loses_none_of_2000_calls(kube):
    lose_none(kube, "deleted", lambda: OnKubernetes(kube, "deleted").drain_pod())


def test_a_pod_that_is_deleted_by_force_loses_none_of_2000_calls(kube):
    def force():
        name = kube.running("forced")[0].metadata.name
        kube.core.delete_namespaced_pod(name, kube.namespace, grace_period_seconds=0)

    lose_none(kube, "forced", force)


def test_a_pod_that_is_evicted_loses_none_of_2000_calls(kube):
    lose_none(kube, "evicted", lambda: kube.evict(kube.running("evicted")[0]))


def test_a_node_that_is_drained_loses_none_of_2000_calls(kube):
    node = max(kube.nodes(), key=kube.nodes().get)

    def drain():
        kube.core.patch_node(node, {"spec": {"unschedulable": True}})
        for pod in kube.running("drained"):
            if pod.spec.node_name == node:
                kube.evict(pod)

    try:
        lose_none(kube, "drained", drain)
    finally:
        kube.core.patch_node(node, {"spec": {"unschedulable": None}})


def started_call(ex):
    future = ex.submit(time.sleep, 60)
    wait_until(future.running, 60)
    time.sleep(0.3)
    return future


def test_a_call_that_is_lost_with_its_pod_too_often_says_what_became_of_the_pod(kube):
    with kube.executor(1, pool="once", retries=0) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        wait_until(lambda: kube.running("once"), 20)
        future = started_call(ex)
        pod = OnKubernetes(kube, "once").lose_pod()
        error = future.exception(60)
        assert isinstance(error, PodLost)
        assert error.pods == (pod,)
        (reason,) = error.reasons
        assert reason in str(error)
        assert f"pod {pod} on node" in reason
        assert "signal 9" in reason or "deleted" in reason
        assert ex.submit(pow, 2, 3).result(60) == 8, "a new pod is made for what comes next"


@pytest.mark.parametrize("how", ["deleted", "evicted"])
def test_a_call_that_outlives_the_grace_of_its_pod_says_that_the_pod_was_taken_away(kube, how):
    template = {"spec": {"terminationGracePeriodSeconds": 2}}
    with kube.executor(1, pool=f"grace-{how}", retries=0, pod_template=template) as ex:
        future = started_call(ex)
        wait_until(lambda: kube.running(f"grace-{how}"), 20)
        (pod,) = kube.running(f"grace-{how}")
        if how == "deleted":
            kube.core.delete_namespaced_pod(pod.metadata.name, kube.namespace)
        else:
            kube.evict(pod)
        error = future.exception(60)
    assert isinstance(error, PodLost)
    # As of Kubernetes 1.26 it says who it was.
    assert re.search(r"was deleted \((by a user, an eviction or a drain|Evic|Delet)", str(error))


def test_a_pod_that_is_lost_while_nobody_works_is_not_replaced(kube):
    with kube.executor(1, pool="idle") as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        wait_until(lambda: kube.running("idle"), 20)
        ex.pool.delete()
        wait_until(lambda: not kube.jobs() and not kube.running(), 30)
        time.sleep(1)
        assert not kube.jobs()
        assert ex.submit(pow, 2, 3).result(60) == 8


def stop_agent_at_work(kube, pool, future, journal):
    """Stop the agent of the only pod, which runs a call, and wait for that to run elsewhere."""
    journal.wait_for("start a .*")
    wait_until(lambda: kube.running(pool), 20)
    (pod,) = kube.running(pool)
    kube.signal_agent(pod, "STOP")
    wait_until(lambda: len(journal.lines()) == 2, 90)
    assert not future.done()
    return pod


@pytest.mark.slow
def test_a_pod_whose_agent_stays_stopped_is_ended(kube, outside, monkeypatch, caplog):
    """Kubernetes sees its container run, and would let it hold its CPUs for ever."""
    monkeypatch.setattr(demand, "LOOKS", 4)
    template = {"spec": {"terminationGracePeriodSeconds": 1}}
    with kube.executor(1, pool="hung", worker_processes=1, pod_template=template) as ex:
        future = ex.submit(work_until_word, outside.address, "a")
        pod = stop_agent_at_work(kube, "hung", future, outside)
        name = pod.metadata.name
        wait_until(lambda: [one.metadata.name != name for one in kube.pods("hung")] == [True], 60)
        outside.give_word()
        assert future.result(60) == "a"
    assert f"pod {name} on node {pod.spec.node_name} is running" in caplog.text
    assert "is ended, with its Job" in caplog.text


@pytest.mark.slow
def test_a_pod_whose_agent_goes_on_late_stays_and_its_outcome_counts_once(
    kube, outside, monkeypatch, caplog
):
    monkeypatch.setattr(demand, "LOOKS", 15)
    with kube.executor(1, pool="late", worker_processes=1) as ex:
        resolved = []
        future = ex.submit(work_until_word, outside.address, "a")
        future.add_done_callback(resolved.append)
        pod = stop_agent_at_work(kube, "late", future, outside)
        kube.signal_agent(pod, "CONT")
        wait_until(lambda: "2 pods" in repr(ex), 30)
        outside.give_word()  # both calls come to their end
        assert future.result(60) == "a"
        # More looks than would have ended it, while there is work.
        assert list(ex.map(time.sleep, [0.5] * 40)) == [None] * 40
        assert pod.metadata.name in [one.metadata.name for one in kube.running("late")]
    assert resolved == [future]
    assert "is ended, with its Job" not in caplog.text


@pytest.mark.skipif(
    "K8SFUTURES_TEST_LOSE" not in os.environ,
    reason="needs K8SFUTURES_TEST_LOSE, the command that loses the node which it is given",
)
def test_a_node_that_is_lost_loses_none_of_2000_calls_and_is_named(kube):
    command = shlex.split(os.environ["K8SFUTURES_TEST_LOSE"])
    node = min(kube.nodes(), key=kube.nodes().get)
    with kube.executor(pool="node") as ex, kube.executor(pool="node", retries=0) as once:
        wait_until(lambda: len(set(ex.map(where, range(30)))) == len(kube.nodes()), 40)
        slots = sum(kube.nodes().values())
        long = [once.submit(time.sleep, 30) for _ in range(slots)]
        wait_until(lambda: all(future.running() for future in long), 30)
        futures = [ex.submit(square, number) for number in range(CALLS)]
        subprocess.run([*command, node], check=True)
        lost = [future.exception(60) for future in long]
        assert [future.result(120) for future in futures] == [n * n for n in range(CALLS)]
    errors = [error for error in lost if error is not None]
    assert errors
    for error in errors:
        assert isinstance(error, PodLost)
        assert f"its node {node} is not ready" in str(error)
