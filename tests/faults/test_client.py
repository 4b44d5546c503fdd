"""What becomes of a client's work when the client is interrupted, killed, suspended, or fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import faults
import pytest
from faults import wait_for_end, wait_until, work

import k8sfutures
from k8sfutures.broker import ensure_local_broker, local_broker_status, stop_local_broker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def square(n):
    return n * n


@pytest.fixture
def with_support(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(faults.__file__).parent), prepend=os.pathsep)


# --- Ctrl-C

INTERRUPTED = """
    import atexit, os, sys, threading, time
    from journal import count, note
    from k8sfutures import K8sRabbitExecutor, interrupts, last_words

    interrupts.PATIENCE = last_words.PATIENCE = 15.0  # whatever else the machine does

    def work(journal, n):
        try:
            note(journal, f"start {n}")  # from when on it may be interrupted
            time.sleep(60)
        except KeyboardInterrupt:
            note(journal, f"interrupted {n}")
            print("tidied up", n)
            raise
        note(journal, f"end {n}")

    def begin(ex):
        futures = [ex.submit(work, journal, n) for n in range(10)]
        deadline = time.monotonic() + 30
        while count(journal) < cpus and time.monotonic() < deadline:
            time.sleep(0.01)
        return futures

    def ready():
        print("ready", flush=True)

    def ready_once_closed(ex):
        def watch():
            while not ex._manager.closed:
                time.sleep(0.01)
            ready()
        threading.Thread(target=watch, daemon=True).start()

    pool, journal, where = sys.argv[1:]
    cpus = len(os.sched_getaffinity(0))
    ex = K8sRabbitExecutor(pods="local", pool=pool)
    if where == "result":
        with ex:
            futures = begin(ex)
            ready()
            futures[0].result()
    elif where == "map":
        with ex:
            begin(ex)
            ready()
            list(ex.map(work, [journal] * 10, range(10, 20)))
    elif where == "the program's own code":
        with ex:
            begin(ex)
            ready()
            time.sleep(60)
    elif where == "the end of with":
        with ex:
            begin(ex)
            ready_once_closed(ex)
    elif where == "result without with":
        futures = begin(ex)
        ready()
        futures[0].result()
    elif where == "shutdown":
        begin(ex)
        ready_once_closed(ex)
        ex.shutdown()
    elif where == "the interpreter's exit":
        atexit.register(print, "the end")
        begin(ex)
        ready_once_closed(ex)
"""


@pytest.mark.parametrize(
    "where",
    [
        *("result", "map", "the program's own code", "the end of with"),
        *("result without with", "shutdown", "the interpreter's exit"),
    ],
)
def test_ctrl_c_ends_the_program_and_its_calls(rabbitmq, program, journal, with_support, where):
    running = program(INTERRUPTED, rabbitmq.pool, journal.address, where)
    running.wait_for("ready")
    pods = rabbitmq.pids()
    running.interrupt()
    code, out, error = running.end()
    for _ in range(rabbitmq.slots):
        journal.wait_for("interrupted .*")
    wait_until(lambda: len(journal.lines()) == 2 * rabbitmq.slots)  # what waited never started
    told = [line for line in error.splitlines() if line.startswith("Ctrl-C")]
    assert len(told) == 1
    numbers = [int(word.rstrip(";")) for word in told[0].split() if word.rstrip(";").isdigit()]
    # The map may have been let go of before.
    assert sum(numbers) in ({10, 20} if where == "map" else {10})
    assert code == -signal.SIGINT
    said = sorted(line.partition(" | ")[2] for line in out.splitlines() if " | " in line)
    assert len(said) == rabbitmq.slots, "what they print is not lost"
    assert all(line.startswith("tidied up ") for line in said)
    if where == "the interpreter's exit":
        assert error.splitlines() == told, "Python cannot raise anything there"
        assert out.endswith("the end\n"), "what is registered for the end of the program is done"
    else:
        assert error.count("Traceback") == 1
        assert error.rstrip().splitlines()[-1] == "KeyboardInterrupt" or told[0] in error
    if where not in {"map", "the end of with", "shutdown"}:
        assert "k8sfutures" not in error.replace(told[0], "")
    with rabbitmq.executor() as ex:
        assert ex.submit(square, 3).result(30) == 9
    assert rabbitmq.pids() == pods, "they stay warm"


STUBBORN = """
    import sys, threading, time
    from k8sfutures import K8sRabbitExecutor, interrupts

    interrupts.PATIENCE = 600.0
    stuck = threading.Event()

    def block(_future):
        print("stuck", flush=True)
        stuck.wait()

    with K8sRabbitExecutor(pods="local", pool=sys.argv[1]) as ex:
        ex.submit(pow, 2, 3).add_done_callback(block)
        future = ex.submit(time.sleep, 3)
        future.result()
"""


def test_a_second_ctrl_c_gets_out_at_once(rabbitmq, program):
    """Here a callback of the user's holds up everything."""
    running = program(STUBBORN, rabbitmq.pool)
    running.wait_for("stuck")
    running.interrupt()
    assert running.process.stderr.readline().startswith("Ctrl-C: ")
    running.interrupt()
    code, _, error = running.end()
    rabbitmq.lose_pod()  # which has not been told, and waits for a client that could come back
    assert code == -signal.SIGINT
    assert error.count("Traceback") == 1


CAUGHT = """
    import sys, time
    from k8sfutures import K8sRabbitExecutor
    with K8sRabbitExecutor(pods="local", pool=sys.argv[1]) as ex:
        future = ex.submit(time.sleep, 0.5)
        try:
            print("ready", flush=True)
            future.result()
        except KeyboardInterrupt:
            print(future.result(), ex.submit(pow, 2, 3).result())
"""


def test_a_ctrl_c_that_the_program_catches_ends_nothing(rabbitmq, program):
    running = program(CAUGHT, rabbitmq.pool)
    running.wait_for("ready")
    running.interrupt()
    assert running.end() == (0, "None 8\n", "")


STARTING = """
    import sys
    from k8sfutures import K8sRabbitExecutor
    with K8sRabbitExecutor(pods="local", pool=sys.argv[1]) as ex:
        future = ex.submit(pow, 2, 3)
        print("ready", flush=True)
        future.result()
"""


@pytest.mark.parametrize("what", ["the broker", "pods"])
def test_ctrl_c_in_the_middle_of_a_start_shows_the_programs_own_frames_alone(
    cache, program, tmp_path, monkeypatch, what
):
    if what == "the broker":
        monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path / "cache"))
    else:
        ensure_local_broker()
    try:
        running = program(STARTING, "starting")
        running.wait_for("ready")
        if what == "the broker":
            wait_until(local_broker_status)
        running.interrupt()
        code, _, error = running.end()
        assert code == -signal.SIGINT
        assert error.count("Traceback") == 1
        traceback = error.partition("Traceback")[2]
        assert "k8sfutures" not in traceback
        assert traceback.rstrip().endswith("KeyboardInterrupt")
    finally:
        if what == "the broker":
            stop_local_broker(timeout=1)  # while it starts, it takes its time


def test_ctrl_c_ends_the_command_line_with_a_word(program, tmp_path, monkeypatch):
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path / "cache"))
    source = """
        import sys
        from k8sfutures.cli import main
        print("ready", flush=True)
        sys.exit(main(["broker", "start"]))
    """
    try:
        running = program(source)
        running.wait_for("ready")
        wait_until(local_broker_status)
        running.interrupt()
        assert running.end() == (130, "", "k8sfutures: interrupted\n")
    finally:
        stop_local_broker(timeout=1)  # while it starts, it takes its time


# --- a start that fails

FAILING = """
    import sys
    from k8sfutures import K8sRabbitExecutor
    with K8sRabbitExecutor(pods="local", pool=sys.argv[1], startup_timeout=1) as ex:
        future = ex.submit(pow, 2, 3)
        future.result()
"""


@pytest.mark.parametrize("what", ["no broker", "wrong password", "no pod", "too few CPUs"])
def test_a_start_that_fails_is_told_once(rabbitmq, program, tmp_path, monkeypatch, what):
    url = ensure_local_broker()
    if what == "no broker":
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        monkeypatch.setenv("K8SFUTURES_AMQP_URL", f"amqp://me:secret@127.0.0.1:{port}/")
        words = "refused"
    elif what == "wrong password":
        user = url.partition("//")[2].partition(":")[0]
        address = url.rpartition("@")[2]
        monkeypatch.setenv("K8SFUTURES_AMQP_URL", f"amqp://{user}:secret@{address}")
        words = "check the setting amqp_url"
    elif what == "no pod":
        # The client finds the package where it is installed; what it starts finds this one.
        (tmp_path / "k8sfutures").mkdir()
        (tmp_path / "k8sfutures" / "__init__.py").write_text(
            "import sys\nif 'worker' in ' '.join(sys.orig_argv): raise SystemExit('no good')\n"
            f"__path__.append({str(Path(k8sfutures.__file__).parent)!r})\n"
            "from k8sfutures.executor import K8sRabbitExecutor\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        words = "no good"
    else:
        monkeypatch.setenv("K8SFUTURES_WORKER_PROCESSES", "1000")
        words = "worker_processes=1000 is more than"
    code, _, error = program(FAILING, rabbitmq.pool).end()
    assert code == 1
    assert error.count("Traceback") == 1
    assert error.count(words) == 1 or (words == "refused" and error.count("no broker at") == 1)
    assert "secret" not in error
    assert "pika" not in error
    assert rabbitmq.pids() == {}, "no pod is left that could do nothing"


# --- an exception in the with block


def test_after_an_exception_in_the_with_block_calls_are_finished(rabbitmq, journal):
    with pytest.raises(KeyError), rabbitmq.executor() as ex:
        futures = [ex.submit(work, journal.address, str(n), 0.05) for n in range(20)]
        raise KeyError("mine")
    assert [future.result(0) for future in futures] == [str(n) for n in range(20)]
    assert len(journal.lines()) == 40


LAST_WORDS = """
    import sys, time
    from journal import note
    from k8sfutures import K8sRabbitExecutor

    def work(journal):
        try:
            note(journal, "start")
            time.sleep(60)
        except KeyboardInterrupt:
            print("tidied up")
            raise

    def short(n):
        time.sleep(0.002)

    pool, journal = sys.argv[1:]
    with K8sRabbitExecutor(pods="local", pool=pool) as ex:
        ex.submit(work, journal)
        futures = [ex.submit(short, n) for n in range(20_000)]
        while not futures[100].done():
            time.sleep(0.01)
        print("ready", flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs a CPU beside a busy one")
def test_results_that_are_on_their_way_at_a_ctrl_c_hide_no_last_words(
    rabbitmq, program, journal, with_support
):
    running = program(LAST_WORDS, rabbitmq.pool, journal.address)
    running.wait_for("ready")
    journal.wait_for("start")
    running.interrupt()
    code, out, _ = running.end()
    assert code == -signal.SIGINT
    assert [line.partition(" | ")[2] for line in out.splitlines()] == ["tidied up"]


# --- a client that is killed, or stopped for longer than its lease

BUSY = """
    import sys, time
    from faults import work_until_word
    from k8sfutures import K8sRabbitExecutor
    pool, journal, count = sys.argv[1:]
    with K8sRabbitExecutor(pods="local", pool=pool) as ex:
        futures = [ex.submit(work_until_word, journal, str(n)) for n in range(int(count))]
        while not futures[0].running():
            time.sleep(0.01)
        print("ready", flush=True)
        print(*(future.result() for future in futures), flush=True)
        print(ex.submit(pow, 2, 3).result(), flush=True)
"""


def test_a_client_whose_calls_wait_for_those_of_another_is_told_whose(
    rabbitmq, program, journal, with_support, caplog
):
    running = program(BUSY, rabbitmq.pool, journal.address, 6)
    running.wait_for("ready")
    wait_until(lambda: len(journal.lines()) == rabbitmq.slots)
    with rabbitmq.executor() as ex:
        future = ex.submit(square, 5)
        wait_until(lambda: "calls wait: " in caplog.text)
        assert not future.done()
        journal.give_word()
        assert future.result(30) == 25
    (told,) = [one.getMessage() for one in caplog.records if "calls wait" in one.getMessage()]
    assert f" work for another client: process {running.pid} on " in told
    assert "does not answer" not in told
    assert running.end()[0] == 0


def check_that_others_go_on(rabbitmq, program, journal, source, number):
    """A program has all CPUs of a pod as a signal ends it; another client gets them."""
    running = program(source, rabbitmq.pool, journal.address, 6)
    running.wait_for("ready")
    process = int(journal.wait_for(r"start 0 (\d+)")[1])
    wait_until(lambda: len(journal.lines()) == rabbitmq.slots)
    pods = rabbitmq.pids()
    os.kill(running.pid, number)
    running.process.wait()
    with rabbitmq.executor() as ex:
        assert ex.submit(square, 5).result(30) == 25
    assert wait_for_end(process, 1), "nobody waited for this call"
    assert rabbitmq.pids() == pods
    assert len(journal.lines()) == rabbitmq.slots, "what waited was never started"
    return running


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_local_pods_drop_the_work_of_a_client_that_has_ended_at_once_and_stay_warm(
    rabbitmq, program, journal, with_support, caplog, name
):
    number = signal.Signals[name]
    running = check_that_others_go_on(rabbitmq, program, journal, BUSY, number)
    assert running.end()[0] == -number
    assert "does not answer" not in caplog.text, "nobody waited for it to come back"


ELSEWHERE = """
    from types import SimpleNamespace
    from k8sfutures import client_names
    client_names.platform = SimpleNamespace(node=lambda: "elsewhere")
    client_names.process_space = lambda: "e15e3e3e"
"""


@pytest.mark.slow
def test_pods_drop_the_work_of_a_client_of_another_machine_that_is_killed_and_stay_warm(
    rabbitmq, program, journal, with_support, caplog
):
    running = check_that_others_go_on(rabbitmq, program, journal, ELSEWHERE + BUSY, signal.SIGKILL)
    assert "does not answer, and is given up in " in caplog.text
    assert f"process {running.pid} on elsewhere" in caplog.text


TERMINATED = """
    import signal
    signal.signal(signal.SIGTERM, signal.default_int_handler)
"""


def test_a_program_can_have_sigterm_end_it_as_ctrl_c_does(
    rabbitmq, program, journal, with_support, caplog
):
    running = check_that_others_go_on(rabbitmq, program, journal, TERMINATED + BUSY, signal.SIGTERM)
    code, _, error = running.end()
    assert code == -signal.SIGINT
    told = [line for line in error.splitlines() if line.startswith("Ctrl-C: ")]
    assert len(told) == 1
    assert "calls wait" not in caplog.text


@pytest.mark.slow
def test_a_client_that_is_stopped_for_longer_than_its_lease_goes_on_afterwards(
    rabbitmq, program, faulty_proxy, journal, with_support, monkeypatch
):
    monkeypatch.setenv("K8SFUTURES_AMQP_URL", faulty_proxy.url)
    running = program(BUSY, rabbitmq.pool, journal.address, 6)
    running.wait_for("ready")
    process = int(journal.wait_for(r"start 0 (\d+)")[1])
    os.kill(running.pid, signal.SIGSTOP)
    faulty_proxy.reset()  # as the broker does when it misses heartbeats
    assert wait_for_end(process, 40), "its lease has ended"
    journal.give_word()
    os.kill(running.pid, signal.SIGCONT)
    assert running.say() == "0 1 2 3 4 5"
    assert running.say() == "8"
    code, _, error = running.end()
    assert code == 0
    assert error.count("is lost: ") == error.count("is back after ") == 1
    assert error.count("has not heard from this client for so long that it has let go of it") == 1
    starts = [line.split()[1] for line in journal.lines() if line.startswith("start")]
    assert set(starts) == set("012345")


LAPSING = """
    import sys
    from faults import work_until_word
    from k8sfutures import K8sRabbitExecutor, session
    session.LEASE = 3.0
    pool, journal = sys.argv[1:]
    with K8sRabbitExecutor(pods="local", pool=pool) as ex:
        future = ex.submit(work_until_word, journal, "a")
        while not future.running():
            pass
        print("ready", flush=True)
        print(future.result(), ex.submit(pow, 2, 3).result(), flush=True)
"""


@pytest.mark.slow
def test_the_lease_of_a_client_that_is_stopped_ends_while_its_connection_is_still_there(
    rabbitmq, program, journal, with_support
):
    running = program(LAPSING, rabbitmq.pool, journal.address)
    running.wait_for("ready")
    process = int(journal.wait_for(r"start a (\d+)")[1])
    os.kill(running.pid, signal.SIGSTOP)
    assert wait_for_end(process, 15), "long before the broker misses a heartbeat"
    with rabbitmq.executor() as ex:
        assert list(ex.map(square, range(100))) == [n * n for n in range(100)], "the pod is free"
    journal.give_word()
    os.kill(running.pid, signal.SIGCONT)
    assert running.say() == "a 8"
    assert running.end()[0] == 0
    assert [line.split()[0] for line in journal.lines()] == ["start", "start"], "it ran again"


# --- the interpreter's exit


def test_what_is_pending_at_the_interpreters_exit_is_finished(rabbitmq, journal, with_support):
    source = (
        "import sys\nfrom faults import work\n"
        "from k8sfutures import K8sRabbitExecutor\n"
        "ex = K8sRabbitExecutor(pods='local', pool=sys.argv[1])\n"
        "for n in range(8): ex.submit(work, sys.argv[2], str(n), 0.05)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, rabbitmq.pool, journal.address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    ends = [line for line in journal.lines() if line.startswith("end")]
    assert sorted(ends) == [f"end {n}" for n in range(8)]


LEAVING = """
    import sys
    from faults import work_until_word
    from k8sfutures import K8sRabbitExecutor
    pool, journal = sys.argv[1:]
    ex = K8sRabbitExecutor(pods="local", pool=pool, retries=0)
    for n in range(6): ex.submit(work_until_word, journal, str(n))
    ex.shutdown(wait=False)
    print("ready", flush=True)
"""


def test_and_so_it_is_where_the_broker_is_away_as_the_interpreter_ends(
    rabbitmq, program, faulty_proxy, journal, with_support, monkeypatch
):
    monkeypatch.setenv("K8SFUTURES_AMQP_URL", faulty_proxy.url)
    running = program(LEAVING, rabbitmq.pool, journal.address)
    running.wait_for("ready")
    journal.wait_for("start 0 .*")
    faulty_proxy.go_away()
    journal.give_word()
    faulty_proxy.come_back()
    code, _, error = running.end(60)
    assert (code, "Traceback" in error) == (0, False)
    assert sorted(line.split()[1] for line in journal.lines()) == [str(n) for n in range(6)]
