"""A map's items and results, without threads where that is possible."""

import threading
import time
from concurrent.futures import CancelledError

import msgpack
import pytest

from k8sfutures.blobs import Blobs
from k8sfutures.exceptions import dumps_exception
from k8sfutures.functions import PickledFunction
from k8sfutures.maps import Map
from k8sfutures.messages import EXCEPTION, RESULT
from k8sfutures.serialization import dumps, loads


class CannotPickle:
    def __reduce__(self):
        raise TypeError("not this one")


class ExitAtPickle:
    def __reduce__(self):
        raise SystemExit(3)


def a_map(*items):
    map_ = Map(1, PickledFunction(1, "f", b""), Blobs())
    map_.add([(item,) for item in items])
    return map_


def result(value):
    return (RESULT, dumps(value))


def now():
    return time.monotonic()


def test_items_are_pickled_when_asked_for():
    map_ = a_map("a", "b", "c")
    bodies = msgpack.unpackb(map_.body_of(1, 2))
    assert [loads(body) for body in bodies] == [("b",), ("c",)]


def test_results_in_any_order():
    map_ = a_map("a", "b")
    map_.settle([(1, result(2))])
    map_.settle([(0, result(1))])
    assert not map_.unsettled
    assert [map_.take(index, None) for index in (0, 1)] == [1, 2]


def test_an_outcome_that_comes_twice_counts_once():
    map_ = a_map("a")
    map_.settle([(0, result("first"))])
    map_.settle([(0, result("second"))])
    assert map_.take(0, None) == "first"
    assert not map_._outcomes


def test_what_an_item_raised():
    map_ = a_map("a")
    map_.settle([(0, (EXCEPTION, dumps_exception(KeyError("k"))))])
    with pytest.raises(KeyError):
        map_.take(0, None)


@pytest.mark.parametrize("culprit", [CannotPickle(), ExitAtPickle()])
def test_an_item_that_cannot_be_pickled_fails_alone(culprit):
    map_ = a_map("a", culprit, "c")
    bodies = msgpack.unpackb(map_.body_of(0, 3))
    assert [body is None for body in bodies] == [False, True, False]
    map_.settle([(0, result(0)), (1, (2, b"")), (2, result(2))])
    assert map_.take(0, None) == 0
    with pytest.raises((TypeError, SystemExit)) as caught:
        map_.take(1, None)
    if isinstance(culprit, CannotPickle):
        assert any("args[0]" in note for note in caught.value.__notes__)
    assert map_.take(2, None) == 2


def test_an_item_that_has_failed_may_be_asked_for_again():
    map_ = a_map(CannotPickle())
    first = map_.body_of(0, 1)
    assert map_.body_of(0, 1) == first  # its pod was lost


def test_a_deadline():
    map_ = a_map("a")
    with pytest.raises(TimeoutError):
        map_.take(0, now() - 1)
    map_.settle([(0, result(5))])
    assert map_.take(0, now() - 1) == 5  # what is there is there


def test_failure_of_the_executor():
    map_ = a_map("a", "b")
    map_.settle([(0, result(1))])
    map_.fail(RuntimeError("broken"))
    assert map_.take(0, None) == 1
    with pytest.raises(RuntimeError, match="broken"):
        map_.take(1, None)


def test_cancelling_waits_for_what_was_dispatched():
    map_ = a_map("a", "b", "c")
    map_.cancel_from(1)
    assert map_.unsettled  # item 0 runs
    with pytest.raises(CancelledError):
        map_.take(1, None)
    map_.settle([(0, result(1)), (2, result(3))])
    assert map_.take(0, None) == 1
    assert not map_.unsettled
    map_.add([("d",)])
    assert not map_.unsettled
    with pytest.raises(CancelledError):
        map_.take(3, None)


def test_who_waits_is_woken():
    map_ = a_map("a")
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(map_.take(0, now() + 20)))
    waiter.start()
    map_.settle([(0, result(7))])
    waiter.join(20)
    assert taken == [7]
