"""What becomes of an executor whose initializer does not return."""

from __future__ import annotations

import ctypes
import os
import pickle
import platform
import signal
import sys

import pytest
from journal import Journal, note, wait_for_word

from k8sfutures import CallCancelled, InitializerFailed, WorkerCrashed

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def journal(cluster):
    """The journal of where the initializer runs, a line for each time."""
    journal = Journal(cluster.host)
    yield journal
    journal.close()


def process():
    return f"{platform.node()} {os.getpid()}"


def end_by(number):
    print("about to go", flush=True)
    if number == signal.SIGSEGV:
        ctypes.string_at(0)
    os.kill(os.getpid(), number)
    signal.pause()  # in this thread, if it was not the one that has got the signal


def prepare(journal, kind, argument):
    note(journal, process())
    kind(argument)


def leave(code):
    print("about to go", flush=True)
    os._exit(code)


@pytest.mark.parametrize(
    ("kind", "argument", "number", "code", "word", "each"),
    [
        (leave, 5, None, 5, "exited with code 5", 1),
        (end_by, signal.SIGSEGV, 11, None, "was killed by signal 11 (SIGSEGV)", 1),
        (end_by, signal.SIGABRT, 6, None, "was killed by signal 6 (SIGABRT)", 1),
        (end_by, signal.SIGKILL, 9, None, "was killed by signal 9 (SIGKILL)", 2),
        (end_by, signal.SIGTERM, 15, None, "was killed by signal 15 (SIGTERM)", 2),
    ],
    ids=["os._exit", "SIGSEGV", "SIGABRT", "SIGKILL", "SIGTERM"],
)
def test_one_that_ends_its_process_breaks_its_executor_alone(
    cluster, make_executor, journal, kind, argument, number, code, word, each
):
    other = make_executor()
    assert other.submit(pow, 2, 3).result() == 8
    executor = make_executor(initializer=prepare, initargs=(journal.address, kind, argument))
    futures = [executor.submit(pow, 2, n) for n in range(50)]
    results = executor.map(abs, range(50))
    for future in futures:
        error = future.exception(30)
        assert type(error) is InitializerFailed
        for known in ("the initializer prepare", word, "CPU id", "about to go"):
            assert known in str(error)
        crash = error.__cause__
        assert type(crash) is WorkerCrashed
        assert (crash.signal, crash.exitcode) == (number, code)
        assert crash.pod in str(error)
        assert crash.node in str(error)
        assert f"pid {crash.pid}" in str(error)
        assert crash.output.splitlines() == ["about to go"]
        if number in (signal.SIGSEGV, signal.SIGABRT):
            assert "in prepare" in crash.stack
            assert "in prepare" in str(error)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin)) == (InitializerFailed, str(error))
    with pytest.raises(InitializerFailed, match="the initializer prepare"):
        next(results)
    with pytest.raises(InitializerFailed, match="the initializer prepare"):
        executor.submit(pow, 2, 2)
    executor.shutdown()
    assert len(journal.lines()) <= each * cluster.slots, "one process after another has died"
    assert [other.submit(pow, 2, n).result() for n in range(20)] == [2**n for n in range(20)]


def wait(journal):
    note(journal, process())
    wait_for_word(journal)


def note_call(journal):
    note(journal, f"call {process()}")


@pytest.mark.parametrize("running", [1, 2])
def test_a_process_that_is_killed_while_it_runs_is_replaced_once(
    cluster, make_executor, journal, running
):
    """The call has not begun: it runs once, in the next process, and no retry is counted."""
    executor = make_executor(
        max_workers=running, initializer=wait, initargs=(journal.address,), retries=0
    )
    futures = [executor.submit(note_call, journal.address) for _ in range(running)]
    journal.nth(running)
    where = [line.split() for line in journal.lines()]
    for host, pid in where:
        cluster.kill_process((host, int(pid)))
    journal.nth(2 * running)
    journal.give_word()
    assert [future.result() for future in futures] == [None] * running
    calls = [line for line in journal.lines() if line.startswith("call ")]
    assert len(calls) == running
    assert not {" ".join(line.split()[1:]) for line in calls} & {" ".join(one) for one in where}
    assert executor.submit(pow, 2, 3).result() == 8


@pytest.mark.parametrize(
    ("kind", "arguments", "word"),
    [
        (SystemExit, (3,), "SystemExit: 3"),
        (KeyboardInterrupt, (), "KeyboardInterrupt: "),
        (MemoryError, ("mine",), "MemoryError: mine"),
    ],
)
def test_what_would_end_a_program_is_an_exception_as_in_a_process_pool(
    make_executor, journal, caplog, kind, arguments, word
):
    def stop():
        note(journal_address, process())
        if kind is SystemExit:
            sys.exit(*arguments)
        raise kind(*arguments)

    journal_address = journal.address
    executor = make_executor(initializer=stop)
    error = executor.submit(pow, 2, 2).exception(30)
    assert type(error) is InitializerFailed
    assert word in str(error)
    assert ".stop raised" in str(error)
    assert type(error.__cause__) is kind
    assert error.__cause__.args == arguments
    assert "Exception in initializer" in caplog.text


def test_one_that_hangs_has_no_limit_and_its_call_can_be_cancelled(make_executor, journal):
    executor = make_executor(max_workers=1, initializer=wait, initargs=(journal.address,))
    waits = executor.options(timeout=0.2).submit(pow, 2, 3)
    journal.nth(1)
    behind = executor.submit(pow, 2, 4)
    with pytest.raises(TimeoutError):
        waits.exception(0.5)
    assert executor.cancel(waits, running=True)
    assert type(waits.exception(10)) is CallCancelled
    journal.nth(2)  # in another process
    journal.give_word()
    assert behind.result() == 16


def fork():
    if os.fork():
        os.wait()


def test_a_child_that_one_forks_is_no_second_process(make_executor):
    executor = make_executor(max_workers=1, initializer=fork)
    assert [executor.submit(pow, 2, n).result() for n in range(20)] == [2**n for n in range(20)]
