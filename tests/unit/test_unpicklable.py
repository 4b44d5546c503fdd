"""What is said of a call, a result or an exception that cannot be pickled: where the object is."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import functools
import io
import logging
import mmap
import multiprocessing
import os
import queue
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import weakref

import pytest

from k8sfutures import unpicklable
from k8sfutures.exceptions import dumps_exception
from k8sfutures.functions import refuse_asynchronous
from k8sfutures.serialization import dumps, loads
from k8sfutures.testing import MemoryCluster
from k8sfutures.unpicklable import blame, blame_result

LOCK = threading.Lock()

OF_A_LOCK = (
    "cannot pickle '_thread.lock' object; it is for the threads of one process: have the call make "
    "one, or leave it out of the object's state (__getstate__)"
)


class Session:
    def __init__(self, connection):
        self.connection = connection


class Job:
    def __init__(self, connection):
        self.session = Session(connection)

    def run(self):
        return self.session


class Slots:
    __slots__ = ("handle", "unset")

    def __init__(self, handle):
        self.handle = handle


class MakesState:
    def __init__(self, handle):
        self._handle = handle

    def __getstate__(self):
        return {"made": [self._handle.copy()]}


class Copies:
    """Makes its parts anew whenever it is asked."""

    def copy(self):
        return threading.Lock()


class Reduced:
    def __init__(self, handle):
        self.handle = handle

    def __reduce__(self):
        return Reduced, (self.handle,)


class Refuses:
    def __reduce__(self):
        raise LookupError("mine")


class Exits:
    def __reduce__(self):
        raise SystemExit


class OfAClass:
    handle = LOCK


class Items(dict):
    pass


class HoldsALock(Exception):
    def __init__(self, text, lock):
        super().__init__(text)
        self.session = Session(lock)


Pair = collections.namedtuple("Pair", ["left", "right"])  # noqa: PYI024

client = Session(LOCK)


def simulate():
    return client


def helper():
    return simulate()


def defaults(a, b=LOCK, *, c=None):
    return a, b, c


def decorated(function):
    @functools.wraps(function)
    def wrapper():
        return function()

    return wrapper


def taking(value):
    return value


def told(function, *args, **kwargs):
    """What a failure of such a call says."""
    try:
        dumps((function, args, kwargs))
    except Exception as error:
        blame(error, function, args, kwargs)
        return error
    raise AssertionError("it can be pickled")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "args[0]"),
        ([1, [2, LOCK]], "args[0][1][1]"),
        ((1, LOCK), "args[0][1]"),
        ({"a": {2: LOCK}}, "args[0]['a'][2]"),
        ({Pair(1, LOCK): 1}, "args[0] → key <Pair>.right"),
        ({LOCK}, "args[0] → item <lock>"),
        (Pair(1, LOCK), "args[0].right"),
        (Job(LOCK), "args[0].session.connection"),
        (Slots([LOCK]), "args[0].handle[0]"),
        (MakesState(Copies()), "args[0].made[0]"),
        (Reduced(LOCK), "args[0].handle"),
        (Items(a=LOCK), "args[0]['a']"),
        (collections.deque([1, LOCK]), "args[0]"),
        (OfAClass(), "args[0] → class OfAClass.handle"),
        (functools.partial(taking, 1, b=[LOCK]), "args[0].keywords['b'][0]"),
        (functools.partial(taking, LOCK), "args[0].args[0]"),
        (Job(LOCK).run, "args[0].__self__.session.connection"),
        (ValueError("a", LOCK), "args[0].args[1]"),
        (HoldsALock("a", LOCK), "args[0].session.connection"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_the_path_in_an_argument(value, path):
    error = told(taking, value)
    assert type(error) is TypeError
    assert str(error) == f"{path}: {OF_A_LOCK}"
    assert path in error.__notes__[0]
    assert "of the call to taking, of type 'lock'" in error.__notes__[0]


def test_a_keyword_argument():
    assert str(told(taking, value=[LOCK])).startswith("kwargs['value'][0]: cannot pickle")


def test_of_several_the_first():
    error = told(taking, 1, [LOCK], LOCK)
    assert str(error).startswith("args[1][0]: ")
    assert len(error.__notes__) == 1


def test_the_path_in_a_function():
    lock = threading.Lock()
    inner = "test_the_path_in_a_function.<locals>.<lambda>"
    assert str(told(lambda: lock)).startswith(f"{inner} → variable lock: cannot pickle")
    namespace = {"client": client, "LOCK": LOCK, "__name__": "__main__"}
    source = """
def simulate(): return client
def helper(): return simulate()
def defaults(a, b=LOCK): pass
class OfAClass:
    handle = LOCK
    def method(self): return self
"""
    exec(source, namespace)
    for name, path in [
        ("simulate", "simulate → global client.connection"),
        ("helper", "helper → global simulate → global client.connection"),
        ("defaults", "defaults → default of b"),
        ("OfAClass", "OfAClass.handle"),
    ]:
        error = told(namespace[name])
        assert str(error) == f"{path}: {OF_A_LOCK}"
        assert f"of the function {name}" in error.__notes__[0]


def running():
    yield 1


async def coroutine():
    return 1


async def asynchronous():
    yield 1


@pytest.fixture
def things():
    made = {
        "socket": socket.socket(),
        "sqlite3.Connection": sqlite3.connect(":memory:"),
        "generator": running(),
        "_io.TextIOWrapper": open(__file__, encoding="utf-8"),  # noqa: PTH123, SIM115
        "_io.BufferedReader": open(__file__, "rb"),  # noqa: PTH123, SIM115
        "memoryview": memoryview(b"a"),
        "weakref": weakref.ref(client),
        "mmap.mmap": mmap.mmap(-1, 10),
        "frame": sys._getframe(),
        "async_generator": asynchronous(),
        "_queue.SimpleQueue": queue.SimpleQueue(),
        "_thread.RLock": threading.RLock(),
    }
    yield made
    for thing in made.values():
        if isinstance(thing, socket.socket | sqlite3.Connection | io.IOBase | mmap.mmap):
            thing.close()


def test_what_cannot_travel_is_an_error_and_no_copy(things):
    for name, thing in things.items():
        error = told(taking, Job(thing))
        assert type(error) is TypeError
        assert str(error).startswith("args[0].session.connection: cannot pickle '"), error
        assert name.rpartition(".")[2] in str(error)  # where Python's words do not say all


def executor_of_ours():
    with MemoryCluster([1]) as cluster, cluster.executor() as executor:
        return executor


def view_of_ours():
    return executor_of_ours().options(retries=1)


def event_loop():
    loop = asyncio.new_event_loop()
    loop.close()
    return loop


def started():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process


def closed(it):
    it.close()
    return it


KINDS = [
    (executor_of_ours, "k8sfutures.testing._MemoryExecutor", "have the call make one of its own"),
    (view_of_ours, "k8sfutures.view.ExecutorView", "have the call make one of its own"),
    (
        lambda: concurrent.futures.ThreadPoolExecutor(1),
        "concurrent.futures.thread.ThreadPoolExecutor",
        "have the call make one of its own",
    ),
    (concurrent.futures.Future, "concurrent.futures._base.Future", "give its result()"),
    (threading.Lock, "_thread.lock", "have the call make one"),
    (threading.Event, "threading.Event", "have the call make one"),
    (threading.Thread, "threading.Thread", "have the call make one"),
    (queue.Queue, "queue.Queue", "give what is in it as a list"),
    (queue.SimpleQueue, "_queue.SimpleQueue", "give what is in it as a list"),
    (multiprocessing.Lock, "Lock", "calls run on other machines"),
    (multiprocessing.Semaphore, "Semaphore", "calls run on other machines"),
    (multiprocessing.Event, "multiprocessing.synchronize.Event", "calls run on other machines"),
    (multiprocessing.SimpleQueue, "SimpleQueue", "calls run on other machines"),
    (lambda: multiprocessing.Value("i"), "Synchronized", "calls run on other machines"),
    (multiprocessing.Process, "multiprocessing.context.Process", "have the call start it"),
    (started, "subprocess.Popen", "have the call start it"),
    (lambda: closed(socket.socket()), "socket", "open it in the call, or in an initializer"),
    (lambda: closed(sqlite3.connect(":memory:")), "sqlite3.Connection", "open it in the call"),
    (lambda: closed(open(os.devnull)), "_io.TextIOWrapper", "give its contents, or a path"),  # noqa: PTH123, SIM115
    (lambda: closed(open(os.devnull, "rb")), "_io.BufferedReader", "give its contents, or a path"),  # noqa: PTH123, SIM115
    (lambda: closed(tempfile.NamedTemporaryFile()), "TemporaryFileWrapper", "give its contents"),  # noqa: SIM115
    (running, "generator", "give what it makes as a list"),
    (lambda: weakref.ref(client), "ReferenceType", "give that itself"),
    (lambda: memoryview(b"a"), "memoryview", "give its bytes(...)"),
    (logging.StreamHandler, "logging.StreamHandler", "log records of calls come"),
    (event_loop, "asyncio.unix_events._UnixSelectorEventLoop", "asyncio.run"),
]


@pytest.mark.parametrize(("make", "kind", "advice"), KINDS, ids=[kind for _, kind, _ in KINDS])
def test_what_belongs_to_one_process_is_named_itself_with_what_to_do(make, kind, advice):
    thing = make()
    error = told(taking, [1, Session(thing)])
    assert str(error).startswith("args[0][1].connection: ")
    assert f"{kind}' object; " in str(error) or f": {kind} objects should only be" in str(error)
    assert advice in str(error)
    error = told(lambda: thing)
    assert f"<lambda> → variable thing: {str(error).partition(': ')[2]}" in str(error)
    assert advice in str(error)


def test_an_end_of_a_pipe_is_no_copy_with_the_same_number():
    """It would close whatever has that number in the CPU process."""
    ends = multiprocessing.Pipe()
    for function, args in [(taking, (ends[0],)), (taking, ({"ends": ends}, taking)), (pow, ends)]:
        error = told(function, *args)
        assert "cannot pickle 'multiprocessing.connection.Connection' object; calls" in str(error)
    for end in ends:
        end.close()


def test_in_initargs_it_is_named_likewise():
    with MemoryCluster([1]) as cluster, pytest.raises(RuntimeError) as caught:
        cluster.executor(initializer=taking, initargs=(1, multiprocessing.Lock()))
    assert str(caught.value).startswith("initargs[1]: Lock objects should only be shared")
    assert "calls run on other machines" in str(caught.value)


def test_the_streams_of_a_program_are_those_of_the_call():
    out = io.StringIO()
    assert loads(dumps(lambda file=sys.stdout: file))() is sys.stdout
    print("x", file=out)
    assert loads(dumps(out)).getvalue() == "x\n"


def test_an_error_of_the_users_own_keeps_its_arguments():
    error = told(taking, [1, Refuses()])
    assert (type(error), error.args) == (LookupError, ("mine",))
    assert "args[0][1] of the call to taking, of type 'Refuses'" in error.__notes__[0]


def test_even_an_exit():
    error = TypeError("no")
    blame(error, "f", (Exits(),), {})
    assert "args[0] of the call to f, of type 'Exits'" in error.__notes__[0]


def test_nothing_to_blame():
    error = TypeError("no")
    blame(error, taking, (1, [2]), {"a": 3})
    assert error.args == ("no",)
    assert not hasattr(error, "__notes__")


def test_a_result():
    error = TypeError("cannot pickle '_thread.lock' object")
    blame_result(error, taking, [1, 2, 3, Slots(LOCK)])
    assert str(error) == (
        "result[3].handle: cannot pickle '_thread.lock' object; it is for the threads of one "
        "process: leave it out of the object's state (__getstate__)"
    )
    assert "of what taking returned" in error.__notes__[0]


def test_a_coroutine_that_was_returned_is_closed():
    it = coroutine()
    blame_result(TypeError("no"), taking, it)
    assert it.cr_frame is None


def test_an_exception():
    described = loads(dumps_exception(HoldsALock("text", LOCK)))
    assert "HoldsALock.session.connection: cannot pickle '_thread.lock' object" in str(described)


def test_a_path_that_is_long_is_cut_in_the_middle():
    deep = functools.reduce(lambda inner, _: [inner], range(50), Session(LOCK))
    message = str(told(taking, deep))
    assert message.startswith("args[0]" + 12 * "[0]" + "….connection: cannot pickle")


def test_too_deep_for_any_pickler():
    deep = functools.reduce(lambda inner, _: [inner], range(100_000), 1)
    assert str(told(taking, deep)).startswith("args[0][0][0]")


def test_a_search_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(unpicklable, "SECONDS", -1.0)
    error = told(taking, 1, [[LOCK]])
    assert str(error) == "cannot pickle '_thread.lock' object"


def test_much_data_beside_it_takes_no_time():
    assert str(told(taking, [list(range(300_000)), LOCK])).startswith("args[0][1]: ")


@pytest.mark.parametrize(
    "function",
    [coroutine, functools.partial(coroutine), asynchronous, functools.partial(asynchronous, 1)],
)
def test_what_only_makes_a_coroutine_is_refused(function):
    with pytest.raises(TypeError, match=r"asyncio\.run\("):
        refuse_asynchronous(function)


@pytest.mark.parametrize("function", [taking, print, Job, running, functools.partial(taking, 1)])
def test_all_else_is_not(function):
    refuse_asynchronous(function)
