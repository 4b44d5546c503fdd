"""What every executor promises about calls, on any link."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import os
import pickle
import re
import socket
import sqlite3
import sys
import threading
import traceback
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from journal import Journal, wait_for_word

import k8sfutures
from k8sfutures import CallNotLoadable, ResultNotLoadable

pytestmark = pytest.mark.timeout(60)


def capture(*args, **kwargs):
    return args, kwargs


def test_a_result_comes_back(ex):
    assert ex.submit(pow, 2, 8).result() == 256


def test_keywords_are_the_functions_own(ex):
    assert ex.submit(capture, 1, self=2, fn=3).result() == ((1,), {"self": 2, "fn": 3})
    with pytest.raises(TypeError):
        ex.submit(fn=capture)


@pytest.mark.parametrize(
    "call",
    [
        lambda: 3,
        functools.partial(pow, 3),
        "abc".upper,
        threading.Event,
        int,
    ],
    ids=["lambda", "partial", "bound method", "class", "builtin class"],
)
def test_any_callable_can_be_called(ex, call):
    args = (2,) if isinstance(call, functools.partial) else ()
    if call is threading.Event:
        assert ex.submit(lambda: type(call()).__name__).result() == "Event"
    else:
        assert ex.submit(call, *args).result() == call(*args)


@pytest.mark.parametrize("what", [3, None, "pow", [1, 2]])
def test_what_cannot_be_called_is_refused_at_once(ex, what):
    words = re.escape(f"{what!r} is not callable")
    with pytest.raises(TypeError, match=rf"^{words}: submit takes a function and its arguments"):
        ex.submit(what)
    with pytest.raises(TypeError, match=f"^{words}$"):
        ex.map(what, [1])


def test_a_function_sees_the_globals_that_it_has_now(ex):
    namespace = {"number": 1}
    exec("def read(): return number", namespace)
    namespace["__name__"] = namespace["read"].__module__ = "__main__"
    assert ex.submit(namespace["read"]).result() == 1
    namespace["number"] = 2
    assert ex.submit(namespace["read"]).result() == 2


def test_calls_run_in_other_processes(ex):
    assert ex.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize("size", [300_000, 5_000_000, 40_000_000])
def test_arguments_and_results_of_any_size(ex, size):
    data = os.urandom(1000) * (size // 1000)
    assert ex.submit(lambda d: d[::-1], data).result() == data[::-1]


# --- exceptions


class OwnError(Exception):
    def __init__(self, code, *, detail):
        super().__init__(f"code {code}")
        self.code = code
        self.detail = detail


def raise_chain():
    try:
        {}["missing"]
    except KeyError as error:
        chained = OwnError(7, detail=[1, 2])
        chained.add_note("look here")
        raise chained from error


def test_an_exception_comes_back_as_it_was(ex):
    error = ex.submit(raise_chain).exception()
    assert type(error) is OwnError
    assert (error.code, error.detail, error.args) == (7, [1, 2], ("code 7",))
    assert error.__notes__[0] == "look here"
    assert re.fullmatch(
        r"k8sfutures: raised in call \d+ of raise_chain on pod \S+, node \S+, CPU id \d+",
        error.__notes__[1],
    )
    assert error.k8s_pod in error.__notes__[1]
    assert not hasattr(error.__cause__, "__notes__"), "one note for each exception"
    assert isinstance(error.__cause__, KeyError)
    assert error.__suppress_context__


def test_its_traceback_shows_the_remote_frames(ex):
    with pytest.raises(OwnError) as caught:
        ex.submit(raise_chain).result()
    text = "".join(traceback.format_exception(caught.value))
    assert "raise chained from error" in text
    assert '{}["missing"]' in text
    assert "in raise_chain" in text
    assert str(Path(k8sfutures.__file__).parent) not in text, "frames of ours"


def raise_context():
    try:
        raise ValueError("first")
    except ValueError:
        raise TypeError("second")  # noqa: B904


def test_an_implicit_context_is_kept(ex):
    error = ex.submit(raise_context).exception()
    assert isinstance(error, TypeError)
    assert isinstance(error.__context__, ValueError)
    assert error.__cause__ is None


def raise_group():
    raise ExceptionGroup("several", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])])


def test_an_exception_group_can_be_split(ex):
    with pytest.raises(ExceptionGroup) as caught:
        ex.submit(raise_group).result()
    matched, rest = caught.value.split(KeyError)
    assert matched is not None
    assert rest is not None


def test_sys_exit_is_only_an_exception(ex):
    with pytest.raises(SystemExit):
        ex.submit(exit, 3).result()
    assert ex.submit(pow, 2, 2).result() == 4


# --- what cannot travel harms itself alone


def test_an_argument_that_cannot_be_pickled(ex):
    good = ex.submit(pow, 2, 2)
    bad = ex.submit(capture, 1, threading.Lock(), name=2)
    with pytest.raises(TypeError, match=r"^args\[1\]: cannot pickle '_thread\.lock'") as caught:
        bad.result()
    assert "args[1] of the call to capture" in caught.value.__notes__[0]
    assert good.result() == 4


def test_a_function_that_cannot_be_pickled(ex):
    lock = threading.Lock()
    with pytest.raises(TypeError, match="→ variable lock: cannot pickle"):
        ex.submit(lambda: lock).result()


def test_a_result_that_cannot_be_pickled(ex):
    with pytest.raises(TypeError, match=r"^result: cannot pickle '_thread\.lock'"):
        ex.submit(threading.Lock).result()
    with pytest.raises(TypeError, match=r"^result\[1\]\['handle'\]: cannot pickle") as caught:
        ex.submit(lambda: [1, {"handle": threading.Lock()}]).result()
    assert "test_a_result_that_cannot_be_pickled.<locals>.<lambda>" in caught.value.__notes__[0]


def count_to_three():
    yield from range(3)


class Session:
    def __init__(self, connection):
        self.connection = connection


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (socket.socket, "socket"),
        (threading.Lock, "_thread.lock"),
        (count_to_three, "generator"),
        (functools.partial(sqlite3.connect, ":memory:"), "sqlite3.Connection"),
        (functools.partial(open, os.devnull), "_io.TextIOWrapper"),
    ],
)
def test_what_cannot_travel_is_named_by_its_path(ex, make, kind):
    """At either end."""
    thing = make()
    try:
        error = ex.submit(id, [Session(thing)]).exception()
    finally:
        getattr(thing, "close", int)()
    assert type(error) is TypeError
    assert str(error).startswith("args[0][0].connection: cannot pickle '")
    assert kind in str(error)

    def give():
        return {"session": Session(make())}

    error = ex.submit(give).exception()
    assert type(error) is TypeError
    assert str(error).startswith("result['session'].connection: cannot pickle '")
    assert kind in str(error)


class Bomb:
    """Raises when it is unpickled."""

    def __init__(self, error):
        self.error = error

    def __reduce__(self):
        return explode, (self.error,)


def explode(error):
    raise error


def test_arguments_that_cannot_be_unpickled(ex):
    with pytest.raises(CallNotLoadable, match="ValueError: boom") as caught:
        ex.submit(id, Bomb(ValueError("boom"))).result()
    assert isinstance(caught.value, BrokenProcessPool)
    assert isinstance(caught.value.__cause__, ValueError)
    assert ex.submit(pow, 2, 2).result() == 4


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(1)])
def test_a_result_that_cannot_be_unpickled(ex, error):
    with pytest.raises(ResultNotLoadable) as caught:
        ex.submit(Bomb, error).result()
    assert type(caught.value.__cause__) is type(error)
    assert ex.submit(pow, 2, 2).result() == 4


def recurse(depth):
    return recurse(depth - 1) if depth else 1 / 0


@pytest.mark.parametrize(
    ("depth", "kind"), [(500, ZeroDivisionError), (10**9, RecursionError)], ids=["deep", "endless"]
)
def test_an_exception_from_deep_down(ex, depth, kind):
    with pytest.raises(kind) as caught:
        ex.submit(recurse, depth).result()
    assert "frames in the middle of the traceback left out" in caught.value.__notes__[0]


def test_a_call_that_forks_is_still_one_call(make_executor):
    executor = make_executor(max_workers=1)
    assert executor.submit(os.fork).result() > 0
    assert [future.result() for future in [executor.submit(abs, n) for n in range(20)]] == [
        *range(20)
    ]


class OwnReduce(Exception):
    def __reduce__(self):
        raise pickle.PicklingError("not me")


def raise_own_reduce():
    raise OwnReduce("what happened")


def test_an_exception_that_does_not_pickle_is_rebuilt_from_its_attributes(ex):
    with pytest.raises(OwnReduce, match="what happened"):
        ex.submit(raise_own_reduce).result()


def raise_unpicklable():
    error = ValueError("what happened")
    error.lock = threading.Lock()
    raise error


def test_an_exception_that_cannot_be_pickled_is_described(ex):
    with pytest.raises(ResultNotLoadable, match="what happened") as caught:
        ex.submit(raise_unpicklable).result()
    assert "raise_unpicklable" in "".join(traceback.format_exception(caught.value))


def raise_what(make):
    raise make()


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


class WithoutText(Exception):
    def __str__(self):
        return sys.exit("nobody may read this")


class WithoutNotes(Exception):
    def add_note(self, note):
        raise TypeError("no notes")


class WithoutAttributes(Exception):
    def __getattribute__(self, name):
        raise TypeError(f"no {name}")


class NoExceptionThere(Exception):
    def __reduce__(self):
        return Unspeakable, ()


class Unspeakable:
    def __repr__(self):
        return sys.exit("nobody may read this")


@pytest.mark.parametrize(
    ("function", "argument", "kind"),
    [
        (raise_what, lambda: Frozen(7), Frozen),
        (raise_what, WithoutText, WithoutText),
        (raise_what, WithoutNotes, WithoutNotes),
        (raise_what, WithoutAttributes, ResultNotLoadable),
        (raise_what, NoExceptionThere, ResultNotLoadable),
        (Bomb, WithoutText(), ResultNotLoadable),
        (id, Bomb(WithoutText()), CallNotLoadable),
    ],
    ids=["frozen", "no text", "no notes", "no attributes", "none", "in a result", "in an argument"],
)
@pytest.mark.parametrize("retry_on", [(), Exception], ids=["", "retried"])
def test_an_exception_whose_class_forbids_what_others_allow_is_its_calls_alone(
    ex, function, argument, kind, retry_on
):
    future = ex.options(retry_on=retry_on, retries=1).submit(function, argument)
    assert type(future.exception(30)) is kind
    with pytest.raises(kind):
        list(ex.map(function, [argument]))
    assert ex.submit(pow, 2, 2).result() == 4


# --- Futures work as Futures do


@pytest.fixture
def journal(cluster):
    """What holds calls up until it gives them a word."""
    journal = Journal(cluster.host)
    yield journal
    journal.close()


def test_as_completed_and_wait(ex, journal):
    futures = [ex.submit(wait_for_word, journal.address), ex.submit(pow, 2, 3)]
    first = next(concurrent.futures.as_completed(futures, timeout=20))
    assert first is futures[1]
    journal.give_word()
    done, pending = concurrent.futures.wait(futures, timeout=20)
    assert done == set(futures)
    assert not pending


def test_asyncio(ex):
    async def both():
        loop = asyncio.get_running_loop()
        wrapped = asyncio.wrap_future(ex.submit(pow, 2, 3))
        return await asyncio.gather(wrapped, loop.run_in_executor(ex, pow, 2, 4))

    assert asyncio.run(both()) == [8, 16]


def test_a_callback_may_submit_again(ex):
    done = concurrent.futures.Future()

    def again(future):
        ex.submit(pow, future.result(), 2).add_done_callback(lambda f: done.set_result(f.result()))

    ex.submit(pow, 2, 3).add_done_callback(again)
    assert done.result(20) == 64


def test_many_threads_may_submit_at_once(ex):
    results = {}

    def work(base):
        futures = [ex.submit(pow, base + i, 1) for i in range(200)]
        results[base] = [future.result() for future in futures]

    threads = [threading.Thread(target=work, args=(base,)) for base in range(0, 8000, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {base: list(range(base, base + 200)) for base in range(0, 8000, 1000)}


def test_what_is_not_dispatched_can_be_cancelled(ex, journal):
    blockers = [ex.submit(wait_for_word, journal.address) for _ in range(2)]
    waiting = ex.submit(pow, 2, 2)
    assert waiting.cancel()
    assert waiting.cancelled()
    journal.give_word()
    concurrent.futures.wait(blockers)
    assert not blockers[0].cancel()
    assert ex.submit(pow, 2, 3).result() == 8


def test_output_reaches_the_client(ex, capfd):
    ex.submit(print, "from the pod").result()
    ex.shutdown()
    assert re.fullmatch(r"print#\d+ \| from the pod\n", capfd.readouterr().out)


def print_from_threads():
    threads = [
        threading.Thread(target=lambda n=n: [print(f"line {n}") for _ in range(200)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "done"


def test_threads_of_a_call_may_print(ex, capfd):
    assert ex.submit(print_from_threads).result() == "done"
    ex.shutdown()
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == 800
    texts = {line.partition(" | ")[2] for line in lines}
    assert texts == {f"line {n}" for n in range(4)}


def write_bytes():
    sys.stdout.buffer.write("naïve\n".encode())


def close_stdout():
    sys.stdout.close()


def lose_stdout():
    sys.stdout = None


@pytest.mark.parametrize("harm", [close_stdout, lose_stdout])
def test_what_a_call_does_to_stdout_harms_nobody(make_executor, harm, capfd):
    executor = make_executor(max_workers=1)
    executor.submit(write_bytes).result()
    assert executor.submit(harm).result() is None
    assert executor.submit(pow, 2, 2).result() == 4
    executor.kill_workers()
    assert re.fullmatch(r"write_bytes#\d+ \| naïve\n", capfd.readouterr().out)
