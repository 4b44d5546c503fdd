"""What only the real broker and real processes can show."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pika
import pytest

from k8sfutures import BrokerRefused, BrokerUnreachable, K8sRabbitExecutor
from k8sfutures.address import parse_amqp_url
from k8sfutures.broker import ensure_local_broker, local_broker_status, stop_local_broker
from k8sfutures.pods.local import local_pods

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


def script(text, *arguments, **options):
    """Run a Python program; its output as text."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        **options,
    )


def square(n):
    return n * n


# --- messages


def test_a_burst_of_1000_submits_is_a_handful_of_messages(rabbitmq, proxy):
    with rabbitmq.executor(amqp_url=proxy.url) as ex:
        ex.submit(square, 1).result()
        before, delivered = proxy.published.copy(), proxy.delivered
        futures = [ex.submit(square, n) for n in range(1000)]
        assert [future.result() for future in futures] == [n * n for n in range(1000)]
        published = proxy.published - before
    (pod,) = [name for name in published if ".pod-" in name]
    (client,) = [name for name in published if ".client-" in name]
    assert published[pod] <= 40, "groups"
    assert published[client] <= 120, "results"
    assert proxy.delivered - delivered <= sum(published.values()) + 20


def test_a_function_travels_once_for_each_pod(rabbitmq, proxy):
    ballast = os.urandom(200_000)

    def heavy(n):
        return len(ballast) + n

    with rabbitmq.executor(amqp_url=proxy.url) as ex:
        assert [f.result() for f in [ex.submit(heavy, n) for n in range(300)]] == [
            200_000 + n for n in range(300)
        ]
        assert ex._manager._session.groups > 1
    assert 200_000 < proxy.published_bytes < 300_000


def test_a_function_that_is_larger_than_a_message_may_be(rabbitmq):
    ballast = bytes(20_000_000)
    with rabbitmq.executor() as ex:
        assert ex.submit(lambda n: len(ballast) + n, 1).result(60) == 20_000_001


def test_a_draining_pod_makes_room_for_another(rabbitmq):
    with rabbitmq.executor() as ex:
        long = ex.submit(time.sleep, 6)
        assert ex.submit(square, 2).result() == 4
        rabbitmq.drain_pod()
        assert ex.submit(square, 3).result(5) == 9
        with rabbitmq.executor() as other:
            assert other.submit(square, 4).result(5) == 16
        assert long.result(20) is None


# --- warm pods


CLIENT = """
    import sys, time, os
    from k8sfutures import K8sRabbitExecutor
    start = time.monotonic()
    with K8sRabbitExecutor(pods="local", pool=sys.argv[1]) as ex:
        pid = ex.submit(os.getppid).result()
        print(pid, time.monotonic() - start)
"""


def test_a_second_client_process_attaches_to_the_pods_of_the_first(rabbitmq):
    first = script(CLIENT, rabbitmq.pool)
    pods = rabbitmq.pids()
    second = script(CLIENT, rabbitmq.pool)
    assert (first.stderr, second.stderr) == ("", "")
    assert len(pods) == 1
    assert rabbitmq.pids() == pods, "no pod was started"
    assert first.stdout.split()[0] == second.stdout.split()[0], "the same zygote: no new process"


def test_two_first_clients_at_once_share_what_they_start(rabbitmq):
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(CLIENT), rabbitmq.pool],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    outputs = [program.communicate(timeout=60) for program in programs]
    assert [error for _, error in outputs] == ["", ""]
    assert len({output.split()[0] for output, _ in outputs}) == 1
    assert len(rabbitmq.pids()) == 1


def test_pods_end_themselves_after_warm_for(rabbitmq, wait_for_end):
    with rabbitmq.executor(warm_for=0.5) as ex:
        assert ex.submit(square, 3).result() == 9
        time.sleep(2.5)  # a client that is there keeps them, however long it does nothing
        assert ex.submit(square, 4).result() == 16
        (pid,) = rabbitmq.pids().values()
    assert wait_for_end(pid, 20)


def test_worker_processes_is_the_size_of_a_pod(rabbitmq):
    with rabbitmq.executor(worker_processes=1) as ex:
        zygotes = set()
        deadline = time.monotonic() + 20
        count = len(os.sched_getaffinity(0))
        while len(zygotes) < count and time.monotonic() < deadline:
            futures = [ex.submit(lambda: (time.sleep(0.1), os.getppid())[1]) for _ in range(count)]
            zygotes |= {future.result() for future in futures}
        assert len(zygotes) == count
    assert len(rabbitmq.pids()) == count


# --- the interpreter's exit


def test_work_that_is_pending_at_exit_is_finished(rabbitmq):
    done = script(
        """
        import sys, time
        from k8sfutures import K8sRabbitExecutor
        def work(n):
            time.sleep(0.05)
            print("done", n)
        if __name__ == "__main__":
            ex = K8sRabbitExecutor(pods="local", pool=sys.argv[1])
            for n in range(8):
                ex.submit(work, n)
        """,
        rabbitmq.pool,
    )
    assert done.stderr == ""
    assert sorted(done.stdout.split("\n")) == [
        "",
        *(f"work#{n + 1} | done {n}" for n in range(8)),
    ]


# --- the broker


def test_nobody_at_the_address(cache):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"amqp://me:topsecret@127.0.0.1:{port}/"
        with K8sRabbitExecutor(pods="local", amqp_url=url, startup_timeout=1) as ex:
            future = ex.submit(square, 2)
            with pytest.raises(BrokerUnreachable) as caught:
                future.result(30)
            assert f"127.0.0.1:{port}" in str(caught.value)
            assert "refused" in str(caught.value)
            assert "topsecret" not in str(caught.value)
            with pytest.raises(BrokerUnreachable):
                ex.submit(square, 2)


def test_credentials_that_the_broker_refuses(rabbitmq):
    address = parse_amqp_url(ensure_local_broker())
    url = f"amqp://{address.user}:topsecret@{address.host}:{address.port}/"
    with rabbitmq.executor(amqp_url=url) as ex:
        with pytest.raises(BrokerRefused) as caught:
            ex.submit(square, 2).result(30)
        assert address.user in str(caught.value)
        assert "topsecret" not in str(caught.value)
    assert isinstance(caught.value, BrokenProcessPool)


def test_a_virtual_host_that_does_not_exist(rabbitmq):
    url = ensure_local_broker().rpartition("/")[0] + "/nowhere"
    with rabbitmq.executor(amqp_url=url) as ex, pytest.raises(BrokerRefused, match="nowhere"):
        ex.submit(square, 2).result(30)


def test_garbage_in_the_queues_is_dropped(rabbitmq, caplog, monkeypatch):
    monkeypatch.setattr("k8sfutures.drops.QUIET", 0.0)  # each is told
    with rabbitmq.executor() as ex:
        assert ex.submit(square, 2).result() == 4
        with pika.BlockingConnection(pika.URLParameters(ensure_local_broker())) as connection:
            channel = connection.channel()
            for exchange in ("pods", "clients"):
                for garbage in (b"", b"garbage", b"\0" * 100, os.urandom(1000)):
                    channel.basic_publish(f"k8sfutures.{rabbitmq.pool}.{exchange}", "", garbage)
        assert [f.result() for f in [ex.submit(square, n) for n in range(100)]] == [
            n * n for n in range(100)
        ]
    # Of four, one line a second says so, with how many there were before it.
    assert 1 <= caplog.text.count("dropped a message: not a k8sfutures message") <= 4


def test_a_connection_that_breaks_loses_nothing(rabbitmq, proxy):
    with rabbitmq.executor(amqp_url=proxy.url) as ex:
        ex.submit(square, 2).result()
        futures = [ex.submit(lambda n: (time.sleep(0.002), n)[1], n) for n in range(1000)]
        for at in (100, 400, 700):
            futures[at].result(30)
            proxy.cut()  # the client's and the pod's alike
        assert [future.result(30) for future in futures] == list(range(1000))
        assert len(rabbitmq.pids()) == 1


def wait_for_another_broker(before):
    """Wait until another one is being started; which may not accept connections yet."""
    deadline = time.monotonic() + 30
    while (status := local_broker_status()) is None or status.pid == before.pid:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return status


@pytest.mark.parametrize("how", ["killed", "stopped", "stopped twice"])
def test_a_local_broker_that_is_gone_comes_back_and_nothing_is_lost(how, tmp_path, monkeypatch):
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path))
    ensure_local_broker()
    before = local_broker_status()
    try:
        with K8sRabbitExecutor(pods="local", pool="restart") as ex:
            futures = [ex.submit(lambda n: (time.sleep(0.01), n)[1], n) for n in range(300)]
            futures[50].result(30)
            if how == "killed":
                os.kill(before.pid, signal.SIGKILL)
            else:
                stop_local_broker()
            if how == "stopped twice":  # the second time before the client has found it again
                wait_for_another_broker(before)
                stop_local_broker()
            futures += [ex.submit(square, n) for n in range(100)]
            expected = [*range(300), *(n * n for n in range(100))]
            assert [future.result(60) for future in futures] == expected
        after = local_broker_status()
        assert (after.address, after.pid != before.pid) == (before.address, True)
        (pod,) = local_pods()
        os.kill(pod.pid, signal.SIGKILL)
    finally:
        stop_local_broker()


# --- pods


def open_files_of(pid):
    found = []
    for one in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the folder's own
            found.append(str(one.readlink()))
    return found


def open_files():
    return open_files_of(os.getpid())


def test_a_file_that_the_program_leaves_to_its_children_is_not_open_in_pods(rabbitmq, tmp_path):
    """Its lock, for one, would be held for as long as the pod is warm."""
    with (tmp_path / "lock").open("w") as lock:
        os.set_inheritable(lock.fileno(), True)
        with rabbitmq.executor() as ex:
            assert lock.name not in ex.submit(open_files).result(30)
            (agent,) = rabbitmq.pids().values()
            assert lock.name not in open_files_of(agent)


def test_the_log_of_a_pod_that_cannot_start_is_in_the_error(rabbitmq, monkeypatch, tmp_path):
    broken = tmp_path / "k8sfutures" / "worker"
    broken.mkdir(parents=True)
    (tmp_path / "k8sfutures" / "__init__.py").write_text("raise RuntimeError('no good')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with rabbitmq.executor() as ex, pytest.raises(BrokenProcessPool, match="no good"):
        ex.submit(square, 2).result(30)


def test_no_thread_outlives_its_executor(rabbitmq):
    before = set(threading.enumerate())  # one that was interrupted in another test may still end
    with rabbitmq.executor() as ex:
        ex.submit(square, 2).result()
        new = set(threading.enumerate()) - before
        assert any("k8sfutures" in thread.name for thread in new)
    assert [thread.name for thread in set(threading.enumerate()) - before] == []


def test_orphans_end_when_the_agent_is_killed(rabbitmq, wait_for_end):
    with rabbitmq.executor() as ex:
        process = ex.submit(os.getpid).result()
        zygote = ex.submit(os.getppid).result()
        rabbitmq.lose_pod()
        assert wait_for_end(zygote, 10)
        assert wait_for_end(process, 10)
