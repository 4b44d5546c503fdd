"""Retries, time limits and cancelling for chosen calls, on any link."""

from __future__ import annotations

import concurrent.futures
import os
import pickle
import platform
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from journal import Journal, note
from outputs import wait_for_output

from k8sfutures import CallCancelled, CallTimeout, K8sRabbitExecutor, PodLost, WorkerCrashed

pytestmark = pytest.mark.timeout(60)

LONG = 600


def say_and_wait(seconds=LONG):
    print("here I am", flush=True)
    time.sleep(seconds)


# --- timeout


def test_a_call_that_runs_for_too_long_is_ended(ex):
    future = ex.options(timeout=0.2).submit(say_and_wait)
    error = future.exception(30)
    assert type(error) is CallTimeout
    assert isinstance(error, TimeoutError)
    assert isinstance(error, concurrent.futures.TimeoutError)
    assert (error.timeout, error.output) == (0.2, "here I am")
    assert error.seconds >= 0.2
    assert error.pod
    assert error.node
    assert error.cpu_id is not None
    assert error.memory_peak > 1 << 20
    assert error.stack.splitlines()[-1].endswith("in say_and_wait")
    assert "timeout=0.2 s" in str(error)
    twin = pickle.loads(pickle.dumps(error))
    assert vars(twin) == vars(error)
    assert ex.submit(pow, 2, 3).result() == 8


def test_a_function_that_is_no_python_was_nowhere(ex):
    error = ex.options(timeout=0.2).submit(time.sleep, 60).exception()
    assert error.stack == ""
    assert "Where it was" not in str(error)


def test_where_a_call_was_as_it_was_ended_is_only_in_its_exception(make_executor, capfd):
    with make_executor() as ex:
        ex.options(timeout=0.2).submit(say_and_wait).exception()
    out, err = capfd.readouterr()
    assert "here I am" in out
    assert "most recent call first" not in out + err


def test_a_call_that_is_in_time_is_left_alone(ex):
    limited = ex.options(timeout=30)
    assert [future.result() for future in [limited.submit(pow, n, 2) for n in range(300)]] == [
        n * n for n in range(300)
    ]
    assert list(limited.map(pow, range(300), [2] * 300)) == [n * n for n in range(300)]


def test_the_longest_limit_is_as_good_as_none(ex):
    assert ex.options(timeout=1e9).submit(pow, 2, 3).result(30) == 8


def test_the_time_that_a_call_waits_does_not_count(make_executor):
    ex = make_executor(max_workers=1)
    limited = ex.options(timeout=2)
    assert [f.result() for f in [limited.submit(time.sleep, 0.3) for _ in range(8)]] == [None] * 8


def take_its_time():
    time.sleep(0.5)


def test_the_time_of_the_initializer_does_not_count(make_executor):
    ex = make_executor(max_workers=1, initializer=take_its_time)
    assert ex.options(timeout=0.3).submit(pow, 2, 3).result() == 8


def sleep_if_odd(number):
    if number % 20 == 7:
        time.sleep(LONG)
    return number


def test_of_a_map_each_item_has_the_limit_and_its_neighbours_are_not_lost(ex):
    results = ex.options(timeout=0.4).map(sleep_if_odd, range(7), chunksize=7)
    assert list(results) == list(range(7))
    results = ex.options(timeout=0.4).map(sleep_if_odd, [1, 2, 3, 7, 4, 5, 6], chunksize=7)
    assert [next(results) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(CallTimeout, match=r"^item 3 of the map of sleep_if_odd was ended, as it"):
        next(results)


def block_every_signal():
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(LONG)


def test_a_call_that_blocks_every_signal_is_ended_all_the_same(ex):
    assert type(ex.options(timeout=0.1).submit(block_every_signal).exception(30)) is CallTimeout


def start_and_wait():
    with subprocess.Popen(["sleep", str(LONG)]) as process:
        print("pid", process.pid, flush=True)
        process.wait()


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] not in "ZX"
    except FileNotFoundError:
        return False


def test_programs_that_a_call_has_started_end_with_it(make_executor):
    ex = make_executor(max_workers=1)
    error = ex.options(timeout=0.5).submit(start_and_wait).exception(30)
    pid = int(error.output.split()[1])
    event = threading.Event()
    for _ in range(200):
        if not ex.submit(is_running, pid).result():
            return
        event.wait(0.05)
    raise AssertionError("it runs on")


# --- retries


def fail_until(address, times):
    attempt = note(address, platform.node())
    if attempt <= times:
        raise ValueError(f"attempt {attempt}")
    return attempt


def crash_until(address, times):
    attempt = note(address, platform.node())
    if attempt <= times:
        os._exit(3)
    return attempt


def linger_until(address, times):
    attempt = note(address, platform.node())
    if attempt <= times:
        time.sleep(LONG)
    return attempt


@pytest.fixture
def attempts(cluster):
    """The journal of where calls run, a line for each time."""
    running = Journal(cluster.host)
    yield running
    running.close()


@pytest.fixture
def address(attempts):
    return attempts.address


@pytest.mark.parametrize(
    ("function", "kind"),
    [(fail_until, ValueError), (crash_until, WorkerCrashed), (linger_until, CallTimeout)],
)
def test_a_call_that_fails_with_what_was_chosen_runs_again(make_executor, address, function, kind):
    ex = make_executor(max_workers=1)
    view = ex.options(retries=3, retry_on=kind, timeout=0.5)
    assert view.submit(function, address, 2).result(30) == 3


def test_so_does_an_item_of_a_map(make_executor, address):
    ex = make_executor(max_workers=1)
    view = ex.options(retries=3, retry_on=(OSError, ValueError))
    assert sorted(view.map(fail_until, [address] * 3, [2] * 3)) == [3, 4, 5]


def test_so_does_a_call_with_a_bulky_argument(make_executor, address):
    """Which its pod has, or has not, as it may be another."""
    ex = make_executor(max_workers=1)
    view = ex.options(retries=3, retry_on=ValueError)
    block = os.urandom(1 << 20)
    future = view.submit(lambda data: (fail_until(address, 2), data), block)
    assert future.result(30) == (3, block)


def test_after_its_retries_the_last_exception_has_the_story(make_executor, address):
    ex = make_executor(max_workers=1)
    error = ex.options(retries=2, retry_on=ValueError).submit(fail_until, address, 9).exception(30)
    assert str(error) == "attempt 3"
    story = error.__notes__[-1].splitlines()
    assert story[0] == "k8sfutures: attempt 3 of 3; those before:"
    assert story[1].startswith("  1. ")
    assert story[1].endswith(": raised ValueError: attempt 1")
    assert story[2].endswith(": raised ValueError: attempt 2")
    assert error.k8s_pod in story[1]


def test_a_crash_that_is_retried_has_its_attempts(make_executor, address):
    ex = make_executor(max_workers=1)
    view = ex.options(retries=1, retry_on=WorkerCrashed)
    error = view.submit(crash_until, address, 9).exception(30)
    assert [attempt.number for attempt in error.attempts] == [1, 2]
    assert {attempt.outcome for attempt in error.attempts} == {"its CPU process exited with code 3"}
    assert pickle.loads(pickle.dumps(error)).attempts == error.attempts


def test_other_exceptions_are_not_retried(make_executor, address):
    ex = make_executor(max_workers=1)
    error = ex.options(retry_on=KeyError).submit(fail_until, address, 1).exception(30)
    assert str(error) == "attempt 1"
    assert len(error.__notes__) == 1


def test_a_lambda_that_nobody_has_any_more_runs_again(make_executor, address):
    ex = make_executor(max_workers=1)
    view = ex.options(retry_on=ValueError)
    future = view.submit(lambda: fail_until(address, 2))
    for number in range(600):  # so many that pods forget functions
        ex.submit(eval(f"lambda: {number}")).result()
    assert future.result(30) == 3


def test_it_runs_again_as_often_as_any_call_if_nothing_else_was_chosen(make_executor, address):
    ex = make_executor(max_workers=1, retries=1)
    error = ex.options(retry_on=ValueError).submit(fail_until, address, 9).exception(30)
    assert str(error) == "attempt 2"
    ex = make_executor(max_workers=1, retries=0)
    with pytest.warns(UserWarning, match="no effect"):
        view = ex.options(retry_on=ValueError)
    error = view.submit(fail_until, address, 9).exception(30)
    assert str(error) == "attempt 3", "not at all"
    view = ex.options(retries=1).options(retry_on=ValueError).options(timeout=30)
    error = view.submit(fail_until, address, 9).exception(30)
    assert str(error) == "attempt 5"


# --- what cannot be chosen


def test_what_is_misspelt_is_named_with_the_nearest(ex):
    with pytest.raises(TypeError, match=r"argument 'timout'\. Did you mean 'timeout'\?"):
        ex.options(timout=3)
    with pytest.raises(TypeError, match=r"'xyz'\. There are: retries, retry_on, timeout\."):
        ex.options(retries=1, xyz=3)


def test_to_retry_without_retries_is_warned_of(ex, make_executor):
    with pytest.warns(UserWarning, match="retry_on has no effect with retries=0") as caught:
        ex.options(retries=0, retry_on=ValueError)
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning, match="retry_on has no effect"):
        make_executor(retries=0).options(retry_on=ValueError)
    ex.options(retries=0)
    ex.options(retry_on=ValueError)


# --- cancel


def test_a_call_that_runs_can_be_cancelled(make_executor, capfd):
    ex = make_executor()
    future = ex.submit(say_and_wait)
    wait_for_output(capfd, "here I am")
    assert not future.cancel(), "as in the standard library"
    assert not ex.cancel(future)
    assert ex.cancel(future, running=True)
    assert future.done()
    with pytest.raises(concurrent.futures.CancelledError) as caught:
        future.result()
    assert type(caught.value) is CallCancelled
    assert str(caught.value).startswith("the call of say_and_wait was cancelled while pod ")
    assert caught.value.pod
    done, pending = concurrent.futures.wait([future], timeout=5)
    assert (done, pending) == ({future}, set())
    assert next(concurrent.futures.as_completed([future], timeout=5)) is future
    assert ex.submit(pow, 2, 3).result() == 8


def test_a_call_that_waits_at_a_pod_can_be_cancelled_and_never_runs(
    make_executor, attempts, address, capfd
):
    ex = make_executor(max_workers=1)
    first = ex.submit(say_and_wait, 1)
    wait_for_output(capfd, "here I am")
    waiting = [ex.submit(fail_until, address, 0) for _ in range(5)]
    assert all(ex.cancel(future, running=True) for future in waiting)
    assert first.result(30) is None
    assert ex.submit(pow, 2, 3).result(30) == 8
    assert attempts.lines() == []


def test_neighbours_of_a_call_that_is_cancelled_are_not_lost(make_executor, capfd):
    ex = make_executor()
    before = [ex.submit(pow, n, 2) for n in range(500)]
    future = ex.submit(say_and_wait)
    after = [ex.submit(pow, n, 2) for n in range(500)]
    wait_for_output(capfd, "here I am")
    assert ex.cancel(future, running=True)
    assert [one.result() for one in before + after] == [n * n for n in range(500)] * 2


def test_what_is_done_or_is_not_ours_cannot_be_cancelled(ex):
    future = ex.submit(pow, 2, 3)
    future.result()
    assert not ex.cancel(future, running=True)
    strange = concurrent.futures.Future()
    for running in (False, True):
        with pytest.raises(ValueError, match=r"^<Future .*> is not from submit of this "):
            ex.cancel(strange, running=running)
    assert not strange.cancelled(), "it is left alone"
    with pytest.raises(TypeError, match=r"takes a Future .*, not a str: 'x'"):
        ex.cancel("x")


def test_what_runs_at_another_executor_is_not_ours(make_executor, capfd):
    ex, other = make_executor(), make_executor()
    future = other.submit(say_and_wait)
    wait_for_output(capfd, "here I am")
    with pytest.raises(ValueError, match="only the executor that it is from can cancel it"):
        ex.cancel(future, running=True)
    assert future.running()
    assert other.cancel(future, running=True)


def test_a_view_cancels_for_its_executor(make_executor, capfd):
    ex = make_executor()
    future = ex.submit(say_and_wait)
    wait_for_output(capfd, "here I am")
    assert ex.options(timeout=30).cancel(future, running=True)


def test_a_call_that_is_to_run_again_can_be_cancelled(make_executor, address, capfd):
    ex = make_executor()
    future = ex.options(retries=9, retry_on=ValueError).submit(fail_then_linger, address)
    wait_for_output(capfd, "here I am")
    assert ex.cancel(future, running=True)
    assert type(future.exception(30)) is CallCancelled


def test_what_waits_at_the_client_is_cancelled_as_ever(make_executor):
    ex = make_executor(max_workers=1)
    blocker = ex.submit(time.sleep, 1)
    waiting = [ex.submit(pow, 2, 3) for _ in range(20)]
    assert ex.cancel(waiting[-1])
    assert waiting[-1].cancelled()
    blocker.result()


def test_a_callback_may_cancel(make_executor, capfd):
    ex = make_executor()
    long = ex.submit(say_and_wait)
    wait_for_output(capfd, "here I am")
    answers = []
    short = ex.submit(pow, 2, 3)
    short.add_done_callback(lambda _: answers.append(ex.cancel(long, running=True)))
    assert type(long.exception(30)) is CallCancelled
    assert answers == [True]


def test_an_executor_with_a_cancelled_call_shuts_down(make_executor, capfd):
    ex = make_executor()
    future = ex.submit(say_and_wait)
    wait_for_output(capfd, "here I am")
    ex.cancel(future, running=True)
    ex.shutdown()
    assert not ex.cancel(future, running=True)


# --- the view


def test_a_view_is_the_same_executor(ex):
    view = ex.options(timeout=30)
    assert isinstance(view, K8sRabbitExecutor)
    assert view.pool.name == ex.pool.name
    assert repr(view).startswith("<ExecutorView with timeout=30.0 of <")


def test_many_threads_may_submit_to_a_view_at_once(ex):
    view = ex.options(timeout=30, retry_on=ValueError)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        futures = list(threads.map(lambda number: view.submit(pow, number, 2), range(2000)))
    assert [future.result(30) for future in futures] == [number**2 for number in range(2000)]


def test_a_with_block_on_a_view_ends_the_view_alone(ex):
    with ex.options(timeout=30) as view:
        future = view.submit(time.sleep, 0.1)
    assert future.done()
    with pytest.raises(RuntimeError, match="shutdown of this view"):
        view.submit(pow, 2, 3)
    assert ex.submit(pow, 2, 3).result() == 8


def test_a_view_ends_with_its_executor(make_executor):
    ex = make_executor()
    view = ex.options(timeout=30)
    ex.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        view.submit(pow, 2, 3)


def test_a_view_keeps_its_executor(make_executor):
    view = make_executor().options(timeout=30)
    assert view.submit(pow, 2, 3).result() == 8


def test_a_map_goes_on_without_its_view(ex):
    results = ex.options(timeout=30).map(pow, range(30), [2] * 30, buffersize=2)
    assert list(results) == [n * n for n in range(30)]


def test_options_add_up(ex):
    view = ex.options(timeout=0.2, retries=5).options(retries=0)
    assert type(view.submit(say_and_wait).exception(30)) is CallTimeout


@pytest.mark.parametrize(
    ("chosen", "kind", "words"),
    [
        ({"timeout": -1}, ValueError, "timeout must be above 0 .*, not -1"),
        ({"timeout": "1 min"}, TypeError, "timeout must be a number .*, not '1 min'"),
        ({"retries": -1}, ValueError, "retries must be >= 0, not -1"),
        ({"retries": "3"}, TypeError, "retries must be an integer or None, not '3'"),
        ({"retry_on": "ValueError"}, TypeError, "'ValueError' is none"),
        ({"retry_on": (ValueError, None)}, TypeError, "None is none"),
        ({"deadline": 3}, TypeError, "deadline"),
    ],
)
def test_what_cannot_work_is_refused_at_once(ex, chosen, kind, words):
    for executor in (ex, ex.options(timeout=3)):
        with pytest.raises(kind, match=words):
            executor.options(**chosen)


# --- what takes the place of a process that was ended


def fail_here():
    raise ValueError(sorted(os.sched_getaffinity(0)))


def test_the_process_that_takes_over_is_where_the_other_was(make_executor):
    ex = make_executor(max_workers=1)
    before = ex.submit(fail_here).exception()
    pids = {ex.submit(os.getpid).result()}
    for _ in range(4):
        ex.options(timeout=0.1).submit(say_and_wait).exception()
        pids.add(ex.submit(os.getpid).result())
        after = ex.submit(fail_here).exception()
        assert (after.k8s_pod, after.k8s_cpu_id) == (before.k8s_pod, before.k8s_cpu_id)
        assert after.args == before.args
    assert len(pids) == 5


# --- when a pod is lost meanwhile


def test_what_was_chosen_holds_where_a_call_runs_after_its_pod_was_lost(
    cluster, make_executor, attempts, address
):
    """Its second attempt ends by its limit and is tried again, or this takes for ever."""
    ex = make_executor(retries=0)
    view = ex.options(retries=5, retry_on=CallTimeout, timeout=0.5)
    future = view.submit(linger_until, address, 2)
    cluster.lose_pod(attempts.nth(1))
    assert future.result(40) == 3


def test_so_it_does_for_an_item_of_a_map(cluster, make_executor, attempts, address):
    ex = make_executor(retries=0)
    view = ex.options(retries=5, retry_on=CallTimeout, timeout=0.5)
    results = view.map(linger_until, [address], [2])
    cluster.lose_pod(attempts.nth(1))
    assert list(results) == [3]


def fail_then_linger(address):
    attempt = note(address, platform.node())
    if attempt == 1:
        raise ValueError("the first time")
    say_and_wait()


@pytest.mark.parametrize("how", ["submit", "map"])
def test_a_call_that_failed_and_was_then_lost_tells_of_both(
    cluster, make_executor, attempts, address, capfd, how
):
    view = make_executor().options(retries=1, retry_on=ValueError)
    if how == "submit":
        result = view.submit(fail_then_linger, address).result
    else:
        result = view.map(fail_then_linger, [address], timeout=40).__next__
    wait_for_output(capfd, "here I am")
    pod = cluster.lose_pod(attempts.nth(2))
    with pytest.raises(PodLost) as caught:
        result()
    error = caught.value
    assert error.pods == (pod,)
    first, second = error.attempts
    assert (first.number, first.outcome) == (1, "raised ValueError: the first time")
    assert (second.number, second.pod) == (2, pod)
    assert second.outcome.startswith("its pod was lost: ")


def test_a_call_that_has_moved_can_be_cancelled(cluster, make_executor, attempts, address):
    ex = make_executor()
    future = ex.submit(linger_until, address, 9)
    cluster.lose_pod(attempts.nth(1))
    attempts.nth(2)
    assert ex.cancel(future, running=True)
    assert type(future.exception(30)) is CallCancelled
    assert ex.submit(pow, 2, 3).result(40) == 8


def test_one_that_was_cancelled_does_not_move(cluster, make_executor, attempts, address):
    ex = make_executor()
    future = ex.submit(linger_until, address, 9)
    host = attempts.nth(1)
    assert ex.cancel(future, running=True)
    cluster.lose_pod(host)
    assert [ex.submit(time.sleep, 0.05).result(40) for _ in range(4)] == [None] * 4
    assert len(attempts.lines()) == 1


# --- who is first


def sleep_about(seconds):
    time.sleep(seconds)
    return seconds


def test_a_limit_that_ends_as_the_result_comes_gives_one_of_them(ex):
    """About as many calls are in time as are not; each has one outcome, and that is its own."""
    limited = ex.options(timeout=0.02)
    times = [0.0185 + 0.0001 * number for number in range(24)]
    futures = [limited.submit(sleep_about, seconds) for seconds in times]
    calls_between = [ex.submit(pow, number, 2) for number in range(24)]
    for seconds, future in zip(times, futures, strict=True):
        error = future.exception(30)
        assert error is None or type(error) is CallTimeout
        assert error is not None or future.result() == seconds
    assert [future.result(30) for future in calls_between] == [n**2 for n in range(24)]


def linger_if_seven(number):
    if number == 7:
        time.sleep(LONG)
    return number


def test_calls_behind_one_that_is_ended_run_elsewhere(make_executor):
    """They had been given to its process with it, being short as far as anyone knew."""
    ex = make_executor(max_workers=1)
    limited = ex.options(timeout=0.3)
    assert limited.submit(linger_if_seven, 1).result(30) == 1
    futures = [limited.submit(linger_if_seven, number) for number in range(200)]
    assert type(futures[7].exception(30)) is CallTimeout
    del futures[7]
    assert [future.result(30) for future in futures] == [n for n in range(200) if n != 7]


# --- what is left


def test_nothing_is_kept_of_calls_that_are_done(cluster, make_executor, attempts, address, capfd):
    ex = make_executor(max_workers=1)
    view = ex.options(retries=1, retry_on=ValueError, timeout=LONG)
    view.submit(pow, 2, 3).result(30)
    view.submit(fail_until, address, 1).result(30)
    view.submit(fail_until, address, 9).exception(30)
    assert list(view.map(pow, [2, 3], [2, 2])) == [4, 9]
    with pytest.raises(ValueError, match="attempt"):
        list(view.map(fail_until, [address] * 3, [99] * 3))
    running = view.submit(say_and_wait)
    wait_for_output(capfd, "here I am")
    pending = [view.submit(pow, 2, 3) for _ in range(300)]
    assert pending[-1].cancel()
    assert ex.cancel(running, running=True)
    concurrent.futures.wait(pending, 30)
    with pytest.warns(UserWarning, match="no effect"):
        lost = ex.options(retries=0, retry_on=ValueError)
    before = len(attempts.lines())
    future = lost.submit(linger_until, address, 99)
    cluster.lose_pod(attempts.nth(before + 1))
    assert type(future.exception(40)) is PodLost
    results = lost.map(linger_until, [address], [99])
    cluster.lose_pod(attempts.nth(before + 2))
    with pytest.raises(PodLost):
        list(results)
    assert ex.submit(pow, 2, 3).result(40) == 8
    manager = ex._manager
    assert not manager._attempts
    assert not manager.chosen
    backlog = manager._scheduler._backlog
    assert (backlog.limits, backlog.losses, backlog.cancelled) == ({}, {}, set())
