"""What every executor promises about what calls see of the program that they are called by."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from faults import wait_until
from journal import Journal, note, wait_for_word

from k8sfutures import WorkerCrashed

pytestmark = pytest.mark.timeout(60)

THREADS = "OMP_NUM_THREADS"


def together(journal, function, *args):
    """Calls a function once all other processes have a call, too."""
    note(journal, "it is here")
    wait_for_word(journal)
    return (platform.node(), os.getpid()), function(*args)


def everywhere(executor, cluster, function, *args):
    """What a function returns in each CPU process, by machine or pod, and process id."""
    journal = Journal(cluster.host)
    try:
        calls = [(journal.address, function, *args)] * cluster.slots
        futures = [executor.submit(together, *call) for call in calls]
        journal.nth(cluster.slots)
        journal.give_word()
        return dict(future.result(30) for future in futures)
    finally:
        journal.close()


def only(values):
    """The one value that all of them are."""
    (value,) = set(values)
    return value


# --- arguments and places


def arguments():
    return tuple(sys.argv)


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int)
    return parser.prog, parser.parse_args().size


def test_calls_have_the_arguments_of_their_program(make_executor, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/here/simulate.py", "--size", "7"])
    assert make_executor().submit(parse).result() == ("simulate.py", 7)


def add_argument(text):
    sys.argv.append(text)


def test_and_each_client_has_its_own(make_executor, cluster, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["one.py"])
    one = make_executor()
    monkeypatch.setattr(sys, "argv", ["two.py", Path("x")])
    two = make_executor()
    assert only(everywhere(one, cluster, arguments).values()) == ("one.py",)
    everywhere(one, cluster, add_argument, "more")
    assert only(everywhere(two, cluster, arguments).values()) == ("two.py", "x")
    assert only(everywhere(one, cluster, arguments).values()) == ("one.py", "more")


def file_of_main():
    import __main__

    return __main__.__file__


def test_the_file_of_main_is_that_of_the_program(ex):
    assert ex.submit(file_of_main).result() == sys.modules["__main__"].__file__


@pytest.mark.usefixtures("one_machine")
def test_calls_are_where_their_program_is(make_executor, cluster, monkeypatch, tmp_path):
    """Each client's, that is, and wherever its calls go."""
    for name in ("one", "two"):
        (tmp_path / name / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "one")
    one = make_executor()
    monkeypatch.chdir(tmp_path / "two")
    two = make_executor()
    assert only(everywhere(one, cluster, os.getcwd).values()) == str(tmp_path / "one")
    assert only(everywhere(two, cluster, os.getcwd).values()) == str(tmp_path / "two")
    everywhere(one, cluster, os.chdir, "below")
    assert only(everywhere(two, cluster, os.getcwd).values()) == str(tmp_path / "two")
    assert only(everywhere(one, cluster, os.getcwd).values()) == str(tmp_path / "one" / "below")


def search(folder):
    sys.path.insert(0, folder)


def first_on_path():
    return sys.path[0]


def test_what_calls_add_to_the_search_path_is_their_clients(make_executor, cluster):
    one, two = make_executor(), make_executor()
    everywhere(one, cluster, search, "/no/such/folder")
    assert "/no/such/folder" not in everywhere(two, cluster, first_on_path).values()
    assert only(everywhere(one, cluster, first_on_path).values()) == "/no/such/folder"


# --- the environment


def in_subprocess(name):
    script = f"import os; print(os.environ.get({name!r}))"
    run = [sys.executable, "-c", script]
    return subprocess.run(run, check=True, capture_output=True, text=True).stdout.strip()


def note_at_start(name):
    sys.noted = os.environ.get(name)


def noted_at_start():
    return sys.noted


def test_the_setting_environment_is_for_the_calls_of_its_client(make_executor, cluster):
    plain = make_executor()
    ex = make_executor(
        environment={"MODE": "fast ½"}, initializer=note_at_start, initargs=("MODE",)
    )
    for look in (os.getenv, in_subprocess):
        assert only(everywhere(ex, cluster, look, "MODE").values()) == "fast ½"
    assert only(everywhere(ex, cluster, noted_at_start).values()) == "fast ½"
    assert only(everywhere(plain, cluster, os.getenv, "MODE").values()) is None
    assert only(everywhere(ex, cluster, os.getenv, "MODE").values()) == "fast ½"
    assert os.environ.get("MODE") is None


def test_it_is_there_after_a_crash(make_executor, cluster):
    """Both in the process that was kept ready, and in one that is forked when it is needed."""
    ex = make_executor(environment={"MODE": "fast"})
    for _ in range(2):
        crashes = [ex.submit(os._exit, 3) for _ in range(cluster.slots)]
        assert {type(one.exception()) for one in crashes} == {WorkerCrashed}
        assert only(everywhere(ex, cluster, os.getenv, "MODE").values()) == "fast"


def set_variable(name, value):
    os.environ[name] = value


def delete_variable(name):
    del os.environ[name]


def test_what_calls_change_of_it_stays_for_their_client_alone(make_executor, cluster):
    one = make_executor(environment={"GIVEN": "one"})
    two = make_executor(environment={"GIVEN": "two"})
    everywhere(one, cluster, set_variable, "MADE", "by a call")
    everywhere(one, cluster, delete_variable, "GIVEN")
    assert only(everywhere(two, cluster, os.getenv, "MADE").values()) is None
    assert only(everywhere(two, cluster, os.getenv, "GIVEN").values()) == "two"
    assert only(everywhere(one, cluster, os.getenv, "MADE").values()) == "by a call"
    assert only(everywhere(one, cluster, os.getenv, "GIVEN").values()) is None


def replace_environment(name, value):
    os.environ = {**os.environ, name: value}  # noqa: B003  # not what one should do, but it is done


def test_an_environment_that_a_call_puts_in_the_place_of_its_own_is_nobody_elses(
    make_executor, cluster
):
    one = make_executor(environment={"GIVEN": "one"})
    two = make_executor(environment={"GIVEN": "two"})
    everywhere(one, cluster, replace_environment, "MADE", "by a call")
    assert only(everywhere(two, cluster, os.getenv, "MADE").values()) is None
    assert only(everywhere(two, cluster, os.getenv, "GIVEN").values()) == "two"


@pytest.mark.usefixtures("one_machine")
def test_local_calls_have_the_environment_of_their_program(make_executor, cluster, monkeypatch):
    """As it is when the executor is made; not that of the program which has started the pod."""
    before = make_executor()
    everywhere(before, cluster, os.getpid)
    monkeypatch.setenv("MODE", "slow")
    monkeypatch.setenv("LEVEL", "1")
    monkeypatch.delenv("HOME")
    ex = make_executor(environment={"LEVEL": "2"})
    monkeypatch.setenv("MODE", "changed")
    for name, value in {"MODE": "slow", "LEVEL": "2", "HOME": None}.items():
        assert only(everywhere(ex, cluster, os.getenv, name).values()) == value
    assert only(everywhere(before, cluster, os.getenv, "MODE").values()) is None
    assert only(everywhere(before, cluster, os.getenv, "HOME").values()) is not None


def ours():
    return tuple(sorted(name for name in os.environ if name.startswith("K8SFUTURES_")))


@pytest.mark.usefixtures("one_machine")
def test_but_for_secrets_of_ours_that_it_does_not_name(make_executor, monkeypatch):
    """Settings that are no secrets are there, for an executor that a call makes."""
    for name in [name for name in os.environ if name.startswith("K8SFUTURES_")]:
        if name != "K8SFUTURES_CACHE_DIR":
            monkeypatch.delenv(name)
    monkeypatch.setenv("K8SFUTURES_STARTUP_TIMEOUT", "30")
    for name in ("SECRET", "REGISTRY_PASSWORD", "POD_AMQP_URL"):
        monkeypatch.setenv(f"K8SFUTURES_{name}", "amqp://secret")
    seen = set(make_executor(environment={"K8SFUTURES_SECRET": "another"}).submit(ours).result())
    assert seen - {"K8SFUTURES_CACHE_DIR"} == {"K8SFUTURES_SECRET", "K8SFUTURES_STARTUP_TIMEOUT"}


def test_numeric_libraries_have_one_thread_unless_the_client_says_otherwise(
    make_executor, cluster, monkeypatch
):
    monkeypatch.delenv(THREADS, raising=False)
    plain = make_executor()
    named = make_executor(environment={THREADS: "2"})
    assert only(everywhere(named, cluster, os.getenv, THREADS).values()) == "2"
    assert only(everywhere(plain, cluster, os.getenv, THREADS).values()) == "1"


@pytest.mark.usefixtures("one_machine")
def test_neither_do_they_where_its_environment_does(make_executor, cluster, monkeypatch):
    monkeypatch.setenv(THREADS, "3")
    exported = make_executor()
    monkeypatch.delenv(THREADS)
    plain = make_executor()
    assert only(everywhere(exported, cluster, os.getenv, THREADS).values()) == "3"
    assert only(everywhere(plain, cluster, os.getenv, THREADS).values()) == "1"


def hour():
    return time.localtime(0).tm_hour


def test_time_zones_are_the_clients(make_executor, cluster):
    east = make_executor(environment={"TZ": "XXX-5"})
    west = make_executor(environment={"TZ": "YYY+5"})
    for _ in range(2):
        assert only(everywhere(east, cluster, hour).values()) == 5
        assert only(everywhere(west, cluster, hour).values()) == 19


def test_so_are_folders_for_temporary_files(make_executor, cluster):
    """The standard library remembers the first that it was asked for."""
    plain = make_executor()
    ex = make_executor(environment={"TMPDIR": "/dev/shm"})  # there is one on any pod
    everywhere(plain, cluster, tempfile.gettempdir)
    assert only(everywhere(ex, cluster, tempfile.gettempdir).values()) == "/dev/shm"
    assert "/dev/shm" not in everywhere(plain, cluster, tempfile.gettempdir).values()


def test_a_text_that_cannot_be_a_variable_is_refused(rabbitmq):
    for wrong in ({"A=B": "x"}, {"": "x"}, {"A": "x\0y"}, {"A": "x" * 200_000}):
        with pytest.raises(ValueError, match="environment") as caught:
            rabbitmq.executor(environment=wrong)
        assert "xx" not in str(caught.value)
        assert "x\\" not in str(caught.value)


# --- logging


def set_logging_up(file):
    logging.basicConfig(filename=file, level=logging.DEBUG, format="%(message)s")
    logging.getLogger("theirs").addHandler(logging.FileHandler(f"{file}.theirs"))
    logging.getLogger("theirs").propagate = False
    logging.getLogger("quiet").disabled = True


def logging_set_up():
    loggers = [logging.getLogger(name) for name in (None, "theirs", "quiet")]
    logging.getLogger("theirs").error("pid %d", os.getpid())
    return tuple((len(one.handlers), one.propagate, one.disabled) for one in loggers)


def text_of(file):
    return Path(f"{file}.theirs").read_text()


def remove(file):
    for path in (file, f"{file}.theirs"):
        Path(path).unlink(missing_ok=True)


def test_what_calls_set_up_of_logging_is_their_clients(make_executor, cluster, caplog):
    one, two = make_executor(), make_executor()
    file = f"/tmp/k8sfutures-test-{os.getpid()}-{time.monotonic_ns()}"  # of each pod
    everywhere(one, cluster, set_logging_up, file)
    caplog.clear()
    theirs = everywhere(two, cluster, logging_set_up)
    assert only(theirs.values()) == ((0, True, False),) * 3
    # Records come on a thread of their own.
    wait_until(lambda: [one.name for one in caplog.records].count("theirs") >= cluster.slots)
    assert only(everywhere(two, cluster, text_of, file).values()) == ""
    mine = everywhere(one, cluster, logging_set_up)
    assert only(mine.values()) == ((1, True, False), (1, False, False), (0, True, True))
    texts = {pod: text for (pod, _), text in everywhere(one, cluster, text_of, file).items()}
    assert sum(len(text.splitlines()) for text in texts.values()) == cluster.slots
    everywhere(one, cluster, remove, file)


LIBRARY = """
import logging
log = logging.getLogger(__name__)
log.addHandler(logging.StreamHandler())
logging.getLogger().addHandler(logging.NullHandler())
"""


def use_library(folder, name):
    sys.path.insert(0, folder)
    importlib.import_module(name)
    sys.path.remove(folder)
    return handlers_of(name)


def handlers_of(name):
    return tuple(len(logging.getLogger(one).handlers) for one in (name, None))


def remove_handlers(name):
    logging.getLogger(name).handlers.clear()


@pytest.mark.usefixtures("one_machine")
def test_handlers_that_a_library_adds_as_it_is_imported_are_there_for_all(
    make_executor, cluster, tmp_path
):
    name = f"library_{os.getpid()}_{time.monotonic_ns()}"
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / f"{name}.py").write_text(LIBRARY)
    one, two, three = make_executor(), make_executor(), make_executor()
    everywhere(two, cluster, handlers_of, name)
    assert only(everywhere(one, cluster, use_library, str(folder), name).values()) == (1, 1)
    everywhere(one, cluster, remove_handlers, name)
    # What it has added to another's logger, the root's, may not be for those that do not use it.
    for other in (two, three):
        assert only(everywhere(other, cluster, handlers_of, name).values()) == (1, 0)
    assert only(everywhere(one, cluster, handlers_of, name).values()) == (0, 1)


# --- the process


def change_the_process():
    import decimal
    import faulthandler
    import gc
    import locale
    import resource
    import signal
    import socket

    os.umask(0o027)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.setitimer(signal.ITIMER_REAL, 3600)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    sys.setrecursionlimit(1234)
    sys.setswitchinterval(0.5)
    sys.set_int_max_str_digits(2000)
    socket.setdefaulttimeout(7)
    gc.disable()
    faulthandler.disable()
    sys.excepthook = sys.unraisablehook = sys.displayhook = threading.excepthook = print
    sys.stdin = None
    decimal.getcontext().prec = 5


def the_process():
    import decimal
    import faulthandler
    import gc
    import locale
    import resource
    import signal
    import socket

    mask = os.umask(0)
    os.umask(mask)
    return {
        "umask": mask,
        "one CPU": len(os.sched_getaffinity(0)) == 1,
        "locale": locale.setlocale(locale.LC_COLLATE),
        "SIGINT": signal.getsignal(signal.SIGINT) == signal.SIG_IGN,
        "SIGUSR1": signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
        "alarm": signal.getitimer(signal.ITIMER_REAL)[0] > 3000,
        "files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "digits": sys.get_int_max_str_digits(),
        "timeout": socket.getdefaulttimeout(),
        "gc": gc.isenabled(),
        "faults": faulthandler.is_enabled(),
        "hooks": print in (sys.excepthook, sys.displayhook, threading.excepthook),
        "stdin": sys.stdin is None,
        "context": decimal.getcontext().prec,
    }


def test_what_a_process_keeps_is_each_clients_own(make_executor, cluster):
    one, two = make_executor(), make_executor()
    before = everywhere(two, cluster, the_process)
    everywhere(one, cluster, change_the_process)
    assert everywhere(two, cluster, the_process) == before
    for was, now in zip(
        before.values(), everywhere(one, cluster, the_process).values(), strict=True
    ):
        same = [name for name in was if now[name] == was[name]]
        assert same in ([], ["one CPU"])  # as there is no other


def draw():
    """A random number, and one of NumPy's, where that is."""
    try:
        import numpy as np
    except ImportError:
        return random.random(), None
    return random.random(), np.random.random()  # noqa: NPY002 - the global one


def seed():
    random.seed(42)
    with contextlib.suppress(ImportError):
        import numpy as np

        np.random.seed(42)  # noqa: NPY002


def test_random_numbers_differ_between_processes_and_are_each_clients_own(make_executor, cluster):
    one, two = make_executor(), make_executor()
    everywhere(one, cluster, seed)
    drawn = [*everywhere(two, cluster, draw).values(), *everywhere(two, cluster, draw).values()]
    for numbers in zip(*drawn, strict=True):
        assert numbers[0] is None or len(set(numbers)) == 2 * cluster.slots
    first, second = only(everywhere(one, cluster, draw).values())
    assert first == random.Random(42).random()
    if second is not None:
        assert second == np.random.RandomState(42).random_sample()
    assert only(everywhere(one, cluster, draw).values()) != (first, second), "they go on"


# --- threads


def start_a_thread():
    goes_on, done = threading.Event(), threading.Event()

    def speak():
        print("begun, ", end="")
        goes_on.wait()
        print("and ended")
        logging.getLogger("app").error("a record")
        print("begun again", end="")
        done.set()

    sys.left_behind = goes_on, done  # type: ignore[attr-defined]
    threading.Thread(target=speak, daemon=True).start()


def let_it_speak():
    goes_on, done = sys.left_behind
    goes_on.set()
    print("mine")
    return done.wait(30)


def test_what_threads_of_others_say_is_no_part_of_a_call(make_executor, cluster, capfd, caplog):
    with make_executor() as one, make_executor() as two:
        everywhere(one, cluster, start_a_thread)
        assert "begun" in capfd.readouterr().out
        assert only(everywhere(two, cluster, let_it_speak).values())
    lines = [line.partition(" | ")[2] for line in capfd.readouterr().out.splitlines()]
    assert [line for line in lines if line] == ["mine"] * cluster.slots
    assert not [one for one in caplog.records if one.name == "app"]


def test_what_those_of_its_program_say_has_the_mark_of_the_call_that_runs(
    make_executor, cluster, capfd
):
    with make_executor() as ex:
        everywhere(ex, cluster, start_a_thread)
        everywhere(ex, cluster, let_it_speak)
    lines = [line.partition(" | ")[2] for line in capfd.readouterr().out.splitlines()]
    assert lines.count("and ended") == cluster.slots


# --- executors that calls make


def outer(pool, timeout):
    from k8sfutures import K8sRabbitExecutor

    with K8sRabbitExecutor(pods="local", pool=pool, startup_timeout=30) as inner:
        future = inner.submit(pow, 2, 3)
        try:
            return future.result(timeout)
        except TimeoutError:
            inner.kill_workers()
            return None


@pytest.mark.broker
def test_an_executor_that_a_call_makes_works_where_a_cpu_is_left_for_it(rabbitmq):
    with rabbitmq.executor(max_workers=1) as ex:
        if rabbitmq.slots > 1:
            assert ex.submit(outer, rabbitmq.pool, 30).result() == 8


@pytest.mark.broker
@pytest.mark.slow
def test_and_says_so_where_calls_like_it_hold_all_cpus(rabbitmq, caplog):
    with rabbitmq.executor() as ex:
        futures = [ex.submit(outer, rabbitmq.pool, 8) for _ in range(rabbitmq.slots)]
        # One of them gives up first, and leaves its CPU to the others.
        assert None in [future.result() for future in futures]
    said = [record.getMessage() for record in caplog.records if "finds no CPU" in record.message]
    assert len(said) == rabbitmq.slots, "each of them once"
    assert "max_workers" in said[0]
    assert rabbitmq.pool in said[0]
