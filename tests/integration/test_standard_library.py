"""What `ProcessPoolExecutor` promises and CPython's own tests check by its private attributes.

They are excluded from the conformance tests (`tests/conformance/exclusions.py`); here the same
promises are checked in public, on real local pods.
"""

import gc
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import weakref
from collections import Counter
from collections.abc import Callable
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from itertools import pairwise

import pytest
from journal import note

from k8sfutures import WorkerCrashed, WorkersTerminated

pytestmark = pytest.mark.broker


def fail() -> None:
    raise RuntimeError(123)  # some comment


def report_and_sleep(journal: str) -> None:
    note(journal, str(os.getpid()))
    time.sleep(60)


def span(seconds: float) -> tuple[float, float]:
    start = time.monotonic()
    time.sleep(seconds)
    return start, time.monotonic()


class Unpicklable:
    def __reduce__(self):
        raise pickle.PicklingError("not this one")


# --- a process that dies


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_process_fails_its_call_and_no_other(rabbitmq, journal, number):
    with rabbitmq.executor() as ex:
        doomed = ex.submit(report_and_sleep, journal.address)
        pid = int(journal.nth(1))
        others = [ex.submit(pow, 2, n) for n in range(50)]
        os.kill(pid, number)
        with pytest.raises(BrokenProcessPool, match=signal.Signals(number).name) as caught:
            doomed.result()
        assert isinstance(caught.value, WorkerCrashed)
        assert (caught.value.signal, caught.value.exitcode) == (number, None)
        assert caught.value.pid == pid
        assert [other.result() for other in others] == [2**n for n in range(50)]
        assert ex.submit(pow, 2, 8).result() == 256


def test_a_process_that_exits_fails_its_call_with_the_exit_code(rabbitmq):
    with rabbitmq.executor() as ex:
        with pytest.raises(BrokenProcessPool, match="exited with code 99") as caught:
            ex.submit(os._exit, 99).result()
        assert (caught.value.signal, caught.value.exitcode) == (None, 99)
        assert ex.submit(pow, 2, 8).result() == 256


# --- tracebacks


def test_the_remote_line_is_in_what_excepthook_prints(rabbitmq, capsys):
    with rabbitmq.executor() as ex, pytest.raises(RuntimeError) as caught:
        ex.submit(fail).result()
    assert type(caught.value) is RuntimeError
    assert caught.value.args == (123,)
    sys.excepthook(type(caught.value), caught.value, caught.value.__traceback__)
    printed = capsys.readouterr().err
    assert "raise RuntimeError(123)  # some comment" in printed
    assert 'test_standard_library.py", line ' in printed
    assert ", in fail\n" in printed
    assert "".join(traceback.format_exception(caught.value)) == printed


@pytest.mark.parametrize(
    ("function", "args"),
    [(fail, ()), (id, (Unpicklable(),)), (Unpicklable, ())],
    ids=["raised", "call not picklable", "result not picklable"],
)
def test_an_exception_keeps_nothing_of_the_executor_alive(rabbitmq, function, args):
    def outcome() -> tuple[BaseException, list[weakref.ref]]:
        with rabbitmq.executor() as ex:
            error = ex.submit(function, *args).exception()
            return error, [weakref.ref(ex), weakref.ref(ex._manager)]

    error, alive = outcome()
    gc.collect()
    assert [ref() for ref in alive] == [None, None]
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    assert frames
    assert [frame.f_back for frame in frames] == [None] * len(frames)


def test_an_exception_goes_away_without_the_garbage_collector(rabbitmq):
    with rabbitmq.executor() as ex:
        future = ex.submit(fail)
        wait([future])
        ex.submit(pow, 2, 8).result()  # the manager has moved on
        gc.collect()
        gc.disable()
        try:
            alive = weakref.ref(future)
            del future
            assert alive() is None
        finally:
            gc.enable()


def test_futures_of_a_broken_executor_have_errors_of_their_own(rabbitmq, journal):
    ex = rabbitmq.executor()
    futures = [ex.submit(report_and_sleep, journal.address) for _ in range(4)]
    journal.nth(1)
    ex.kill_workers()
    errors = [future.exception() for future in futures if not future.cancelled()]
    assert errors
    assert {type(error) for error in errors} == {WorkersTerminated}
    assert len({id(error) for error in errors}) == len(errors)


# --- processes


def test_more_calls_than_cpus(rabbitmq):
    with rabbitmq.executor(max_workers=1) as ex:
        spans = sorted(future.result() for future in [ex.submit(span, 0.01) for _ in range(15)])
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))


def test_max_tasks_per_child_replaces_the_process(rabbitmq):
    with rabbitmq.executor(max_tasks_per_child=3) as ex:
        pids = [future.result() for future in [ex.submit(os.getpid) for _ in range(30)]]
        pids += ex.map(lambda _: os.getpid(), range(30))
    assert max(Counter(pids).values()) <= 3


# --- shutdown


def test_the_context_manager_waits_and_closes(rabbitmq):
    with rabbitmq.executor() as ex:
        futures = [ex.submit(time.sleep, 0.05) for _ in range(5)]
        assert list(ex.map(abs, range(-5, 5))) == [5, 4, 3, 2, 1, 0, 1, 2, 3, 4]
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="after shutdown"):
        ex.submit(pow, 2, 8)


def test_shutdown_waits_for_running_calls_and_leaves_no_thread(rabbitmq):
    before = set(threading.enumerate())
    ex = rabbitmq.executor()
    futures = [ex.submit(time.sleep, 0.1) for _ in range(3)]
    ex.shutdown()
    assert all(future.done() for future in futures)
    assert set(threading.enumerate()) <= before


def test_a_burst_of_submits_before_the_manager_runs(rabbitmq):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1)  # this thread goes on until it waits
    try:
        with rabbitmq.executor() as ex:
            futures = [ex.submit(abs, -n) for n in range(2000)]
            assert [future.result() for future in futures] == list(range(2000))
    finally:
        sys.setswitchinterval(interval)


def test_an_abandoned_executor_finishes_its_calls(rabbitmq):
    ex = rabbitmq.executor(max_workers=1, max_tasks_per_child=1)
    futures = [ex.submit(span, 0.05) for _ in range(5)]
    dropped = weakref.ref(ex)
    del ex
    gc.collect()
    assert dropped() is None
    assert all(future.result(timeout=30) for future in futures)


# --- terminate_workers, kill_workers


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_ending_the_workers_fails_what_runs_and_stops_the_executor(
    rabbitmq, journal, method: str, wait_for_end: Callable[[int, float], bool]
):
    ex = rabbitmq.executor(max_workers=1)
    running = ex.submit(report_and_sleep, journal.address)
    pid = int(journal.nth(1))
    pending = ex.submit(pow, 2, 8)
    getattr(ex, method)()
    for future in (running, pending):
        with pytest.raises(BrokenProcessPool, match=method) as caught:
            future.result(timeout=0)
        assert isinstance(caught.value, WorkersTerminated)
    with pytest.raises(RuntimeError, match=method):
        ex.submit(pow, 2, 8)
    assert wait_for_end(pid, 10)
    pods = rabbitmq.pids()
    with rabbitmq.executor() as another:
        assert another.submit(pow, 2, 8).result() == 256
    assert rabbitmq.pids() == pods


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_ending_workers_that_never_ran_anything(rabbitmq, method: str):
    with rabbitmq.executor(max_workers=1) as ex:
        getattr(ex, method)()
    getattr(ex, method)()


@pytest.mark.parametrize("method", ["terminate_workers", "kill_workers"])
def test_ending_workers_after_one_has_died(rabbitmq, method: str):
    with rabbitmq.executor(max_workers=1) as ex:
        future = ex.submit(os._exit, 1)
        with pytest.raises(BrokenProcessPool):
            future.result()
        getattr(ex, method)()
