"""What executors promise about their own life, on any link."""

from __future__ import annotations

import gc
import os
import platform
import signal
import threading
import time
import warnings
import weakref
from pathlib import Path

import pytest

from k8sfutures import (
    ForkedExecutorError,
    InitializerFailed,
    WorkerCrashed,
    WorkersTerminated,
)

pytestmark = pytest.mark.timeout(60)


def our_threads():
    return [thread for thread in threading.enumerate() if "k8sfutures" in thread.name]


def wait_until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.01)


# --- shutdown


def test_submit_after_shutdown(ex):
    ex.shutdown()
    for attempt in (lambda: ex.submit(pow, 2, 2), lambda: ex.map(abs, [1])):
        with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
            attempt()


def test_shutdown_waits_for_what_is_pending(cluster):
    with cluster.executor() as executor:
        futures = [executor.submit(time.sleep, 0.02) for _ in range(20)]
    assert all(future.done() for future in futures)
    assert not our_threads()


def test_shutdown_without_waiting(ex):
    futures = [ex.submit(time.sleep, 0.02) for _ in range(20)]
    ex.shutdown(wait=False)
    assert [future.result(20) for future in futures] == [None] * 20


def test_shutdown_twice(ex):
    ex.shutdown()
    ex.shutdown()


def test_cancel_futures(ex):
    futures = [ex.submit(time.sleep, 0.1) for _ in range(50)]
    ex.shutdown(cancel_futures=True)
    assert sum(future.cancelled() for future in futures) > 20
    assert all(future.cancelled() or future.result() is None for future in futures)


def test_an_executor_that_nobody_uses_ends_at_once(cluster):
    with cluster.executor():
        pass
    assert not our_threads()


def test_an_abandoned_executor_is_collected(cluster):
    executor = cluster.executor()
    future = executor.submit(pow, 2, 5)
    del executor
    gc.collect()
    assert future.result(20) == 32
    wait_until(lambda: not our_threads())


def test_what_was_bulky_goes_with_its_executor(cluster):
    """At once: until the collector runs by itself, there may be many more executors."""
    gc.collect()
    gc.disable()
    try:
        with cluster.executor() as executor:
            assert executor.submit(len, bytes(10_000_000)).result(20) == 10_000_000
            blobs = [weakref.ref(blob) for blob in executor._manager.blobs._recent.values()]
        assert [blob() for blob in blobs] == [None]
    finally:
        gc.enable()


def test_an_exception_in_the_with_block_passes(cluster):
    with pytest.raises(KeyError), cluster.executor() as executor:
        executor.submit(pow, 2, 2)
        raise KeyError("mine")


def test_a_forked_child_gets_a_clear_error(ex):
    ex.submit(pow, 2, 2).result()
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # about threads; that is the point
        pid = os.fork()
    if pid == 0:
        try:
            ex.submit(pow, 2, 2)
        except ForkedExecutorError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(pid, 0)
    assert f"belongs to process {os.getpid()}" in text
    assert "make a new K8sRabbitExecutor" in text


# --- arguments


@pytest.mark.parametrize("number", [0, -1])
def test_max_workers_must_be_positive(cluster, number):
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        cluster.executor(max_workers=number)


@pytest.mark.parametrize("value", ["2", 1.5, True])
def test_max_workers_must_be_a_number(cluster, value):
    with pytest.raises(TypeError, match="max_workers must be an integer"):
        cluster.executor(max_workers=value)


def test_mp_context_is_refused_with_the_reason(cluster):
    with pytest.raises(ValueError, match=r"mp_context must be None.*pods"):
        cluster.executor(mp_context="spawn")


def test_initializer_must_be_callable(cluster):
    with pytest.raises(TypeError, match="initializer must be a callable"):
        cluster.executor(initializer=3)


def intervals(executor, count, seconds):
    """When calls ran, by the machine's one monotonic clock."""

    def run():
        start = time.monotonic()
        time.sleep(seconds)
        return start, time.monotonic()

    return [future.result() for future in [executor.submit(run) for _ in range(count)]]


def most_at_once(spans):
    edges = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    most = now = 0
    for _, step in edges:
        now += step
        most = max(most, now)
    return most


def test_as_many_calls_run_at_once_as_there_are_cpus(cluster, ex):
    wait_for_all_cpus(cluster, ex)
    assert most_at_once(intervals(ex, 4 * cluster.slots, 0.1)) == cluster.slots


def test_max_workers_caps_how_many_run_at_once(make_executor):
    executor = make_executor(max_workers=1)
    [future.result() for future in [executor.submit(pow, 2, 2) for _ in range(500)]]
    assert most_at_once(intervals(executor, 6, 0.05)) == 1


def process():
    """Pod or machine, and process: two pods number theirs alike."""
    return platform.node(), os.getpid()


def whereabouts():
    """The process; waits a little, so that each slot takes one of several calls."""
    time.sleep(0.05)
    return process()


def affinity():
    return whereabouts(), tuple(os.sched_getaffinity(0))


def wait_for_all_cpus(cluster, executor):
    """Pods may be starting still, or again."""
    seen = set()

    def all_seen():
        futures = [executor.submit(whereabouts) for _ in range(cluster.slots)]
        seen.update(future.result() for future in futures)
        return len(seen) >= cluster.slots

    wait_until(all_seen, 40)


def test_each_process_is_pinned_to_a_cpu_of_its_own(cluster, ex):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU only")
    wait_for_all_cpus(cluster, ex)
    futures = [ex.submit(affinity) for _ in range(4 * cluster.slots)]
    seen = dict(future.result() for future in futures)
    assert all(len(cpus) == 1 for cpus in seen.values())
    pinned = {(pod, cpus) for (pod, _), cpus in seen.items()}
    assert len(pinned) == len(seen) == cluster.slots


# --- initializer, max_tasks_per_child


def remember(value):
    import builtins

    builtins._remembered = value


def recall():
    import builtins

    return getattr(builtins, "_remembered", None)


def test_the_initializer_has_run_before_every_call(make_executor):
    executor = make_executor(initializer=remember, initargs=("ready",))
    futures = [executor.submit(recall) for _ in range(50)]
    assert {future.result() for future in futures} == {"ready"}


def test_what_an_initializer_left_is_not_there_for_the_next_executor(cluster):
    with cluster.executor(initializer=remember, initargs=("mine",)) as executor:
        assert {f.result() for f in [executor.submit(recall) for _ in range(20)]} == {"mine"}
    with cluster.executor() as executor:
        assert {f.result() for f in [executor.submit(recall) for _ in range(20)]} == {None}


def fail():
    raise LookupError("no model there")


def test_a_failing_initializer_breaks_the_executor_with_its_cause(make_executor, caplog):
    executor = make_executor(initializer=fail)
    futures = [executor.submit(pow, 2, 2) for _ in range(5)]
    for future in futures:
        with pytest.raises(InitializerFailed, match="LookupError: no model there") as caught:
            future.result()
        assert isinstance(caught.value.__cause__, LookupError)
    with pytest.raises(InitializerFailed):
        executor.submit(pow, 2, 2)
    assert "no model there" in caplog.text


def test_a_process_is_replaced_after_max_tasks_per_child(make_executor):
    executor = make_executor(max_workers=1, max_tasks_per_child=3)
    seen = [executor.submit(process).result() for _ in range(9)]
    assert len(set(seen)) >= 3
    assert all(seen.count(one) <= 3 for one in seen)


def test_max_tasks_per_child_in_a_burst(make_executor):
    executor = make_executor(max_tasks_per_child=5)
    seen = [future.result() for future in [executor.submit(process) for _ in range(60)]]
    assert max(seen.count(one) for one in seen) <= 5


# --- processes that die


def segfault():
    import faulthandler

    faulthandler.disable()
    faulthandler._sigsegv()


@pytest.mark.parametrize(
    ("function", "args", "number", "code"),
    [
        (os.kill, (0, signal.SIGKILL), signal.SIGKILL, None),
        (os._exit, (5,), None, 5),
        (segfault, (), signal.SIGSEGV, None),
    ],
    ids=["SIGKILL", "os._exit", "segmentation fault"],
)
def test_a_crash_costs_exactly_the_call_that_ran_there(ex, function, args, number, code):
    def crash():
        function(*((os.getpid(), args[1]) if function is os.kill else args))

    before = [ex.submit(pow, n, 2) for n in range(2500)]
    crashing = ex.submit(crash)
    after = [ex.submit(pow, n, 2) for n in range(2500)]
    with pytest.raises(WorkerCrashed) as caught:
        crashing.result()
    error = caught.value
    assert (error.signal, error.exitcode) == (number, code)
    assert error.pod
    assert error.cpu_id is not None
    assert error.pid
    assert [future.result() for future in before + after] == [n * n for n in range(2500)] * 2


def test_one_process_killed_from_outside_in_the_middle_of_5000_calls(cluster, ex):
    where = ex.submit(whereabouts).result()
    futures = [ex.submit(time.sleep, 0.0002) for _ in range(5000)]
    futures[1000].result()
    cluster.kill_process(where)
    errors = [future.exception() for future in futures]
    crashed = [error for error in errors if error is not None]
    assert [type(error) for error in crashed] in ([WorkerCrashed], [])
    assert ex.submit(pow, 2, 2).result() == 4


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_ending_the_workers(make_executor, method):
    executor = make_executor()
    futures = [executor.submit(time.sleep, 60) for _ in range(5)]
    wait_until(futures[0].running)
    getattr(executor, method)()
    for future in futures:
        assert future.cancelled() or isinstance(future.exception(), WorkersTerminated)
    with pytest.raises(RuntimeError):
        executor.submit(pow, 2, 2)
    assert make_executor().submit(pow, 2, 2).result() == 4, "the pool goes on"


def ignore_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)


def test_a_call_that_ignores_sigterm_does_not_keep_its_cpu(cluster, make_executor):
    executor = make_executor()
    futures = [executor.submit(ignore_sigterm) for _ in range(cluster.slots)]
    wait_until(futures[-1].running)
    time.sleep(0.3)
    executor.terminate_workers()
    assert make_executor().submit(pow, 2, 2).result(20) == 4


def leave_an_orphan():
    """The process id of a grandchild that goes on for a moment, its parent having ended."""
    read, write = os.pipe()
    if os.fork() == 0:
        orphan = os.fork()
        if orphan == 0:
            time.sleep(0.1)
            os._exit(0)
        os.write(write, orphan.to_bytes(4, "little"))
        os._exit(0)
    os.wait()
    return int.from_bytes(os.read(read, 4), "little")


def has_vanished(pid):
    return not Path("/proc", str(pid)).exists()


def test_what_a_call_leaves_behind_does_not_stay_as_a_zombie(make_executor):
    executor = make_executor(max_workers=1)
    orphan = executor.submit(leave_an_orphan).result()
    wait_until(lambda: executor.submit(has_vanished, orphan).result())


# --- scheduling


def nap(seconds):
    time.sleep(seconds)
    return seconds


def test_short_calls_do_not_wait_behind_a_long_one(make_executor):
    executor = make_executor()
    [future.result() for future in [executor.submit(nap, 0) for _ in range(2000)]]
    long = executor.submit(nap, 20)
    short = [executor.submit(nap, 0) for _ in range(500)]
    assert [future.result(10) for future in short] == [0] * 500
    assert not long.done()
    executor.kill_workers()


def test_two_clients_both_make_progress(make_executor):
    first, second = make_executor(), make_executor()
    flood = [first.submit(nap, 0.02) for _ in range(300)]
    assert second.submit(nap, 0).result(5) == 0, "it had its turn"
    assert sum(future.done() for future in flood) < 300
    first.shutdown(cancel_futures=True)


# --- pods that go


def test_calls_of_a_lost_pod_run_again(cluster, make_executor):
    executor = make_executor()
    assert executor.submit(pow, 2, 2).result() == 4
    futures = [executor.submit(nap, 0.02) for _ in range(100)]
    futures[10].result()
    cluster.lose_pod()
    assert [future.result(30) for future in futures] == [0.02] * 100


def test_calls_of_a_draining_pod_move(cluster, make_executor):
    executor = make_executor(retries=0)
    assert executor.submit(pow, 2, 2).result() == 4
    futures = [executor.submit(nap, 0.05) for _ in range(60)]
    futures[5].result()
    cluster.drain_pod()
    assert [future.result(30) for future in futures] == [0.05] * 60
