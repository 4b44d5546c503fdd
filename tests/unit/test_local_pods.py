"""The files of local pods: who reads them, and when they go."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import time

import pytest
from faults import wait_until

from k8sfutures.config import Settings
from k8sfutures.errors import PodsUnavailable
from k8sfutures.machine import is_stopped, start_time
from k8sfutures.pods import Credentials, Need, local
from k8sfutures.pods.stopped import StoppedPods


@pytest.fixture
def pod(tmp_path):
    """Makes the files of a pod: of this process, or of one that has ended."""

    def make(name, *, runs, age=0.0):
        record = {"pid": os.getpid(), "started": start_time(os.getpid()), "cpu_ids": [0]}
        if not runs:
            record["started"] -= 1
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
        log = tmp_path / f"{name}.log"
        log.write_text("why it has ended")
        os.utime(log, (time.time() - age, time.time() - age))

    return make


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_local_broker_that_does_not_start_is_told_before_pods_that_do_not_answer(monkeypatch):
    """The error of the one has the end of its log; that of the others would say nothing."""
    given = []

    def start(*, timeout):
        given.append(timeout)
        return "amqp://me:secret@127.0.0.1:1/"

    monkeypatch.setattr(local, "ensure_local_broker", start)
    with contextlib.closing(local.LocalPods(Settings(startup_timeout=100), "pool")) as pods:
        pods.credentials()
    assert given == [90]


def test_a_python_that_cannot_be_started_is_no_matter_of_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    credentials = Credentials("amqp://me:secret@127.0.0.1:1/", bytes(32))
    with (
        contextlib.closing(local.LocalPods(Settings(), "pool")) as pods,
        pytest.raises(PodsUnavailable, match="That is the Python that runs this program"),
    ):
        pods.ensure(credentials, Need())


def test_pods_of_a_machine_whose_name_goes_on_are_left_to_it(tmp_path, monkeypatch):
    """Several can share a home folder; what runs on another cannot be seen here."""
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path))
    record = tmp_path / "pods" / f"pool@{platform.node()}.example.01234567" / "pod.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"pid": 2**22, "started": 1, "cpu_ids": [0]}))
    assert local.local_pods() == []
    assert record.exists()


def test_who_finds_that_a_pod_has_ended_leaves_its_log_to_its_other_clients(tmp_path, pod):
    pod("runs", runs=True)
    pod("ended", runs=False)
    assert [one.name for one in local._records(tmp_path)] == ["runs"]
    local._remove_old_logs(tmp_path)
    assert files(tmp_path) == ["ended.log", "runs.json", "runs.log"]


def test_logs_of_pods_that_ended_long_ago_are_removed(tmp_path, pod):
    pod("runs", runs=True, age=1e6)
    pod("ended", runs=False, age=1e6)
    pod("drains", runs=True, age=1e6)
    pod("drained", runs=False, age=1e6)
    for name in ("drains", "drained"):  # as a pod does that is asked to end
        (tmp_path / f"{name}.json").rename(tmp_path / f"{name}.draining")
    found = {one.name: one.draining for one in local._records(tmp_path)}
    assert found == {"runs": False, "drains": True}
    local._remove_old_logs(tmp_path)
    assert files(tmp_path) == ["drains.draining", "drains.log", "runs.json", "runs.log"]


@pytest.mark.parametrize(
    ("program", "failed"),
    [
        ("import os; os.kill(os.getpid(), 9)", False),
        ("import os; os.kill(os.getpid(), 15)", False),
        ("import os; os._exit(os.EX_TEMPFAIL)", False),
        ("import sys; sys.exit(1)", True),
        ("import os; os.abort()", True),
    ],
)
def test_a_pod_that_was_killed_has_not_failed_to_start(program, failed):
    """Another may be started in its place, even if it had not answered yet."""
    source = local.LocalPods(Settings(), "killed")
    pid = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
    local._children.add(pid)
    source._watch_pid("pod", pid)
    ended = []
    source.watch(ended.append)
    source.close()
    assert [(event.pod, event.failed) for event in ended] == [("pod", failed)]


# --- pods that somebody has stopped


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "60"])
    yield process.pid
    process.kill()
    process.wait()


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid))


def test_a_pod_that_stays_stopped_is_told_of_once_and_then_to_be_ended(sleeper):
    pods, pids = StoppedPods(), {"pod-1": sleeper}
    assert pods.find(pids, 0.0) == []
    assert pods.pause() is None
    stop(sleeper)
    (told,) = pods.find(pids, 0.0)
    assert f"pod-1 (process {sleeper}) is stopped" in told
    assert f"kill -CONT {sleeper}" in told
    assert pods.pause() == 1.0
    assert pods.find(pids, 0.5) == []
    assert [pods.overdue(pids, at / 10) for at in range(300)] == [[]] * 300
    assert pods.overdue(pids, 30.5) == ["pod-1"]


def test_one_that_goes_on_or_ends_is_forgotten(sleeper):
    pods = StoppedPods()
    stop(sleeper)
    for end in (lambda: os.kill(sleeper, signal.SIGCONT), lambda: os.kill(sleeper, signal.SIGKILL)):
        stop(sleeper)
        pods.find({"pod-1": sleeper}, 0.0)
        end()
        wait_until(lambda: not is_stopped(sleeper))
        assert pods.overdue({"pod-1": sleeper}, 1.0) == []
        assert pods.pause() is None


def test_who_looks_seldom_because_it_was_stopped_itself_ends_nothing_at_once(sleeper):
    pods, pids = StoppedPods(), {"pod-1": sleeper}
    stop(sleeper)
    pods.find(pids, 0.0)
    assert pods.overdue(pids, 1000.0) == []


def test_an_error_names_the_pods_that_have_not_answered(tmp_path):
    assert local._told_of_silent({}, tmp_path) == ""
    told = local._told_of_silent({"pod-2": 20, "pod-1": 10}, tmp_path)
    assert told.startswith(
        f"the local pod pod-1 (process 10, its log is {tmp_path}/pod-1.log) runs"
    )
    assert "and 1 more do" in told
    assert "kill -KILL 10" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_no_pod_is_started_in_a_folder_of_another_user(tmp_path, monkeypatch):
    """Who owns it can put links there, and say which pods run."""
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path))
    (tmp_path / "pods").mkdir()
    os.chown(tmp_path / "pods", 12345, -1)
    monkeypatch.setattr(local.LocalPods, "_start", lambda *_: ("pod", os.getpid()))
    source = local.LocalPods(Settings(amqp_url="amqp://u:p@127.0.0.1:1"), "pool")
    try:
        with pytest.raises(PodsUnavailable, match="belongs to another user; name another cache"):
            source.ensure(Credentials("amqp://u:p@127.0.0.1:1", b"k" * 32, None), Need())
    finally:
        source.close()
    assert files(tmp_path / "pods") == []
