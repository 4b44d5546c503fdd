"""The exceptions: they pickle with their fields, and keep the standard library's bases."""

import copy
import pickle
from concurrent.futures.process import BrokenProcessPool

import pytest

from k8sfutures import errors

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
    fields = {"pod": "p", "cpu_id": 3, "pid": 77, "signal": 9, "exitcode": None}
    fields |= {"out_of_memory": True, "memory_limit": 1 << 28, "output": "last words"}
    error = pickle.loads(pickle.dumps(errors.WorkerCrashed("it died", **fields)))
    assert vars(error) == fields
    assert vars(errors.WorkerCrashed()) == dict.fromkeys(fields) | {
        "out_of_memory": False,
        "output": "",
    }


def test_the_fields_of_a_lost_pod():
    error = pickle.loads(pickle.dumps(errors.PodLost("lost", pods=("a", "b"), reasons=("x", "y"))))
    assert (error.pods, error.reasons) == (("a", "b"), ("x", "y"))
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
    ],
)
def test_bases_of_the_standard_library(cls, base):
    assert issubclass(cls, base)
