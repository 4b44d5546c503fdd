"""What the constructor and `map` take, beside settings, and what they say of the rest."""

from __future__ import annotations

import math
import sys
import threading

import pytest

from k8sfutures.arguments import check_arguments, check_map_arguments, pickled_initializer
from k8sfutures.blobs import Blobs


class Index:
    """As NumPy's integers are, no ``int``, and good for one."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value


@pytest.mark.parametrize(
    ("value", "plain"),
    [(None, None), (3, 3), (Index(3), 3), (1 << 70, sys.maxsize)],
    ids=["None", "int", "index", "more than a message can say"],
)
def test_whole_numbers_that_will_do(value, plain):
    for checked in (
        check_arguments(value, None, None, value),
        check_map_arguments(abs, value, value, None),
    ):
        assert checked == (plain, plain)
        assert {type(one) for one in checked} == {type(plain)}


def test_true_is_one_where_the_standard_library_has_it_so():
    checked = check_map_arguments(abs, True, True, True)
    assert checked == (1, 1)
    assert {type(one) for one in checked} == {int}, "a pod refuses any other"


@pytest.mark.parametrize(
    ("workers", "tasks", "kind", "words"),
    [
        (0, None, ValueError, "max_workers must be greater than 0, not 0"),
        (-1, None, ValueError, "max_workers must be greater than 0, not -1"),
        (1.5, None, TypeError, "max_workers must be an integer or None, not 1.5"),
        ("2", None, TypeError, "max_workers must be an integer or None, not '2'"),
        (True, None, TypeError, "max_workers must be an integer or None, not True"),
        (None, 0, ValueError, "max_tasks_per_child must be >= 1, not 0"),
        (None, math.nan, TypeError, "max_tasks_per_child must be an integer or None, not nan"),
        (None, True, TypeError, "max_tasks_per_child must be an integer or None, not True"),
    ],
)
def test_of_the_constructor_what_will_not_do(workers, tasks, kind, words):
    with pytest.raises(kind) as caught:
        check_arguments(workers, None, None, tasks)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("arguments", "kind", "words"),
    [
        ((3, None, None, None), TypeError, "3 is not callable"),
        ((abs, 0, None, None), ValueError, "chunksize must be >= 1."),
        ((abs, 1.5, None, None), TypeError, "chunksize must be an integer or None, not 1.5"),
        ((abs, None, 0, None), ValueError, "buffersize must be None or > 0"),
        ((abs, None, "2", None), TypeError, "buffersize must be an integer or None, not '2'"),
        (
            (abs, None, None, math.nan),
            ValueError,
            "timeout must be a number of seconds or None, not nan",
        ),
    ],
)
def test_of_map_what_will_not_do(arguments, kind, words):
    with pytest.raises(kind) as caught:
        check_map_arguments(*arguments)
    assert str(caught.value) == words


@pytest.mark.parametrize("initargs", [3, None, threading.Lock()], ids=["int", "None", "lock"])
def test_initargs_without_its_comma(initargs):
    with pytest.raises(TypeError) as caught:
        pickled_initializer(Blobs(), print, initargs)
    words = f"initargs must be a tuple of arguments, as in initargs=(x,), not {initargs!r}"
    assert str(caught.value) == words


@pytest.mark.parametrize("initargs", [(1, 2), [1, 2], iter((1, 2))])
def test_initargs_that_can_be_gone_through(initargs):
    found = pickled_initializer(Blobs(), print, initargs)
    assert found is not None
    assert found.name == "print"
