"""From the body of an outcome to a value or an exception."""

import pickle
import signal

import msgpack
import pytest

from k8sfutures.errors import CallNotLoadable, ResultNotLoadable, WorkerCrashed
from k8sfutures.exceptions import dumps_exception
from k8sfutures.messages import CRASHED, EXCEPTION, NOT_LOADABLE
from k8sfutures.outcomes import failure_of, loaded
from k8sfutures.serialization import dumps


class ExitAtUnpickle:
    def __reduce__(self):
        return exit, (3,)


def crash(number, code):
    story = {"signal": number, "exitcode": code, "pod": "pod-1", "cpu_id": 4, "pid": 99}
    return failure_of(CRASHED, msgpack.packb(story), "f")


def test_a_value():
    assert loaded(dumps({"a": [1, 2]}), "f") == {"a": [1, 2]}


@pytest.mark.parametrize("body", [b"", None, b"garbage", pickle.dumps(ExitAtUnpickle())])
def test_what_cannot_be_unpickled_is_that_futures_error(body):
    with pytest.raises(ResultNotLoadable, match="what f returned or raised") as caught:
        loaded(body, "f")
    assert caught.value.__cause__ is not None
    assert isinstance(failure_of(EXCEPTION, body, "f"), ResultNotLoadable)
    assert isinstance(failure_of(NOT_LOADABLE, body, "f"), ResultNotLoadable)


def test_what_the_function_raised_is_not_wrapped():
    error = failure_of(EXCEPTION, dumps_exception(KeyError("k")), "f")
    assert type(error) is KeyError
    assert error.args == ("k",)


def test_what_is_no_exception_is_not_raised():
    error = failure_of(EXCEPTION, dumps(5), "f")
    assert isinstance(error, ResultNotLoadable)
    assert "not an exception" in str(error)


def test_a_call_that_the_pod_could_not_unpickle():
    error = failure_of(NOT_LOADABLE, dumps_exception(ModuleNotFoundError("No module 'x'")), "f")
    assert isinstance(error, CallNotLoadable)
    assert isinstance(error.__cause__, ModuleNotFoundError)
    assert "the call of f: ModuleNotFoundError: No module 'x'" in str(error)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (signal.SIGKILL, "signal 9 (SIGKILL); out of memory, or killed by someone?"),
        (signal.SIGSEGV, "(SIGSEGV); a crash in native code?"),
        (signal.SIGTERM, "signal 15 (SIGTERM) (pod pod-1, CPU id 4, pid 99)"),
        (35, "signal 35"),
        (63, "(of no name)"),
    ],
)
def test_a_signal(number, words):
    error = crash(int(number), None)
    assert isinstance(error, WorkerCrashed)
    assert words in str(error)
    assert (error.signal, error.exitcode, error.pod) == (number, None, "pod-1")
    assert (error.cpu_id, error.pid) == (4, 99)


def test_an_exit():
    error = crash(None, 3)
    assert "exited with code 3; did the call end its process" in str(error)
    assert (error.signal, error.exitcode) == (None, 3)
