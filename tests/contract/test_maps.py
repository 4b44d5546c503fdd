"""What `map` promises, on any link."""

from __future__ import annotations

import concurrent.futures
import functools
import gc
import itertools
import os
import threading
import time
import weakref

import pytest

from k8sfutures import WorkerCrashed

pytestmark = pytest.mark.timeout(60)


def test_results_are_in_order(ex):
    assert list(ex.map(pow, range(1000), itertools.repeat(2))) == [n * n for n in range(1000)]


@pytest.mark.parametrize("chunksize", [1, 7, 100, 5000, True])
def test_any_chunksize(ex, chunksize):
    assert list(ex.map(abs, range(-500, 500), chunksize=chunksize)) == [
        abs(n) for n in range(-500, 500)
    ]


def test_nothing_to_do(ex):
    assert list(ex.map(abs, [])) == []
    assert list(ex.map(abs)) == []


@pytest.mark.parametrize("bad", [0, -1])
def test_a_bad_chunksize_or_buffersize(ex, bad):
    with pytest.raises(ValueError, match="chunksize must be >= 1"):
        ex.map(abs, [1], chunksize=bad)
    with pytest.raises(ValueError, match="buffersize must be None or > 0"):
        ex.map(abs, [1], buffersize=bad)
    with pytest.raises(TypeError, match="buffersize must be an integer or None"):
        ex.map(abs, [1], buffersize=1.5)


def fail_at_seven(n):
    if n == 7:
        raise ValueError("seven")
    return n


@pytest.mark.parametrize("chunksize", [None, 10])
def test_an_exception_in_one_item_loses_nothing_before_it(ex, chunksize):
    results = ex.map(fail_at_seven, range(10), chunksize=chunksize)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ValueError, match="seven"):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def crash_at_seven(n):
    if n == 7:
        os._exit(3)
    return n


@pytest.mark.parametrize("chunksize", [None, 10])
def test_a_crash_in_one_item_loses_nothing_before_it(ex, chunksize):
    results = ex.map(crash_at_seven, range(10), chunksize=chunksize)
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(WorkerCrashed, match="exited with code 3") as caught:
        next(results)
    assert caught.value.exitcode == 3


def test_an_item_that_cannot_be_pickled(ex):
    results = ex.map(str, [1, threading.Lock(), 3])
    assert next(results) == "1"
    with pytest.raises(TypeError, match="cannot pickle"):
        next(results)


def test_a_function_that_cannot_be_pickled(ex):
    results = ex.map(functools.partial(str, threading.Lock()), [1])
    with pytest.raises(TypeError, match="cannot pickle"):
        next(results)


def test_timeout(ex):
    results = ex.map(time.sleep, [0, 30], timeout=1)
    assert next(results) is None
    with pytest.raises(TimeoutError):
        next(results)
    ex.kill_workers()


def test_the_iterables_are_consumed_at_once(ex):
    taken = []
    results = ex.map(abs, (taken.append(n) or n for n in range(5)))
    assert taken == [0, 1, 2, 3, 4]
    assert list(results) == [0, 1, 2, 3, 4]


def test_buffersize_bounds_what_is_taken_ahead(ex):
    taken = []

    def numbers():
        for n in itertools.count():
            taken.append(n)
            yield n

    results = ex.map(abs, numbers(), buffersize=3)
    assert taken == [0, 1, 2]
    assert [next(results) for _ in range(4)] == [0, 1, 2, 3]
    assert len(taken) == 7
    results.close()


def test_buffersize_with_few_items(ex):
    assert list(ex.map(abs, [1, 2], buffersize=5)) == [1, 2]
    assert list(ex.map(abs, range(20), buffersize=2)) == list(range(20))


def test_a_closed_map_lets_the_rest_go(ex):
    results = ex.map(time.sleep, [0.01] * 10_000)
    next(results)
    results.close()
    start = time.monotonic()
    ex.shutdown()
    assert time.monotonic() - start < 20, "10,000 sleeps would take 50 s"


def test_a_map_that_nobody_reads_is_finished_at_shutdown(cluster, capfd):
    with cluster.executor() as executor:
        executor.map(print, range(20))
    assert set(capfd.readouterr().out.splitlines()) == {
        f"print[{number}] | {number}" for number in range(20)
    }


class Thing:
    pass


def test_results_are_not_kept(ex):
    for thing in ex.map(lambda _: Thing(), range(10)):
        known = weakref.ref(thing)
        del thing
        gc.collect()
        assert known() is None


def test_cancel_futures_cancels_what_was_not_dispatched(make_executor):
    executor = make_executor()
    results = executor.map(time.sleep, [0.2] * 50)
    executor.submit(pow, 1, 1)
    executor.shutdown(cancel_futures=True)
    with pytest.raises(concurrent.futures.CancelledError):
        list(results)
