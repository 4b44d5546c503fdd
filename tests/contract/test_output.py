"""What every executor promises about what calls print, log and are warned of, on any link."""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from pathlib import Path

import pytest

from k8sfutures import WorkerCrashed

pytestmark = pytest.mark.timeout(60)


class Tap:
    """A stream whose lines can be waited for while calls run."""

    def __init__(self):
        self.lines = queue.Queue()
        self._line = ""

    def write(self, text):
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self.lines.put(line)
        return len(text)

    def flush(self):
        pass

    def next(self):
        return self.lines.get(timeout=30)


@pytest.fixture
def tap(monkeypatch):
    """Makes `sys.stdout` a `Tap`; called in the test, where pytest does not replace it any more."""

    def make():
        tapped = Tap()
        monkeypatch.setattr(sys, "stdout", tapped)
        return tapped

    return make


def print_and_go_on():
    print("it begins")
    time.sleep(50)


def test_lines_come_while_the_call_runs(make_executor, tap):
    executor = make_executor()
    tapped = tap()
    future = executor.submit(print_and_go_on)
    assert re.fullmatch(r"print_and_go_on#\d+ \| it begins", tapped.next())
    assert not future.done()
    executor.kill_workers()


class Gate(Tap):
    """A stream that takes nothing before its event is set, or for so many seconds."""

    def __init__(self, seconds=None):
        super().__init__()
        self.opened = threading.Event()
        self.text = ""
        self._seconds = seconds

    def write(self, text):
        self.opened.wait(self._seconds)
        self.text += text
        return super().write(text)


def say(number):
    print("stdout", number)
    os.write(1, b"a descriptor\n")
    subprocess.run(["echo", "a program"], check=True)
    logging.getLogger("app").error("a record")
    return number


def fail_aloud(number):
    say(number)
    raise ValueError(number)


SAID = ["stdout 7", "a descriptor", "a program"]


@pytest.mark.parametrize("function", [say, fail_aloud])
def test_what_a_call_has_said_is_written_before_its_future_is_resolved(
    make_executor, monkeypatch, caplog, function
):
    with make_executor(output="plain") as ex:
        stream = Gate(0.2)
        monkeypatch.setattr(sys, "stdout", stream)
        ex.submit(function, 7).exception()
        assert stream.text.splitlines() == SAID
        assert [record.message for record in caplog.records if record.name == "app"] == ["a record"]


def test_and_before_an_item_of_a_map_is_given_out(make_executor, monkeypatch):
    with make_executor(output="plain") as ex:
        stream = Gate(0.05)
        monkeypatch.setattr(sys, "stdout", stream)
        for number in ex.map(say, range(4)):
            for line in (f"stdout {number}\n", *SAID[1:]):
                assert line in stream.text


def test_a_stream_that_takes_nothing_holds_up_no_future_for_long(make_executor, monkeypatch):
    with make_executor(output="plain") as ex:
        stream = Gate()
        monkeypatch.setattr(sys, "stdout", stream)
        try:
            futures = [ex.submit(say, 1), ex.submit(pow, 2, 2)]
            assert [future.result() for future in futures] == [1, 4]
            assert [*ex.map(say, range(20))] == [*range(20)]
            assert not stream.text
        finally:
            stream.opened.set()
        assert ex.submit(say, 7).result() == 7
    assert stream.text.count("stdout") == 22


def print_all(number):
    print("python", number)
    os.write(1, b"descriptor\n")
    print("python again")
    subprocess.run(["sh", "-c", "echo program; echo trouble >&2"], check=True)
    print("stderr", file=sys.stderr)
    ctypes.CDLL(None).dprintf(1, b"C code\n")
    print("not ended", end="")
    return number


def test_whatever_writes_is_heard_in_its_order_and_marked(make_executor, capfd):
    with make_executor() as ex:
        assert list(ex.map(print_all, range(6))) == [*range(6)]
    out, err = (text.splitlines() for text in capfd.readouterr())
    for number in range(6):
        mark = f"print_all[{number}] | "
        mine = [line.removeprefix(mark) for line in out if line.startswith(mark)]
        assert mine == [
            *(f"python {number}", "descriptor", "python again", "program", "C code"),
            "not ended",
        ]
        mine = [line.removeprefix(mark) for line in err if line.startswith(mark)]
        assert mine == ["trouble", "stderr"]
    assert len(out) == 36
    assert len(err) == 12


def test_plain(make_executor, capfd):
    with make_executor(output="plain") as ex:
        ex.submit(print_all, 7).result()
    assert capfd.readouterr() == (
        "python 7\ndescriptor\npython again\nprogram\nC code\nnot ended",
        "trouble\nstderr\n",
    )


def say_everything():
    print_all(8)
    logging.getLogger("app").error("a record")
    warnings.warn("a warning", RuntimeWarning, stacklevel=1)


def test_off(make_executor, monkeypatch, caplog):
    with make_executor(output="off", max_workers=1) as ex:
        tapped, errors = Tap(), Tap()
        monkeypatch.setattr(sys, "stdout", tapped)
        ex.submit(say_everything).result()
    assert tapped.lines.empty()
    assert errors.lines.empty()
    assert not caplog.records


def print_much(pieces):
    text = "x" * 99
    for _ in range(pieces):
        print("\n".join([text] * 1000))
        subprocess.run(["head", "-c", "100000", "/dev/zero"], check=True)
    return "done"


def test_a_call_that_prints_much_is_cut_and_told(make_executor, capfd):
    with make_executor() as ex:
        quiet = ex.submit(pow, 2, 2)
        assert ex.submit(print_much, 200).result() == "done"
        assert quiet.result() == 4
        ex.submit(print, "after all that").result()
    out, err = capfd.readouterr()
    told = re.findall(r"print_much#\d+ \| \[k8sfutures: ([\d,]+) lines dropped", err)
    printed = out.count(f"| {'x' * 99}\n")
    dropped = sum(int(number.replace(",", "")) for number in told)
    assert printed
    assert dropped
    assert 0.99 * 200_000 < printed + dropped <= 200_000, "other bytes hang on some lines"
    assert re.search(r"^print#\d+ \| after all that$", out, re.MULTILINE)


def progress():
    for number in range(101):
        print(f"\r{number:3}%", end="", flush=True)
    print()


def test_a_progress_bar_stays_one_line(make_executor, capfd):
    with make_executor() as ex:
        ex.submit(progress).result()
    out = capfd.readouterr().out
    assert out.count("\n") == 1
    assert re.search(r"progress#\d+ \| 100%\s*\n$", out)
    assert out.count("\r") < 50


def print_in_a_child():
    child = os.fork()
    if not child:
        print("from the child")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    print("from the parent")


def test_children_of_a_call_are_heard(make_executor, capfd):
    with make_executor() as ex:
        ex.submit(print_in_a_child).result()
    lines = [line.partition(" | ")[2] for line in capfd.readouterr().out.splitlines()]
    assert lines == ["from the child", "from the parent"]


def in_a_child(look):
    """The exit code of a forked child, which is what the function returns there."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code = look()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def files_of_a_child_in_a_child_of_it():
    def mine():
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(50)]
        return in_a_child(lambda: sum(not Path(f"/proc/self/fd/{one}").exists() for one in files))

    return in_a_child(mine)


def test_children_of_children_keep_their_files(ex):
    assert ex.submit(files_of_a_child_in_a_child_of_it).result() == 0


# --- crashes


def crash(how):
    for number in range(30):
        print("line", number)
    if how == "segfault":
        ctypes.string_at(0)
    os.write(2, b"the last words\n")
    os._exit(3)


def test_a_crash_has_the_last_words(ex):
    error = ex.submit(crash, "exit").exception()
    assert isinstance(error, WorkerCrashed)
    lines = error.output.splitlines()
    assert lines == [*(f"line {number}" for number in range(11, 30)), "the last words"]
    assert "What it printed last:\n    line 11\n" in str(error)


def test_a_crash_in_native_code_says_where_python_was_once(make_executor, capfd):
    with make_executor() as ex:
        error = ex.submit(crash, "segfault").exception()
    assert "line 29" in (said := "".join(capfd.readouterr()))
    assert "Fatal" not in said, "that is in the exception"
    assert "most recent call first" not in said
    assert error.output.endswith("line 29")
    assert error.stack.startswith("Fatal Python error: Segmentation fault")
    assert re.search(r'test_output\.py", line \d+ in crash', error.stack)
    assert "worker/cpu_process.py" not in error.stack, "frames of ours"
    assert "Extension modules" not in error.stack, "what any client has imported there"
    assert ". Where it was:\n    Fatal Python error" in str(error)


def watch_a_crash():
    program = "import faulthandler; faulthandler.enable(); faulthandler._sigsegv()"
    done = subprocess.run([sys.executable, "-c", program], check=False)
    time.sleep(0.2)
    return done.returncode


def test_a_crash_of_a_program_that_a_call_has_started_is_told_in_full(make_executor, capfd):
    with make_executor() as ex:
        assert ex.submit(watch_a_crash).result() == -signal.SIGSEGV
    error = capfd.readouterr().err
    assert error.count("Fatal Python error: Segmentation fault") == 1
    assert "most recent call first" in error


# --- records


def log(name):
    logger = logging.getLogger(name)
    logger.debug("not wanted")
    logger.info("info %d", 1)
    try:
        raise ValueError("inside")
    except ValueError:
        logger.exception("failed", extra={"user": "ada"})


def test_records_come_to_the_clients_loggers(make_executor, caplog):
    caplog.set_level(logging.INFO)
    with make_executor() as ex:
        future = ex.submit(log, "their.app")
        future.result()
    records = [record for record in caplog.records if record.name == "their.app"]
    assert [record.levelname for record in records] == ["INFO", "ERROR"]
    assert re.fullmatch(r"log#\d+ \| info 1", records[0].getMessage())
    assert records[0].funcName == "log"
    assert records[0].pathname == __file__
    assert "ValueError: inside" in records[1].exc_text
    assert records[1].user == "ada"
    assert records[0].k8s_pod.startswith("pod-") or records[0].k8s_pod


def count_formatted():
    class Counter:
        formatted = 0

        def __str__(self):
            Counter.formatted += 1
            return "x"

    logging.getLogger("level").debug("%s", Counter())
    return Counter.formatted, logging.getLogger("level").isEnabledFor(logging.DEBUG)


def test_what_the_client_does_not_want_is_not_even_formatted(make_executor, caplog):
    caplog.set_level(logging.WARNING)
    with make_executor() as ex:
        assert ex.submit(count_formatted).result() == (0, False)
    caplog.set_level(logging.DEBUG, "level")
    with make_executor() as ex:
        assert ex.submit(count_formatted).result() == (1, True)


def log_plainly():
    logging.warning("by function")  # noqa: LOG015
    logging.getLogger("app").warning("by logger")


def test_logging_without_a_logger_sets_nothing_up(make_executor, capfd, caplog):
    """`logging.warning` does, where the root has no handler; the client's has."""
    with make_executor(max_workers=1) as ex:
        ex.submit(log_plainly).result()
        ex.submit(log_plainly).result()
    said = [(one.name, one.message.split(" | ")[-1]) for one in caplog.records]
    wanted = [("root", "by function"), ("app", "by logger")]
    assert [one for one in said if one in wanted] == 2 * wanted
    assert capfd.readouterr() == ("", "")


def log_with_handler():
    logging.basicConfig(format="their format: %(message)s", level=logging.INFO)
    try:
        logging.getLogger("app").info("once")
    finally:
        logging.getLogger().handlers.clear()


def test_what_a_handler_of_the_calls_own_prints_does_not_come_twice(make_executor, capfd, caplog):
    with make_executor() as ex:
        ex.submit(log_with_handler).result()
    assert re.fullmatch(r"log_with_handler#\d+ \| their format: once\n", capfd.readouterr().err)
    assert "once" not in caplog.text


def log_badly():
    logging.getLogger("app").error("%d", "not a number")
    return "done"


def test_a_record_that_cannot_be_formatted_harms_nothing(make_executor, capfd):
    with make_executor() as ex:
        assert ex.submit(log_badly).result() == "done"
    assert "--- Logging error ---" in capfd.readouterr().err


# --- warnings


def warn(text):
    for _ in range(3):
        warnings.warn(text, DeprecationWarning, stacklevel=1)
    return "done"


def caught(make_executor, action, *texts):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter(action)
        with make_executor(max_workers=1) as ex:
            for text in texts:
                ex.submit(warn, text).result()
    return [one for one in found if one.category is DeprecationWarning]


def test_warnings_are_the_clients(make_executor):
    (one,) = caught(make_executor, "default", "careful", "careful")
    assert str(one.message) == "careful"
    assert one.filename == __file__
    assert one.lineno == warn.__code__.co_firstlineno + 2


def test_its_filters_hold_on_the_pod(make_executor):
    assert caught(make_executor, "ignore", "ignored") == []
    assert len(caught(make_executor, "always", "each")) == 3
    with pytest.raises(DeprecationWarning, match="an error"):
        caught(make_executor, "error", "an error")


# --- exceptions


def fail_in_item(number):
    if number == 3:
        raise ValueError(number)
    return number


def test_an_exception_says_where_it_was_raised(ex):
    with pytest.raises(ValueError, match="3") as caught:
        list(ex.map(fail_in_item, range(5)))
    (note,) = caught.value.__notes__
    assert re.fullmatch(
        r"k8sfutures: raised in item 3 of the map of fail_in_item on pod \S+, node \S+, "
        r"CPU id \d+",
        note,
    )
    assert caught.value.k8s_call == "fail_in_item[3]"


def test_a_result_that_cannot_be_pickled_is_named(ex):
    with pytest.raises(TypeError, match="cannot pickle") as caught:
        ex.submit(threading.Lock).result()
    first, second = caught.value.__notes__
    assert first.startswith("k8sfutures: result of what ")
    assert "of type 'lock'" in first
    assert second.startswith("k8sfutures: raised in call ")


def parse(text):
    import json

    return json.loads(text)


def test_the_traceback_is_the_local_one(ex):
    def shown(error, skip):
        frames = error.__traceback__
        for _ in range(skip):
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(error), error, frames))
        # The library is at another place on some pods.
        return re.sub(r'File ".*/json/', 'File "json/', text)

    try:
        parse("{")
    except ValueError as error:
        local = shown(error, 1)
    remote = shown(ex.submit(parse, "{").exception(), 0)
    text, _, note = remote.rpartition("k8sfutures: ")
    assert text == local
    assert note.startswith("raised in call ")


# --- several clients of one process


def set_up():
    logging.getLogger().setLevel(logging.DEBUG)
    logging.getLogger("theirs").setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    sys.stdout = sys.stderr


def what_is_set():
    print("here", flush=True)
    names = [None, "theirs"]
    return [logging.getLogger(name).level for name in names], warnings.filters[0][0]


def test_what_a_client_sets_up_is_its_own(cluster, make_executor, caplog, capfd):
    caplog.set_level(logging.WARNING, "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        one = make_executor(max_workers=1, initializer=set_up)
        two = make_executor(max_workers=1)
    mine = [logging.DEBUG, logging.ERROR], "ignore"
    theirs = [logging.getLogger().level, logging.WARNING], "always"
    for _ in range(3):
        blockers = [one.submit(time.sleep, 0.05) for _ in range(cluster.slots)]
        assert [one.submit(what_is_set).result() for _ in range(2)] == [mine] * 2
        assert [two.submit(what_is_set).result() for _ in range(2)] == [theirs] * 2
        assert [future.result() for future in blockers] == [None] * cluster.slots
    for executor in (one, two):
        executor.shutdown()
    assert [text.count("what_is_set#") for text in capfd.readouterr()] == [6, 6]
