"""What pickles what, and what becomes of functions and exceptions on their way."""

import collections
import enum
import functools
import gc
import math
import os
import pickle
import subprocess
import sys
import threading
import traceback

import pytest

from k8sfutures.blobs import Blobs
from k8sfutures.errors import ResultNotLoadable
from k8sfutures.exceptions import dumps_exception
from k8sfutures.functions import Functions, name_of
from k8sfutures.serialization import dumps, loads

FACTOR = 2


def scaled(value):
    return helper(value)


def helper(value):
    return value * FACTOR


class Colour(enum.Enum):
    RED = 1


class Point:
    def __init__(self, x):
        self.x = x

    def double(self):
        return 2 * self.x


class TakesTwo(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")
        self.second = second


class HoldsALock(Exception):
    def __init__(self, text):
        super().__init__(text)
        self.lock = threading.Lock()


class ExitAtUnpickle(Exception):
    def __reduce__(self):
        return exit, (3,)


def elsewhere(data: bytes, expression: str) -> str:
    """Evaluates an expression of `it`, the unpickled object, where this module is unknown."""
    program = (
        "import pickle, sys; it = pickle.load(sys.stdin.buffer); "
        f"print({expression}, {__name__!r} in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", program], input=data, capture_output=True, check=False
    )
    assert run.returncode == 0, run.stderr.decode()
    value, known = run.stdout.decode().rsplit(maxsplit=1)
    assert known == "False"
    return value


class TestObjects:
    @pytest.mark.parametrize(
        "value", [None, 5, "text", {"a": [1, (2.5,)]}, math.sqrt, collections.OrderedDict(a=1)]
    )
    def test_data_and_what_is_installed_goes_by_c_pickle(self, value):
        assert dumps(value) == pickle.dumps(value, 5)
        assert loads(dumps(value)) == value

    def test_definitions_of_the_users_own_go_by_value(self):
        assert elsewhere(dumps(scaled), "it(21)") == "42"
        both = dumps([Point(4), Colour.RED, lambda x: x + FACTOR])
        assert elsewhere(both, "(it[0].double(), it[1].name, it[2](1))") == "(8, 'RED', 3)"

    def test_a_class_is_one_class_when_it_comes_back(self):
        point, colour = loads(dumps((Point(1), Colour.RED)))
        assert type(point) is Point
        assert colour is Colour.RED

    def test_closures(self):
        def outer(n):
            return lambda x: x + n

        assert loads(dumps(outer(3)))(4) == 7

    def test_what_nothing_takes_is_an_error(self):
        with pytest.raises(TypeError, match="lock"):
            dumps(threading.Lock())

    def test_an_objects_own_error_comes_out(self):
        class Refuses:
            def __reduce__(self):
                raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            dumps(Refuses())


class TestFunctions:
    def test_pickled_once(self):
        functions = Functions(Blobs())
        first = functions.get(scaled)
        assert functions.get(scaled) is first
        assert functions.bodies == {first.id: first}
        assert first.name == "scaled"
        assert not functions.dropped

    def test_ids_are_their_own(self):
        functions = Functions(Blobs())
        assert functions.get(scaled).id != functions.get(helper).id != functions.get(len).id

    def test_pickled_anew_when_a_global_that_it_reads_is_rebound(self, monkeypatch):
        functions = Functions(Blobs())
        before = functions.get(helper)
        monkeypatch.setitem(globals(), "FACTOR", 5)
        after = functions.get(helper)
        assert after.id != before.id
        assert loads(after.data)(2) == 10
        assert functions.take_dropped() == [before.id]
        assert functions.get(helper) is after

    def test_so_it_is_when_a_helper_reads_it(self, monkeypatch):
        functions = Functions(Blobs())
        before = functions.get(scaled)
        monkeypatch.setitem(globals(), "FACTOR", 7)
        assert loads(functions.get(scaled).data)(2) == 14
        assert functions.take_dropped() == [before.id]

    def test_so_it_is_for_a_variable_of_an_enclosing_function(self):
        n = 1

        def add(x):
            return x + n

        functions = Functions(Blobs())
        before = functions.get(add)
        n = 10
        after = functions.get(add)
        assert after.id != before.id
        assert loads(after.data)(1) == 11

    def test_a_variable_that_is_not_there_yet(self):
        def recursive(x):
            return later(x) if x else 0

        functions = Functions(Blobs())
        before = functions.get(recursive)

        def later(x):
            return x + 1

        after = functions.get(recursive)
        assert after.id != before.id
        assert loads(after.data)(1) == 2

    def test_an_installed_function_is_not_watched(self):
        assert Functions(Blobs()).get(os.path.join).reads is None

    def test_dropped_when_it_dies(self):
        functions = Functions(Blobs())
        function = lambda: 1
        number = functions.get(function).id
        del function
        gc.collect()
        assert functions.take_dropped() == [number]
        assert functions.take_dropped() == []
        assert not functions._by_id

    @pytest.mark.parametrize("function", [Point(1).double, functools.partial(scaled), [].append])
    def test_what_has_state_travels_with_each_call(self, function):
        functions = Functions(Blobs())
        assert functions.get(function) is None
        caller = functions.caller(function)
        assert functions.caller(function) is caller

    def test_the_caller_calls_it(self):
        caller = Functions(Blobs()).caller(Point(3).double)
        assert loads(caller.data)(*loads(dumps((Point(3).double,)))) == 6

    def test_callers_are_apart_by_what_they_call(self):
        functions = Functions(Blobs())
        assert functions.caller(Point(1).double) is functions.caller(Point(2).double)
        assert functions.caller(Point(1).double) is not functions.caller(functools.partial(scaled))

    def test_names(self):
        assert name_of(print) == "print"
        assert name_of("f") == "f"
        assert name_of(Point.double) == "Point.double"
        assert name_of(functools.partial(print)) == "partial"

    def test_for_one_map(self):
        functions = Functions(Blobs())
        one, two = functions.once(scaled), functions.once(scaled)
        assert one.id != two.id

    def test_classes_and_builtins(self):
        functions = Functions(Blobs())
        assert loads(functions.get(Point).data) is Point
        assert loads(functions.get(len).data) is len


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class TestExceptions:
    def test_with_its_traceback(self):
        def fail():
            raise KeyError("k")

        error = loads(dumps_exception(raised(fail)))
        assert type(error) is KeyError
        assert error.args == ("k",)
        assert [frame.name for frame in traceback.extract_tb(error.__traceback__)] == [
            "raised",
            "fail",
        ]

    def test_with_cause_and_notes(self):
        def fail():
            try:
                raise KeyError("inner")
            except KeyError as inner:
                error = ValueError("outer")
                error.add_note("a note")
                raise error from inner

        error = loads(dumps_exception(raised(fail)))
        assert error.__notes__ == ["a note"]
        assert type(error.__cause__) is KeyError
        assert error.__suppress_context__
        assert error.__cause__.__traceback__ is not None

    def test_with_context(self):
        def fail():
            try:
                raise KeyError("inner")
            except KeyError:
                raise ValueError("outer")  # noqa: B904

        error = loads(dumps_exception(raised(fail)))
        assert type(error.__context__) is KeyError
        assert not error.__suppress_context__

    def test_a_group(self):
        group = ExceptionGroup("several", [KeyError("k"), ExceptionGroup("g", [TypeError("t")])])
        error = loads(dumps_exception(group))
        assert error.message == "several"
        assert type(error.exceptions[0]) is KeyError
        assert type(error.exceptions[1].exceptions[0]) is TypeError

    def test_a_constructor_that_does_not_take_its_args(self):
        error = loads(dumps_exception(raised(lambda: (_ for _ in ()).throw(TakesTwo("a", "b")))))
        assert type(error) is TakesTwo
        assert str(error) == "a and b"
        assert error.second == "b"
        assert error.__traceback__ is not None

    def test_such_a_one_as_cause(self):
        def fail():
            raise ValueError("outer") from TakesTwo("a", "b")

        error = loads(dumps_exception(raised(fail)))
        assert type(error) is ValueError
        assert type(error.__cause__) is TakesTwo

    @pytest.mark.parametrize("error", [HoldsALock("text"), ExitAtUnpickle("text")])
    def test_one_that_cannot_travel_is_described(self, error):
        described = loads(dumps_exception(error))
        assert isinstance(described, ResultNotLoadable) or type(described) is type(error)
        assert "text" in str(described)

    def test_of_a_class_of_the_users_own(self):
        data = dumps_exception(TakesTwo("a", "b"))
        assert elsewhere(data, "(type(it).__name__, it.second)") == "('TakesTwo', 'b')"

    @pytest.mark.parametrize(
        ("error", "field", "value"),
        [
            (SystemExit(3), "code", 3),
            (StopIteration(5), "value", 5),
            (OSError(2, "no such thing", "path"), "filename", "path"),
            (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "why"), "reason", "why"),
            (SyntaxError("text", ("file", 7, 2, "line")), "lineno", 7),
            (ImportError("text", name="module"), "name", "module"),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_what_the_standard_ones_keep_beside_their_args(self, error, field, value):
        twin = loads(dumps_exception(error))
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert getattr(twin, field) == value
