"""A cluster that takes its time, answers wrongly once, or is asked by two at the same time."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_kubernetes import FakeKubernetes, now

from k8sfutures import PodMismatch, PodsUnavailable
from k8sfutures.pods import Need
from k8sfutures.pods.kubernetes import roster
from k8sfutures.pods.kubernetes.api import KubeApi
from k8sfutures.pods.kubernetes.timestamps import between
from k8sfutures.pods.kubernetes.watcher import FIRST_PAUSE, LONGEST_PAUSE, Watcher

pytestmark = pytest.mark.timeout(60)

JOBS = "/apis/batch/v1/namespaces/default/jobs"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[FakeKubernetes]:
    """Two CPUs on one node."""
    cluster = FakeKubernetes(tmp_path, {"node-a": 2})
    yield cluster
    cluster.close()


def running(future: Any) -> None:
    """Wait until a call runs on a pod."""
    deadline = time.monotonic() + 30
    while not future.running():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- pods that are lost


def test_the_only_pod_is_replaced_before_its_job_is_said_to_have_ended(
    cluster: FakeKubernetes,
) -> None:
    cluster.prompt = False
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8
        (pod,) = cluster.running()
        future = ex.submit(time.sleep, 0.3)
        running(future)
        cluster.kill(pod)
        assert future.result(30) is None
        assert cluster.running() != [pod]
        assert len(cluster.jobs) == 1


@pytest.mark.parametrize("prompt", [True, False], ids=["prompt", "slow"])
def test_two_clients_replace_one_pod_by_one(cluster: FakeKubernetes, prompt: bool) -> None:
    cluster.prompt = prompt
    with cluster.executor() as one, cluster.executor() as two:
        assert one.submit(pow, 2, 3).result(30) == 8
        assert two.submit(pow, 2, 4).result(30) == 16
        (pod,) = cluster.running()
        futures = [ex.submit(time.sleep, 0.3) for ex in (one, two)]
        for future in futures:
            running(future)
        cluster.kill(pod)
        assert [future.result(30) for future in futures] == [None, None]
        assert len(cluster.running()) == 1
        assert len(cluster.jobs) == 1


# --- an API that falters


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/api/v1/nodes"), ("GET", JOBS), ("POST", JOBS), ("POST", "/secrets")],
)
def test_an_answer_that_fails_once_costs_nothing(
    cluster: FakeKubernetes, method: str, path: str
) -> None:
    cluster.fail(method, path, 503)
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8


def test_an_answer_that_fails_while_a_pod_is_replaced_costs_nothing(
    cluster: FakeKubernetes,
) -> None:
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8
        future = ex.submit(time.sleep, 0.3)
        running(future)
        cluster.fail("GET", "/api/v1/nodes", 503)
        cluster.kill(cluster.running()[0])
        assert future.result(30) is None


def test_a_stuck_pod_is_told_of_though_its_job_cannot_be_removed(
    cluster: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(roster, "STUCK_PATIENCE", 0.1)
    cluster.obstacle = {"reason": "ImagePullBackOff", "message": "no such image"}
    with cluster.executor() as ex:
        future = ex.submit(pow, 2, 3)
        cluster.wait_for(lambda: bool(cluster.pods))
        (job,) = cluster.jobs
        cluster.fail("DELETE", f"{JOBS}/{job}", 500)
        error = future.exception(30)
    assert isinstance(error, PodsUnavailable)
    assert "cannot start image image:1: ImagePullBackOff: no such image" in str(error)
    assert f"cannot remove the Job {job}" in caplog.text
    cluster.obstacle = None
    with cluster.executor() as ex:  # meets the old one, says the same, and removes it
        assert isinstance(ex.submit(pow, 2, 3).exception(30), PodsUnavailable)
    cluster.wait_for(lambda: not cluster.jobs)
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8


def test_a_job_whose_secret_could_neither_be_made_nor_itself_removed_is_replaced(
    cluster: FakeKubernetes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(roster, "START_PATIENCE", 0.3)
    cluster.fail("POST", "/secrets", 503)
    cluster.fail("DELETE", "-0", 503)
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8
    assert "before it made this Secret" in caplog.text
    assert [method for method, _ in cluster.requests if method == "DELETE"] == ["DELETE"] * 2


# --- the watch


def test_a_watch_that_ends_at_once_is_not_asked_for_again_and_again_without_pause() -> None:
    pauses: list[float] = []

    class Api:
        namespace = "default"

        def watch(self, *_: object, **__: object) -> list[Any]:
            return []

    class Stopped(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            assert timeout is not None
            pauses.append(timeout)
            if len(pauses) == 10:
                self.set()
            return self.is_set()

    watcher = Watcher(Api(), "1", lambda _heard: None)  # type: ignore[arg-type]
    watcher._stopped = Stopped()
    watcher.start()
    watcher._thread.join(30)
    assert pauses[0] == FIRST_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_the_kernel_probes_whether_a_server_that_is_watched_is_there_still(
    cluster: FakeKubernetes,
) -> None:
    api = KubeApi(str(cluster.kubeconfig))
    watch = api.watch("/api/v1/namespaces/default/pods", "0")
    connection = watch._response.connection.sock
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    silent, pause, times = (
        connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT")
    )
    assert silent + pause * times <= 60, "the default is two hours"
    watch.stop()
    list(watch)
    api.close()


def test_the_servers_clock_is_known_from_its_answers(cluster: FakeKubernetes) -> None:
    api = KubeApi(str(cluster.kubeconfig))
    assert api.time == ""
    api.list("/api/v1/nodes")
    assert abs(between(api.time, now())) < 3600
    assert between("2020-01-01T00:00:00Z", api.time) > 0
    api.close()


# --- pods that nobody hears


def test_a_pod_that_does_not_answer_any_more_and_that_kubernetes_sees_run_is_ended(
    cluster: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    """By every client that has given it up: one of them is the first."""
    clients = [cluster.source(), cluster.source()]
    credentials = clients[0].credentials()
    clients[0].ensure(credentials, Need())
    cluster.wait_for(lambda: bool(cluster.running()))
    (pod,) = cluster.running()
    (job,) = cluster.jobs.values()
    lost = {"answered": frozenset({pod}), "unexplained": frozenset({pod})}
    for client in clients:
        client.ensure(credentials, Need(**lost))
        assert list(cluster.jobs.values()) == [job], "it may come back"
    gate = cluster.hold("DELETE", f"{JOBS}/{job['metadata']['name']}")
    need = Need(**lost, silent=frozenset({pod}))
    second = threading.Thread(target=clients[1].ensure, args=(credentials, need))
    second.start()
    gate.wait_until_reached()
    clients[0].ensure(credentials, need)
    gate.let_go()
    second.join(30)
    for client in clients:
        client.close()
    assert job not in cluster.jobs.values()
    cluster.wait_for(lambda: pod not in cluster.running())
    told = f"pod {pod} on node node-a is running, by what Kubernetes says, but does not answer"
    assert told in caplog.text
    assert "cannot remove" not in caplog.text


# --- other pools


def test_pods_of_one_pool_that_are_not_alike_are_told_apart_in_words(
    cluster: FakeKubernetes,
) -> None:
    cluster.obstacle = {"reason": "PodInitializing"}  # so that nobody attaches
    source = cluster.source(memory="1Gi")
    source.ensure(source.credentials(), Need())
    source.close()
    with cluster.executor(memory="2Gi") as ex:
        error = ex.submit(pow, 2, 3).exception(30)
    assert isinstance(error, PodMismatch)
    (job,) = cluster.jobs
    assert f"the Job {job} of pool 'p' was made with other settings" in str(error)
    assert "memory=1Gi (here 2Gi)" in str(error)
    assert "k8sfutures pool delete" in str(error)


def test_who_has_pods_is_only_warned_of_others_that_are_not_alike(
    cluster: FakeKubernetes, caplog: pytest.LogCaptureFixture
) -> None:
    source = cluster.source(memory="1Gi")
    source.ensure(source.credentials(), Need())
    source.close()
    another = cluster.source(memory="2Gi")
    with caplog.at_level(logging.WARNING):
        another.ensure(another.credentials(), Need(attached={"pod-1": 1}))
    another.close()
    assert "memory=1Gi (here 2Gi)" in caplog.text


# --- the end


def test_nothing_is_made_once_the_executor_is_shut_down(cluster: FakeKubernetes) -> None:
    gate = cluster.hold("GET", "/api/v1/nodes")
    ex = cluster.executor()
    gate.wait_until_reached()
    ex.shutdown(wait=False)
    assert ex._manager._provisioner._source._retired.wait(30)
    gate.let_go()
    ex._manager._provisioner.join(30)
    assert not cluster.jobs
    assert ("POST", JOBS) not in cluster.requests


def test_what_is_just_being_made_when_the_executor_is_shut_down_is_removed(
    cluster: FakeKubernetes,
) -> None:
    gate = cluster.hold("POST", JOBS)
    ex = cluster.executor()
    gate.wait_until_reached()
    assert cluster.jobs
    ex.shutdown(wait=False)
    assert ex._manager._provisioner._source._retired.wait(30)
    gate.let_go()
    ex._manager._provisioner.join(30)
    assert not cluster.jobs
    assert not cluster.secrets
