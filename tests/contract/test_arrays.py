"""NumPy: what travels of it is at the other end what the standard library would have made of it.

And where the calls of a pod share it, it is in memory once.
"""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from k8sfutures.messages import INLINE_LIMIT
from k8sfutures.serialization import split

pytestmark = pytest.mark.timeout(60)

SMALL = 12
BIG = 400_000  # elements; a byte of each makes more than INLINE_LIMIT


def integers(size: int) -> np.ndarray:
    return np.arange(size)


def bytes_(size: int) -> np.ndarray:
    return np.resize(np.arange(100, dtype=np.int8), size)


def truths(size: int) -> np.ndarray:
    return np.arange(size) % 3 == 0


def complexes(size: int) -> np.ndarray:
    return np.arange(size) * (1 - 2j)


def foreign(size: int) -> np.ndarray:
    return np.arange(size, dtype=">i4")


def rows(size: int) -> np.ndarray:
    return (np.arange(size) / 7).reshape(-1, 4)


def columns(size: int) -> np.ndarray:
    return np.asfortranarray(rows(size))


def transposed(size: int) -> np.ndarray:
    return rows(size).T


def every_other(size: int) -> np.ndarray:
    return np.arange(2 * size)[::2]


def backwards(size: int) -> np.ndarray:
    return np.arange(size)[::-1]


def part(size: int) -> np.ndarray:
    return rows(2 * size)[3:-3]


def records(size: int) -> np.ndarray:
    fields = [("number", "i8"), ("half", "f2"), ("word", "S5"), ("pair", "f4", 2)]
    made = np.zeros(size, dtype=fields)
    made["number"] = np.arange(size)
    made["word"] = b"abc"
    return made


def named(size: int) -> np.recarray:
    return records(size).view(np.recarray)


def moments(size: int) -> np.ndarray:
    return np.datetime64("2026-01-01T00:00:00") + np.arange(size).astype("m8[s]")


def spans(size: int) -> np.ndarray:
    return np.arange(size).astype("m8[ms]")


def words(size: int) -> np.ndarray:
    return np.resize(np.array(["ä", "bcd", ""]), size)


def objects(size: int) -> np.ndarray:
    return np.resize(np.array([1, "a", None, 2.5], dtype=object), size)


def masked(size: int) -> np.ma.MaskedArray:
    return np.ma.masked_array(np.arange(size), truths(size))


def nothing(_size: int) -> np.ndarray:
    return np.empty((0, 3), dtype=np.float32)


def point(_size: int) -> np.ndarray:
    return np.array(5.5)


def scalar(_size: int) -> np.float64:
    return np.float64(1 / 3)


def moment(_size: int) -> np.datetime64:
    return np.datetime64("2026-01-01T12:30")


FLAT = [integers, bytes_, truths, complexes, foreign, rows, columns, transposed, records, moments]
ARRAYS = [*FLAT, every_other, backwards, part, named, spans, words, objects, masked, nothing, point]
KINDS = [*ARRAYS, scalar, moment]
SIZES = pytest.mark.parametrize("size", [SMALL, BIG])

Kind = Callable[[int], Any]


def kinds(of: list[Kind]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("kind", of, ids=lambda kind: kind.__name__)


def described(thing: Any) -> tuple[Any, ...]:
    """All that can be told of it but its values."""
    flags = thing.flags
    order = flags.c_contiguous, flags.f_contiguous
    return type(thing), thing.dtype, thing.shape, order, flags.writeable, flags.aligned


def pickled(thing: Any) -> Any:
    """As it comes from the standard library's pool; before Python 3.14 with another byte order."""
    return pickle.loads(pickle.dumps(thing, 5))


def assert_same(one: Any, other: Any) -> None:
    assert described(one) == described(other)
    assert np.array_equal(one, other)
    if isinstance(one, np.ma.MaskedArray):
        assert np.array_equal(one.mask, other.mask)


@pytest.fixture(scope="module")
def ex(cluster):
    with cluster.executor(**cluster.data_settings()) as running:
        yield running


@SIZES
@kinds(KINDS)
def test_arguments_and_results_are_as_the_standard_librarys(ex, kind: Kind, size: int) -> None:
    thing = kind(size)
    theirs = pickled(thing)
    there, back = ex.submit(lambda it: (described(it), it), thing).result()
    assert there == described(theirs)
    assert_same(back, theirs)


@SIZES
def test_all_of_them_in_a_map(ex, size: int) -> None:
    things = [kind(size) for kind in KINDS]
    for thing, back in zip(things, ex.map(lambda it: {"it": [it]}, things), strict=True):
        assert_same(back["it"][0], pickled(thing))


def add_one(array: np.ndarray) -> tuple[int, np.ndarray]:
    before = int(array[0])
    array += 1
    return before, array


@SIZES
def test_what_a_call_changes_no_other_one_sees(ex, size: int) -> None:
    array = np.arange(size)
    for future in [ex.submit(add_one, array) for _ in range(8)]:
        before, changed = future.result()
        assert before == 0
        assert np.array_equal(changed, array + 1)
        changed[0] = 7
    assert array[0] == 0


class Model:
    """Holds arrays, and a method that uses them."""

    def __init__(self, size: int) -> None:
        self.weights = {"first": np.arange(size), "second": np.ones(size, dtype=np.float32)}

    def total(self, more: int) -> int:
        return int(self.weights["first"].sum() + self.weights["second"].sum()) + more


@SIZES
def test_arrays_of_a_bound_object(ex, size: int) -> None:
    model = Model(size)
    sums = [size * (size - 1) // 2 + size + more for more in range(20)]
    assert list(ex.map(model.total, range(20))) == sums
    assert [ex.submit(model.total, more).result() for more in range(3)] == sums[:3]


def test_functions_and_generators_of_numpy(ex) -> None:
    assert ex.submit(np.add, 2, 3).result() == 5
    assert ex.submit(np.linalg.norm, np.array([3.0, 4.0])).result() == 5.0
    generator = np.random.default_rng(7)
    theirs = ex.submit(lambda it: it.integers(0, 1000, 5), np.random.default_rng(7)).result()
    assert np.array_equal(theirs, generator.integers(0, 1000, 5))


def where_it_lies(array: np.ndarray) -> tuple[str, int, str]:
    """Pod, process, and the file whose memory it is in."""
    time.sleep(0.05)
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        bounds, _, _, device, inode, *_ = line.split()
        start, end = (int(one, 16) for one in bounds.split("-"))
        if start <= address < end:
            return platform.node(), os.getpid(), f"{device} {inode}"
    raise AssertionError("it is nowhere")


def test_processes_of_a_pod_read_a_shared_array_from_one_copy(cluster, ex) -> None:
    array = np.arange(1_000_000)
    futures = [ex.submit(where_it_lies, array) for _ in range(12 * cluster.slots)]
    found = {future.result() for future in futures}
    pods = {pod for pod, _, _ in found}
    assert len({(pod, process) for pod, process, _ in found}) >= len(pods)
    assert all(inode != "00:00 0" for _, _, inode in found), "a file in memory"
    assert len({(pod, inode) for pod, _, inode in found}) == len(pods), "one in each pod"


@kinds(FLAT)
def test_what_is_bulky_stays_out_of_the_pickle(kind: Kind) -> None:
    thing = kind(BIG)
    (frame,), buffers = split(thing, INLINE_LIMIT)
    assert len(frame) < 1000
    assert sum(buffer.raw().nbytes for buffer in buffers) == thing.nbytes
