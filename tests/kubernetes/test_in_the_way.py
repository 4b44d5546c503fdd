"""What is on the cluster already, and in the way: of use to nobody, or to others only."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from cluster_broker import ClusterBroker
from kubernetes_cluster import wait_until

from k8sfutures import K8sRabbitExecutor, PodsUnavailable

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(150)]


def fill(ex, kube):
    """Have an executor use every CPU of the cluster."""
    total = sum(kube.nodes().values())
    wait_until(lambda: len(set(ex.map(process, range(3 * total)))) >= total, 40)


def process(_):
    time.sleep(0.05)
    return os.uname().nodename, os.getpid()


# --- a pool of the same name for another broker or secret


def test_two_secrets_under_one_pools_name_work_side_by_side(kube):
    one = kube.executor(1, pool="side-by-side", secret="one")
    two = kube.executor(1, pool="side-by-side", secret="two")
    with one, two:
        assert one.submit(pow, 2, 2).result(60) == 4
        assert two.submit(pow, 2, 3).result(60) == 8
        assert one.submit(pow, 2, 4).result(60) == 16
    jobs = kube.jobs()
    assert len(jobs) == 2
    assert len({job.metadata.annotations["k8sfutures/access"] for job in jobs}) == 2


def test_who_finds_the_cluster_full_of_pods_for_another_secret_is_told_so(kube):
    with kube.executor(pool="two-secrets", secret="one") as one:
        fill(one, kube)
        with kube.executor(pool="two-secrets", secret="two", startup_timeout=5) as two:
            error = two.submit(pow, 2, 3).exception(60)
    print(error)
    assert isinstance(error, PodsUnavailable)
    assert "pool two-secrets of another broker or secret has" in str(error)
    assert "settings amqp_url, pod_amqp_url and secret" in str(error)
    assert "k8sfutures pool delete NAME" in str(error)


def test_who_finds_the_cluster_full_of_pods_for_another_broker_is_told_so_and_gets_their_room(
    kube, tmp_path, caplog
):
    if kube.broker is None:
        pytest.skip("needs a broker of the tests' own")
    other = ClusterBroker(kube.broker.host, tmp_path)
    try:
        with kube.executor(pool="two-brokers", secret="s") as one, caplog.at_level(logging.WARNING):
            fill(one, kube)
            with kube.executor(pool="two-brokers", secret="s", amqp_url=other.url) as two:
                future = two.submit(pow, 2, 3)
                wait_until(lambda: "of another broker or secret has" in caplog.text, 30)
                time.sleep(1)
                assert not future.done()
                assert one.submit(pow, 2, 2).result(60) == 4, "nobody takes its pods away"
                one.pool.delete()
                assert future.result(60) == 8
    finally:
        other.stop()


# --- Jobs whose Secret was never made


KILLED = """
    import os, signal, threading
    from k8sfutures import K8sRabbitExecutor
    from k8sfutures.pods.kubernetes.jobs import Jobs
    every_job = threading.Barrier({count}, timeout=30)

    def tell(*_):
        every_job.wait()
        os.kill(os.getpid(), signal.SIGKILL)

    Jobs._tell = tell
    with K8sRabbitExecutor(**{settings!r}) as ex:
        ex.submit(pow, 2, 2).result(60)
"""


def test_jobs_of_a_client_that_was_killed_before_it_made_their_secret_are_replaced(kube):
    settings = kube.settings(pool="phantom", startup_timeout=100)
    program = textwrap.dedent(KILLED).replace("{settings!r}", repr(settings))
    program = program.replace("{count}", str(len(kube.nodes())))
    run = subprocess.run([sys.executable, "-c", program], check=False, timeout=60)
    assert run.returncode == -signal.SIGKILL
    left = {job.metadata.uid for job in kube.jobs()}
    assert len(left) == len(kube.nodes())
    name = "k8sfutures/pool-name"
    assert not [one for one in kube.secrets() if one.metadata.annotations[name] == "phantom"]
    start = time.monotonic()
    with K8sRabbitExecutor(**settings) as ex:
        assert ex.submit(pow, 2, 3).result(110) == 8
        print(f"first result after {time.monotonic() - start:.0f} s")
        assert left.isdisjoint(job.metadata.uid for job in kube.jobs())


# --- pods that stay, though their worker has ended


def with_company(kube):
    """A template with a second container, which never ends by itself."""
    company = {
        "name": "company",
        "image": kube.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", "import time; time.sleep(100000)"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {"spec": {"containers": [company], "terminationGracePeriodSeconds": 2}}


def worker_has_ended(pod):
    return any(
        status.name == "worker" and status.state.terminated is not None
        for status in pod.status.container_statuses or ()
    )


def test_a_pod_whose_worker_has_ended_is_removed_by_the_client_that_sees_it(kube):
    template = with_company(kube)
    with kube.executor(pool="company", pod_template=template) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        wait_until(lambda: len(kube.running("company")) == len(kube.nodes()), 40)
        old = {job.metadata.uid for job in kube.jobs()}
        for _ in kube.nodes():
            ex.submit(os.kill, 1, signal.SIGTERM).exception(60)
        wait_until(lambda: old - {job.metadata.uid for job in kube.jobs()}, 30)
        assert ex.submit(pow, 2, 3).result(60) == 8


def test_a_pod_whose_worker_ended_unseen_is_removed_by_the_next_client_of_any_pool(kube):
    template = with_company(kube)
    with kube.executor(pool="unseen", pod_template=template, warm_for=1) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        wait_until(lambda: len(kube.running("unseen")) == len(kube.nodes()), 40)
    wait_until(lambda: all(map(worker_has_ended, kube.pods("unseen"))), 40)
    assert len(kube.running("unseen")) == len(kube.nodes()), "its company keeps it"
    with kube.executor(pool="another") as ex:
        assert ex.submit(pow, 2, 3).result(60) == 8
    wait_until(lambda: not kube.pods("unseen"), 30)
