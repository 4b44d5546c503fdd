"""The exceptions: they pickle with their fields, and keep the standard library's bases."""

import copy
import pickle
from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

import pytest

from k8sfutures import errors
from k8sfutures.attempts import Attempt

ATTEMPTS = (Attempt(1, "p", "n", 3, 1.5, "raised ValueError"),)
LOST = errors.PodLost("lost", pods=("a", "b"), reasons=("x", "y"), attempts=ATTEMPTS)
ALL = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
def test_every_error_survives_with_its_text_and_what_was_added(cls, again):
    error = cls("what happened")
    error.added = 5
    error.add_note("a note")
    twin = again(error)
    assert type(twin) is cls
    assert str(twin) == "what happened"
    assert vars(twin) == vars(error)


def test_the_fields_of_a_crash():
    fields = {"pod": "p", "node": "n", "cpu_id": 3, "pid": 77, "signal": 9, "exitcode": None}
    fields |= {"out_of_memory": True, "memory_limit": 1 << 28, "output": "last words"}
    fields |= {"seconds": 1.5, "memory_peak": 1 << 27, "stack": "Fatal", "attempts": ATTEMPTS}
    error = pickle.loads(pickle.dumps(errors.WorkerCrashed("it died", **fields)))
    assert vars(error) == fields
    assert vars(errors.WorkerCrashed()) == dict.fromkeys(fields) | {
        "out_of_memory": False,
        "output": "",
        "stack": "",
        "attempts": (),
    }


def test_the_fields_of_a_call_that_ran_for_too_long():
    fields = {"timeout": 1.0, "seconds": 1.1, "pod": "p", "node": "n", "cpu_id": 3, "pid": 77}
    fields |= {"memory_peak": 1 << 27, "output": "words", "stack": "f", "attempts": ATTEMPTS}
    error = pickle.loads(pickle.dumps(errors.CallTimeout("too long", **fields)))
    assert vars(error) == fields
    assert (str(error), error.errno) == ("too long", None)


def test_the_fields_of_a_call_that_was_cancelled():
    error = pickle.loads(pickle.dumps(errors.CallCancelled("cancelled", pod="p")))
    assert error.pod == "p"


def test_the_fields_of_a_lost_pod():
    error = pickle.loads(pickle.dumps(LOST))
    assert (error.pods, error.reasons, error.attempts) == (("a", "b"), ("x", "y"), ATTEMPTS)
    assert errors.PodLost().pods == errors.PodLost().reasons == ()


def test_all_are_ours_and_all_are_exported():
    defined = {
        name
        for name, value in vars(errors).items()
        if getattr(value, "__module__", "") == errors.__name__ and isinstance(value, type)
    }
    assert defined == set(errors.__all__)
    assert all(issubclass(cls, errors.K8sFuturesError) for cls in ALL)


def test_the_tree_in_the_text_names_every_class():
    assert all(cls.__name__ in errors.__doc__ for cls in ALL)


@pytest.mark.parametrize(
    ("cls", "base"),
    [
        (errors.SettingValueError, ValueError),
        (errors.SettingTypeError, TypeError),
        (errors.ForkedExecutorError, RuntimeError),
        (errors.ExecutorBroken, BrokenProcessPool),
        (errors.CallFailed, BrokenProcessPool),
        (errors.CallTimeout, TimeoutError),
        (errors.CallCancelled, CancelledError),
    ],
)
def test_bases_of_the_standard_library(cls, base):
    assert issubclass(cls, base)
