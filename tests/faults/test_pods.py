"""What can happen to a pod and its processes: what it costs, and what the exception says."""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import time
from pathlib import Path

import msgpack
import pytest
from faults import travels, wait_for_end, wait_until, work

from k8sfutures import CallCancelled, CallTimeout, PodLost, PodsUnavailable, WorkerCrashed
from k8sfutures.machine import is_stopped
from k8sfutures.pods import stopped

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def square(n):
    return n * n


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


on_a_warm_pod = pytest.mark.parametrize("cluster", ["rabbitmq"], indirect=True)
"""Tests that end no pod share one."""


# --- a CPU process that dies


def killed(number):
    def kill_itself():
        os.kill(os.getpid(), number)
        time.sleep(60)

    return kill_itself


def exit_at_once():
    os._exit(7)


def segfault():
    faulthandler.disable()
    faulthandler._sigsegv()


def crash_in_a_thread():
    """Native code can do that at any time, in any thread."""
    import threading

    thread = threading.Thread(target=os.abort)
    thread.start()
    time.sleep(60)


@on_a_warm_pod
@pytest.mark.parametrize(
    ("crash", "number", "code", "words"),
    [
        (killed(signal.SIGKILL), signal.SIGKILL, None, "by signal 9 (SIGKILL)…; out of memory"),
        (killed(signal.SIGTERM), signal.SIGTERM, None, "by signal 15 (SIGTERM)"),
        (killed(signal.SIGRTMIN + 3), signal.SIGRTMIN + 3, None, "by signal 37"),
        (exit_at_once, None, 7, "exited with code 7…; did the call end its process, with os._exit"),
        (segfault, signal.SIGSEGV, None, "by signal 11 (SIGSEGV)…; a crash in native code?"),
        (crash_in_a_thread, signal.SIGABRT, None, "by signal 6 (SIGABRT)…; an abort in native"),
    ],
    ids=["SIGKILL", "SIGTERM", "real-time signal", "os._exit", "segmentation fault", "abort"],
)
def test_a_process_that_dies_costs_the_call_that_ran_there(cluster, crash, number, code, words):
    with cluster.executor() as ex:
        before = [ex.submit(square, n) for n in range(500)]
        crashing = ex.submit(crash)
        in_map = ex.map(square, range(500))
        after = [ex.submit(square, n) for n in range(500)]
        error = crashing.exception(30)
        assert type(error) is WorkerCrashed
        assert (error.signal, error.exitcode) == (number, code)
        assert error.pod in cluster.pids()
        assert error.cpu_id in os.sched_getaffinity(0)
        for word in (*words.split("…"), error.pod, f"CPU id {error.cpu_id}", f"pid {error.pid}"):
            assert word in str(error)
        travels(error)
        expected = [n * n for n in range(500)]
        assert [future.result() for future in before] == expected
        assert list(in_map) == expected
        assert [future.result() for future in after] == expected
        assert len(cluster.pids()) == 1


@on_a_warm_pod
def test_an_item_of_a_map_that_kills_its_process_costs_no_other_item(cluster):
    def picky(n):
        if n == 77:
            os._exit(3)
        return n

    with cluster.executor() as ex:
        ex.submit(square, 1).result()
        results = ex.map(picky, range(200), chunksize=50)
        assert [next(results) for _ in range(77)] == list(range(77))
        words = r"that ran item 77 of the map of .*picky exited with code 3"
        with pytest.raises(WorkerCrashed, match=words):
            next(results)
        rest = [ex.submit(picky, n) for n in range(78, 200)]
        assert [future.result() for future in rest] == list(range(78, 200))


@on_a_warm_pod
@pytest.mark.parametrize(
    ("function", "kind"),
    [
        (lambda: sys.exit(3), SystemExit),
        (lambda: [0] * (1 << 60), MemoryError),
        (lambda: signal.raise_signal(signal.SIGINT), KeyboardInterrupt),
    ],
    ids=["sys.exit", "MemoryError", "KeyboardInterrupt"],
)
def test_what_a_call_raises_ends_no_process(cluster, function, kind):
    with cluster.executor(max_workers=1) as ex:
        pid = ex.submit(os.getpid).result()
        error = ex.submit(function).exception(30)
        assert type(error) is kind
        assert ex.submit(os.getpid).result() == pid


@on_a_warm_pod
def test_memory_that_cannot_be_had_ends_no_process(cluster):
    """A limit of the process itself; that of the pod is the kernel's."""

    def hungry():
        import resource

        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, before[1]))
        try:
            return bytearray(2 << 30)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)

    with cluster.executor(max_workers=1) as ex:
        pid = ex.submit(os.getpid).result()
        assert type(ex.submit(hungry).exception(30)) is MemoryError
        assert ex.submit(os.getpid).result() == pid


@on_a_warm_pod
def test_a_process_that_is_stopped_holds_up_its_own_call_alone(cluster, journal):
    if cluster.slots < 2:
        pytest.skip("one CPU only")
    with cluster.executor() as ex:
        stopped = ex.submit(work, journal.address, "a", 0.5)
        pid = int(journal.wait_for(r"start a (\d+)")[1])
        os.kill(pid, signal.SIGSTOP)
        try:
            others = [ex.submit(square, n) for n in range(300)]
            assert [future.result(30) for future in others] == [n * n for n in range(300)]
            assert list(ex.map(square, range(300))) == [n * n for n in range(300)]
            assert not stopped.done()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert stopped.result(30) == "a"


@on_a_warm_pod
@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_a_process_that_is_stopped_can_be_ended(cluster, journal, method):
    with cluster.executor() as ex:
        ex.submit(work, journal.address, "a", 60)
        pid = int(journal.wait_for(r"start a (\d+)")[1])
        os.kill(pid, signal.SIGSTOP)
        getattr(ex, method)()
    assert wait_for_end(pid)
    with cluster.executor() as ex:
        assert ex.submit(square, 3).result(30) == 9


def siblings():
    """The processes of this pod, with the one that is kept ready; this one's pid first."""
    time.sleep(0.3)  # so that each runs one
    zygote = os.getppid()
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    return os.getpid(), frozenset(map(int, children))


@on_a_warm_pod
@pytest.mark.parametrize("how", ["timeout", "cancel", "crash"])
def test_a_process_that_was_ready_takes_the_place_of_one_that_has_ended(cluster, journal, how):
    with cluster.executor() as ex:
        wait_until(lambda: len(ex.submit(siblings).result()[1]) == cluster.slots + 1)
        _, before = ex.submit(siblings).result()
        if how == "crash":
            ended = ex.submit(killed(signal.SIGKILL)).exception(30).pid
        else:
            future = ex.options(timeout=1).submit(work, journal.address, "a", 60)
            ended = int(journal.wait_for(r"start a (\d+)")[1])
            if how == "cancel":
                assert ex.cancel(future, running=True)
            assert type(future.exception(30)) is (
                CallTimeout if how == "timeout" else CallCancelled
            )
        futures = [ex.submit(siblings) for _ in range(cluster.slots)]
        assert {future.result(30)[0] for future in futures} == before - {ended}


# --- a pod that is lost


def write_into_the_channel(words):
    for descriptor in list(Path("/proc/self/fd").iterdir()):
        if descriptor.is_socket():
            os.write(int(descriptor.name), words)
    time.sleep(60)


@on_a_warm_pod
@pytest.mark.parametrize(
    "words",
    [b"hello", msgpack.packb([{}, 0, 0, 0, b""]), msgpack.packb([None, None, None, None, b""])],
    ids=["text", "no number", "nothing"],
)
def test_what_a_call_writes_where_its_process_speaks_to_the_agent_is_its_own_end(cluster, words):
    with cluster.executor(retries=0) as ex:
        neighbours = [ex.submit(time.sleep, 0.2) for _ in range(4)]
        error = ex.submit(write_into_the_channel, words).exception(30)
        assert type(error) is WorkerCrashed
        assert [future.result(30) for future in neighbours] == [None] * 4


def kill_the_agent():
    os.kill(parent_of(os.getppid()), signal.SIGKILL)  # the zygote's parent
    time.sleep(60)


def test_an_agent_that_is_killed_costs_nothing_while_there_are_retries(rabbitmq, journal):
    with rabbitmq.executor() as ex:
        futures = [ex.submit(work, journal.address, str(n), 0.05) for n in range(40)]
        results = ex.map(square, range(1000))
        journal.wait_for("start 9 .*")
        before = rabbitmq.lose_pod()
        assert [future.result(30) for future in futures] == [str(n) for n in range(40)]
        assert list(results) == [n * n for n in range(1000)]
        assert before not in rabbitmq.pids()
    ends = [line for line in journal.lines() if line.startswith("end")]
    assert set(ends) == {f"end {n}" for n in range(40)}


def test_without_retries_the_exception_says_what_became_of_the_pod(rabbitmq, journal):
    with rabbitmq.executor(retries=0) as ex:
        lost = ex.submit(work, journal.address, "a", 60)
        journal.wait_for("start a .*")
        name = rabbitmq.lose_pod()
        error = lost.exception(30)
        assert type(error) is PodLost
        assert error.pods == (name,)
        (reason,) = error.reasons
        assert f"the local pod {name} was killed by signal 9 (Killed)" in reason
        assert "connected to the broker" in reason, "the end of its log"
        assert f"lost with 1 pod and is not tried again (retries=0):\n  1. {name}" in str(error)
        assert reason in str(error)
        travels(error)
        assert ex.submit(square, 3).result(30) == 9


def test_a_call_that_kills_every_pod_is_stopped_and_takes_no_neighbour_along(rabbitmq, journal):
    with rabbitmq.executor(retries=2) as ex:
        neighbours = [ex.submit(work, journal.address, str(n), 0.2) for n in range(3)]
        culprit = ex.submit(kill_the_agent)
        neighbours += [ex.submit(work, journal.address, str(n), 0.2) for n in range(3, 8)]
        in_map = ex.map(square, range(100))
        error = culprit.exception(60)
        assert [future.result(60) for future in neighbours] == [str(n) for n in range(8)]
        assert list(in_map) == [n * n for n in range(100)]
    assert type(error) is PodLost
    assert len(set(error.pods)) == len(error.reasons) == 3
    text = str(error)
    assert "lost with 3 pods and is not tried again (retries=2); it may be what ended them" in text
    for number, (pod, reason) in enumerate(zip(error.pods, error.reasons, strict=True), 1):
        assert f"\n  {number}. {pod}" in text
        assert reason in text
        assert "was killed by signal 9" in reason
    travels(error)


def test_a_zygote_that_dies_ends_its_pod_and_loses_nothing(rabbitmq, journal):
    with rabbitmq.executor() as ex:
        futures = [ex.submit(work, journal.address, str(n), 0.05) for n in range(40)]
        process = int(journal.wait_for(r"start 9 (\d+)")[1])
        (before,) = rabbitmq.pids()
        os.kill(parent_of(process), signal.SIGKILL)
        assert [future.result(30) for future in futures] == [str(n) for n in range(40)]
        assert before not in rabbitmq.pids()


def test_a_pod_that_drains_finishes_what_runs_and_gives_back_the_rest(rabbitmq, journal):
    with rabbitmq.executor(retries=0) as ex:
        futures = [ex.submit(work, journal.address, str(n), 0.3) for n in range(12)]
        journal.wait_for("start 1 .*")
        ((name, pid),) = rabbitmq.pids().items()
        rabbitmq.drain_pod()
        assert [future.result(30) for future in futures] == [str(n) for n in range(12)]
        assert wait_for_end(pid)
        assert name not in rabbitmq.pids()
    assert len(journal.lines()) == 24, "each ran once"


def test_what_is_on_its_way_to_a_pod_that_drains_runs_elsewhere(rabbitmq, faulty_proxy):
    with rabbitmq.executor(amqp_url=faulty_proxy.url, retries=0) as ex:
        # Without a call: the pod would wait until it hears that its outcome is here.
        wait_until(lambda: "1 pods" in repr(ex))
        ((name, pid),) = rabbitmq.pids().items()
        faulty_proxy.hold(name)
        future = ex.submit(square, 3)
        wait_until(future.running)
        rabbitmq.drain_pod()
        assert future.result(30) == 9
        assert wait_for_end(pid)


@pytest.mark.slow
def test_an_agent_that_hangs_is_given_up_and_its_calls_run_again(rabbitmq, faulty_proxy, journal):
    """When it goes on, it finds that its client has given it up, and takes its calls again."""
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        assert ex.submit(square, 2).result() == 4
        ((name, pid),) = rabbitmq.pids().items()
        os.kill(pid, signal.SIGSTOP)
        try:
            future = ex.submit(work, journal.address, "a", 0.1)
            faulty_proxy.reset()  # as the broker does when it misses heartbeats
            wait_until(lambda: "0 pods" in repr(ex))
        finally:
            os.kill(pid, signal.SIGCONT)
        assert future.result(60) == "a"
        assert ex.submit(square, 3).result(30) == 9
        assert list(rabbitmq.pids()) == [name]


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(pid))


@pytest.mark.slow
@pytest.mark.parametrize("who", ["its client", "the next client"])
def test_an_agent_that_stays_stopped_is_told_of_and_ended(
    rabbitmq, faulty_proxy, monkeypatch, caplog, who
):
    """Else its CPUs would be nobody's for ever."""
    monkeypatch.setattr(stopped, "LOOKS", 2)
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        assert ex.submit(square, 2).result() == 4
        ((name, pid),) = rabbitmq.pids().items()
        stop(pid)
        faulty_proxy.reset()  # as the broker does when it misses heartbeats
        if who == "its client":
            assert ex.submit(square, 3).result(60) == 9
    if who == "the next client":
        with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
            assert ex.submit(square, 3).result(60) == 9
    assert f"the local pod {name} (process {pid}) is stopped by a signal" in caplog.text
    assert wait_for_end(pid)
    assert name not in rabbitmq.pids()


def test_who_waits_for_an_agent_that_is_stopped_is_told_what_to_do(rabbitmq):
    with rabbitmq.executor() as ex:
        assert ex.submit(square, 2).result() == 4
    ((name, pid),) = rabbitmq.pids().items()
    stop(pid)
    try:
        with rabbitmq.executor(startup_timeout=1) as ex:
            error = ex.submit(square, 2).exception(30)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert type(error) is PodsUnavailable
    assert f"the local pod {name} (process {pid}) is stopped by a signal" in str(error)
    assert f"kill -CONT {pid}" in str(error)
    travels(error)
    with rabbitmq.executor() as ex:
        assert ex.submit(square, 2).result(30) == 4
    assert list(rabbitmq.pids()) == [name]
