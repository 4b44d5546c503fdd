"""What can go wrong on a cluster becomes words: each fault is a real one."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from kubernetes_cluster import wait_until

from k8sfutures import BrokerUnreachable, PodLost, PodMismatch, PodsUnavailable, WorkerCrashed

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]


def failure_of(executor):
    """What a call fails with, and after how many seconds."""
    start = time.monotonic()
    with executor as ex:
        error = ex.submit(pow, 2, 2).exception(60)
    assert error is not None
    print(f"\n{type(error).__name__}: {error}")
    return error, time.monotonic() - start


def closed_port(host):
    with socket.create_server((host, 0)) as found:
        return found.getsockname()[1]


# --- pods that cannot start


def test_an_image_that_does_not_exist(kube):
    error, took = failure_of(
        kube.executor(image="localhost/no-such-image:1", image_pull_policy="Never")
    )
    assert isinstance(error, PodsUnavailable)
    assert "localhost/no-such-image:1" in str(error)
    assert "ErrImageNeverPull" in str(error)
    assert "k8sfutures image" in str(error), "what to do"
    assert took < 20
    wait_until(lambda: not kube.jobs(), 10), "nothing is left that could start later"


def test_a_registry_that_cannot_be_reached(kube):
    image = f"127.0.0.1:{closed_port('127.0.0.1')}/team/image:1"
    error, took = failure_of(kube.executor(image=image, image_pull_policy="Always"))
    assert isinstance(error, PodsUnavailable)
    assert image in str(error)
    assert "connection refused" in str(error)
    assert took < 20


def test_memory_that_no_node_has_is_refused_before_any_pod_is_made(kube):
    error, took = failure_of(kube.executor(memory="1000Ti"))
    assert isinstance(error, PodsUnavailable)
    for node in kube.nodes():
        assert re.search(
            rf"{node} has \d+ MiB of memory free, and a pod wants 1048576000 MiB", str(error)
        )
    assert took < 10
    assert not kube.jobs()


def test_what_only_the_scheduler_knows_is_unschedulable(kube):
    asked = {"limits": {"example.com/accelerator": "1"}}
    template = {"spec": {"containers": [{"name": "worker", "resources": asked}]}}
    error, took = failure_of(kube.executor(pod_template=template))
    assert isinstance(error, PodsUnavailable)
    assert "Insufficient example.com/accelerator" in str(error)
    assert took < 20
    wait_until(lambda: not kube.jobs(), 10)


def test_cpus_that_somebody_else_has(kube):
    with kube.filled({}):
        error, took = failure_of(kube.executor())
    assert isinstance(error, PodsUnavailable)
    for node, cpus in kube.nodes().items():
        assert f"{node} has 0 of {cpus} CPUs free, and a pod wants 1" in str(error)
    assert took < 20


def test_a_taint_is_named_and_a_toleration_helps(kube):
    taint = {"key": "k8sfutures-tests", "value": "yes", "effect": "NoSchedule"}
    for node in kube.nodes():
        kube.core.patch_node(node, {"spec": {"taints": [taint]}})
    try:
        error, _ = failure_of(kube.executor())
        assert "has the taint k8sfutures-tests=yes:NoSchedule, which is not tolerated" in str(error)
        tolerations = [{"key": "k8sfutures-tests", "operator": "Exists"}]
        with kube.executor(tolerations=tolerations) as ex:
            assert ex.submit(pow, 2, 3).result(60) == 8
    finally:
        for node in kube.nodes():
            kube.core.patch_node(node, {"spec": {"taints": None}})


def test_a_quota(kube):
    quota = {"metadata": {"name": "small"}, "spec": {"hard": {"requests.memory": "1Mi"}}}
    kube.core.create_namespaced_resource_quota(kube.namespace, quota)
    try:
        error, took = failure_of(kube.executor(memory="64Mi"))
    finally:
        kube.core.delete_namespaced_resource_quota("small", kube.namespace)
    assert isinstance(error, PodsUnavailable)
    assert "exceeded quota: small" in str(error)
    assert took < 20
    wait_until(lambda: not kube.jobs(), 10)


def test_a_pod_that_crashes_at_its_start_shows_its_last_words(kube):
    program = "import sys; sys.exit('no model at /models/latest')"
    template = {"spec": {"containers": [{"name": "worker", "command": ["python", "-c", program]}]}}
    error, took = failure_of(kube.executor(pod_template=template))
    assert isinstance(error, PodsUnavailable)
    assert "exited with code 1" in str(error)
    assert "no model at /models/latest" in str(error)
    assert took < 20


def test_a_pod_that_cannot_reach_the_broker_says_so(kube):
    url = "amqp://tests:secret-password@10.255.255.1:5672/"
    if kube.broker is not None:
        port = closed_port(kube.broker.host)
        url = f"amqp://tests:secret-password@{kube.broker.host}:{port}/"
    error, took = failure_of(kube.executor(pod_amqp_url=url))
    assert isinstance(error, PodsUnavailable)
    assert "no broker at amqp://tests@" in str(error)
    assert "secret-password" not in str(error)
    assert took < 30


def test_a_broker_that_refuses_the_pods_says_so(kube):
    if kube.broker is None:
        pytest.skip("needs a broker of the tests' own")
    url = kube.amqp_url.replace(kube.broker.password, "wrong-password")
    error, took = failure_of(kube.executor(pod_amqp_url=url))
    assert isinstance(error, PodsUnavailable)
    assert "refused user 'tests'" in str(error)
    assert "wrong-password" not in str(error)
    assert took < 20


def test_an_image_of_another_version_is_told_by_its_protocol(kube):
    program = """if 1:
        import k8sfutures.messages as messages
        messages.PROTOCOL = 99
        from k8sfutures.worker.__main__ import main
        main()
    """
    template = {"spec": {"containers": [{"name": "worker", "command": ["python", "-c", program]}]}}
    error, took = failure_of(kube.executor(pod_template=template))
    assert isinstance(error, PodMismatch)
    assert "speak protocol 99, and this side speaks" in str(error)
    assert "k8sfutures image build" in str(error)
    assert took < 20


# --- access


def test_an_api_server_that_does_not_answer(kube, tmp_path):
    port = closed_port("127.0.0.1")
    error, took = failure_of(kube.executor(kubeconfig=kubeconfig(tmp_path, port)))
    assert isinstance(error, PodsUnavailable)
    assert f"the Kubernetes API at https://127.0.0.1:{port}" in str(error)
    assert "Connection refused" in str(error)
    assert took < 20


def kubeconfig(folder, port):
    path = folder / "kubeconfig"
    path.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": f"https://127.0.0.1:{port}"}}],
                "users": [{"name": "u", "user": {"token": "t"}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return str(path)


def test_a_client_without_rights_is_told_which_it_lacks(kube, account):
    error, took = failure_of(kube.executor(kubeconfig=account("nobody", role=False)))
    assert isinstance(error, PodsUnavailable)
    assert 'cannot list resource "pods"' in str(error)
    assert "worker/role.yaml" in str(error)
    assert took < 20


def test_a_kubeconfig_that_is_not_there(kube, tmp_path):
    error, took = failure_of(kube.executor(kubeconfig=str(tmp_path / "none")))
    assert isinstance(error, PodsUnavailable)
    assert str(tmp_path / "none") in str(error)
    assert took < 10


def test_a_context_that_is_not_there(kube):
    error, _ = failure_of(kube.executor(context="production"))
    assert "context='production' is not in" in str(error)
    assert "there are: local" in str(error)


def test_a_broker_that_is_not_there(kube):
    port = closed_port("127.0.0.1")
    error, _ = failure_of(
        kube.executor(
            amqp_url=f"amqp://u:p@127.0.0.1:{port}/",
            pod_amqp_url="amqp://u:p@10.0.0.1/",
            startup_timeout=3,
        )
    )
    assert isinstance(error, BrokerUnreachable)


# --- memory


def take(size):
    block = bytearray(size)
    for at in range(0, size, 4096):
        block[at] = 1
    return len(block)


def test_a_call_that_uses_up_the_memory_of_its_pod_is_told_so(kube):
    with kube.executor(1, memory="128Mi", pool="memory") as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        greedy = ex.submit(take, 1 << 30)
        error = greedy.exception(60)
        print(error)
        if isinstance(error, WorkerCrashed):  # the kernel chose the process
            assert error.out_of_memory
            assert error.memory_limit == 128 << 20
            assert "the memory of 128 MiB of its pod was used up" in str(error)
        else:  # as of Kubernetes 1.28 it takes the whole container
            assert isinstance(error, PodLost)
            assert "OOMKilled with the limit 128Mi" in str(error)
        assert ex.submit(pow, 2, 3).result(60) == 8, "the executor goes on"


def fill_shared_memory(size):
    with Path("/dev/shm/block").open("wb") as block:
        block.writelines(b"x" * (1 << 20) for _ in range(size >> 20))


def test_a_pod_that_is_out_of_memory_as_a_whole_is_told_so(kube):
    with kube.executor(1, memory="128Mi", pool="shared-memory", retries=1) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        errors = []
        for _ in range(10):
            future = ex.submit(fill_shared_memory, 256 << 20)
            errors.append(future.exception(100))
            if isinstance(errors[-1], PodLost):
                break
        print(errors)
        assert isinstance(errors[-1], PodLost)
        assert "OOMKilled with the limit 128Mi" in str(errors[-1])


def block(index):
    return index, bytes(8_000_000)


def test_results_that_wait_for_their_client_do_not_use_up_the_memory_of_a_pod(kube):
    """320 MB of them, in a pod of 128 MiB, for a client that is busy with its first one."""
    with kube.executor(1, memory="128Mi", pool="full", worker_processes=1, retries=0) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        is_busy = threading.Event()
        first = ex.submit(block, 0)
        first.add_done_callback(lambda _: is_busy.wait(4))
        results = ex.map(block, range(1, 40))
        assert first.result(60)[0] == 0
        assert [index for index, _ in results] == list(range(1, 40))


def length_of(data):
    time.sleep(0.2)
    return len(data)


def test_arguments_that_wait_for_a_cpu_do_not_use_up_the_memory_of_a_pod(kube):
    """320 MB of them, all different, in a pod of 128 MiB."""
    with kube.executor(1, memory="128Mi", pool="full", worker_processes=1, retries=0) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        futures = [
            ex.submit(length_of, index.to_bytes(4, "big") * 2_000_000) for index in range(40)
        ]
        assert [future.result(60) for future in futures] == [8_000_000] * 40


def test_a_call_that_ends_every_pod_it_meets_costs_nobody_else(kube):
    with kube.executor(memory="128Mi", pool="culprit", worker_processes=1, retries=2) as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        before = [ex.submit(time.sleep, 0.2) for _ in range(6)]
        culprit = ex.submit(fill_shared_memory, 256 << 20)
        after = [ex.submit(time.sleep, 0.2) for _ in range(20)]
        assert [future.result(100) for future in before + after] == [None] * 26
        error = culprit.exception(100)
        # The kernel may take the process before the pod: then the call has crashed.
        assert isinstance(error, PodLost | WorkerCrashed)
        if isinstance(error, PodLost):
            assert len(error.pods) == 3
        assert ex.submit(pow, 2, 3).result(60) == 8
