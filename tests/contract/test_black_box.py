"""What is known of a call whose CPU process has gone, and of one that only looks like it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import sys
import time
from pathlib import Path

import pytest
from outputs import wait_for_output

from k8sfutures import CallTimeout, WorkerCrashed

pytestmark = pytest.mark.timeout(60)


def say(text):
    print("the first line", flush=True)
    print(text, end="", file=sys.stderr, flush=True)


def kill_itself():
    say("then SIGKILL")
    os.kill(os.getpid(), signal.SIGKILL)


def read_nowhere():
    say("then a segmentation fault")
    ctypes.string_at(0)


def abort():
    say("then an abort")
    os.abort()


def leave():
    say("then os._exit")
    os._exit(3)


@pytest.mark.parametrize(
    ("function", "number", "code", "word", "has_stack"),
    [
        (kill_itself, signal.SIGKILL, None, "killed by signal 9 (SIGKILL)", False),
        (read_nowhere, signal.SIGSEGV, None, "killed by signal 11 (SIGSEGV)", True),
        (abort, signal.SIGABRT, None, "killed by signal 6 (SIGABRT)", True),
        (leave, None, 3, "exited with code 3", False),
    ],
)
def test_of_a_process_that_died_all_that_is_known_is_told(
    ex, function, number, code, word, has_stack
):
    error = ex.submit(function).exception(30)
    assert type(error) is WorkerCrashed
    assert (error.signal, error.exitcode) == (number, code)
    assert error.pod
    assert error.node
    assert error.cpu_id >= 0
    assert error.pid > 0
    assert 0 <= error.seconds < 30
    assert error.memory_peak > 1 << 20
    assert error.out_of_memory is False
    assert error.memory_limit is None or error.memory_limit > error.memory_peak
    assert error.output.splitlines()[0] == "the first line"
    assert error.output.splitlines()[-1].startswith("then ")
    assert bool(error.stack) is has_stack
    if has_stack:
        assert f"in {function.__name__}" in error.stack
    (attempt,) = error.attempts
    assert (attempt.number, attempt.pod, attempt.node) == (1, error.pod, error.node)
    assert (attempt.cpu_id, attempt.seconds) == (error.cpu_id, error.seconds)
    assert attempt.outcome == f"its CPU process {'' if code else 'was '}{word}"
    for known in (word, error.pod, f"CPU id {error.cpu_id}", function.__name__, "then "):
        assert known in str(error)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), vars(twin)) == (WorkerCrashed, str(error), vars(error))
    assert ex.submit(pow, 2, 3).result(30) == 8


def test_so_it_is_of_an_item_of_a_map(ex):
    results = ex.map(lambda number: leave() if number == 2 else number, range(4), chunksize=4)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(WorkerCrashed) as caught:
        next(results)
    assert caught.value.exitcode == 3
    assert [attempt.number for attempt in caught.value.attempts] == [1]


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(SystemExit, (3,)), (SystemExit, ()), (KeyboardInterrupt, ()), (MemoryError, ("mine",))],
)
def test_what_would_end_a_program_is_an_exception_as_in_a_process_pool(ex, kind, arguments):
    def stop():
        if kind is SystemExit:
            sys.exit(*arguments)
        raise kind(*arguments)

    error = ex.submit(stop).exception(30)
    assert type(error) is kind
    assert error.args == arguments
    pids = {ex.submit(os.getpid).result(30) for _ in range(20)}
    assert ex.submit(stop).exception(30).args == arguments
    assert {ex.submit(os.getpid).result(30) for _ in range(20)} <= pids, "no process has gone"


def use_too_much():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
    try:
        return len(bytearray(4 << 30))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_memory_that_python_is_refused_is_a_memory_error(ex):
    assert type(ex.submit(use_too_much).exception(30)) is MemoryError
    assert ex.submit(pow, 2, 3).result(30) == 8


# --- processes that are stopped, and so look as if they worked


def stop_itself():
    print("good night", flush=True)
    os.kill(os.getpid(), signal.SIGSTOP)
    return "good morning"


def stop(pid):
    """Until it is: a process that is only to be stopped may still take what is next."""
    if pid == os.getpid():
        raise ValueError(f"{pid} is this process")
    os.kill(pid, signal.SIGSTOP)
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        pass


def wake(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def test_a_call_whose_process_is_stopped_has_its_time_out(ex):
    error = ex.options(timeout=0.2).submit(stop_itself).exception(30)
    assert type(error) is CallTimeout
    assert (error.output, error.stack) == ("good night", ""), "it could not say where it was"
    assert ex.submit(pow, 2, 3).result(30) == 8


def stop_here():
    os.kill(os.getpid(), signal.SIGSTOP)


class StopsAsItIsLoaded:
    def __reduce__(self):
        return stop_here, ()


def test_so_has_one_that_is_stopped_before_it_begins(ex):
    error = ex.options(timeout=0.2).submit(print, StopsAsItIsLoaded()).exception(30)
    assert type(error) is CallTimeout


def test_so_has_an_item_that_is_loaded_just_after_another_has_ended(ex):
    results = ex.options(timeout=0.2).map(bool, [1, StopsAsItIsLoaded()], chunksize=2)
    assert next(results) is True
    with pytest.raises(CallTimeout):
        next(results)


def test_without_a_limit_it_waits_and_keeps_nobody_waiting(make_executor, capfd):
    ex = make_executor()
    future = ex.submit(stop_itself)
    wait_for_output(capfd, "good night")
    others = [ex.submit(pow, number, 2) for number in range(200)]
    assert [other.result(30) for other in others] == [number**2 for number in range(200)]
    assert not future.done()
    assert ex.cancel(future, running=True)


def pid_after_a_while():
    time.sleep(0.05)
    return os.getpid()


def pids_of(ex):
    """Those of the processes that have calls, if two are there at once."""
    return {future.result(30) for future in [ex.submit(pid_after_a_while) for _ in range(2)]}


def until_two_have_calls(ex):
    while len(pids := pids_of(ex)) < 2:
        pass
    return pids


def test_an_idle_process_that_is_stopped_is_given_nothing_until_it_goes_on(
    make_executor_on_one_pod,
):
    ex = make_executor_on_one_pod(max_workers=2)
    first, second = both = until_two_have_calls(ex)
    if ex.submit(os.getpid).result(30) == second:
        first, second = second, first
    ex.submit(stop, second).result(30)
    try:
        for _ in range(10):
            assert pids_of(ex) == {first}
    finally:
        ex.submit(wake, second).result(30)
    assert until_two_have_calls(ex) == both


def processes():
    """Pids of the CPU processes of a pod, and of the one that is kept ready."""
    zygote = os.getppid()
    return set(map(int, Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()))


def test_one_that_is_kept_ready_and_is_stopped_is_replaced(make_executor_on_one_pod):
    ex = make_executor_on_one_pod(max_workers=2)
    both = until_two_have_calls(ex)
    while not (ready := ex.submit(processes).result(30) - both):
        pass
    ex.submit(os.kill, min(ready), signal.SIGSTOP).result(30)
    while ready & ex.submit(processes).result(30):
        pass
    assert ex.submit(leave).exception(30).exitcode == 3
    assert ex.submit(pow, 2, 3).result(30) == 8


def test_one_that_is_to_end_and_is_stopped_ends(make_executor_on_one_pod):
    """As all do that had an initializer, when its client leaves."""
    ex = make_executor_on_one_pod(max_workers=2, initializer=print)
    first, second = until_two_have_calls(ex)
    if ex.submit(os.getpid).result(30) == second:
        first, second = second, first
    ex.submit(stop, second).result(30)
    assert pids_of(ex) == {first}
    ex.shutdown()
    after = make_executor_on_one_pod()
    while second in after.submit(processes).result(30):
        pass
