"""Bodies: whatever is pickled with its parts apart is loaded as what it was."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures import bodies
from k8sfutures.bodies import Segments, loads, pair, parts_of, with_parts
from k8sfutures.serialization import split

LIMIT = 64

TEXTS = st.binary(max_size=3 * LIMIT) | st.text(max_size=3 * LIMIT)
ARRAYS = st.binary(max_size=3 * LIMIT).map(lambda data: np.frombuffer(data, np.uint8).copy())
LEAVES = st.none() | st.integers() | st.floats(allow_nan=False) | TEXTS | ARRAYS
LEAVES |= TEXTS.filter(lambda text: isinstance(text, bytes)).map(bytearray)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=LIMIT + 8), inner, max_size=3)
    ),
    max_leaves=20,
)


class Holder:
    """Keeps parts by number."""

    def __init__(self):
        self.parts = []

    def put(self, data):
        self.parts.append(bytes(data))
        return len(self.parts) - 1

    def part(self, number):
        return memoryview(bytearray(self.parts[number]))

    def body_of(self, value):
        segments, buffers = split(value, LIMIT)
        return with_parts(
            [one if len(one) <= LIMIT else self.put(one) for one in segments],
            [self.put(buffer.raw()) for buffer in buffers],
        )


def same(one, other):
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and (one == other).all()
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@given(VALUES)
def test_a_value_comes_back_from_its_parts(value):
    holder = Holder()
    body = holder.body_of(value)
    assert same(loads(body, holder.part), value)
    assert sorted(parts_of(body)) == list(range(len(holder.parts)))


@given(VALUES, st.lists(VALUES, max_size=3), st.dictionaries(st.text(max_size=3), VALUES))
def test_a_pair_is_a_callable_and_its_arguments(function, args, kwargs):
    holder = Holder()
    body = pair(holder.body_of(function), holder.body_of((tuple(args), kwargs)))
    (callee, *positional), named = loads(body, holder.part)
    assert same(callee, function)
    assert same(positional, args)
    assert same(named, kwargs)


@given(VALUES)
def test_a_body_put_apart_as_a_whole_keeps_its_own_parts(value):
    holder = Holder()
    apart = with_parts([holder.put(holder.body_of(value))], [])
    assert same(loads(apart, holder.part), value)


@given(VALUES)
def test_a_plain_pickle_is_a_body(value):
    body = pickle.dumps(value, 5)
    assert same(loads(body, lambda _: pytest.fail("it has no parts")), value)
    assert parts_of(body) == []


@given(st.lists(st.binary(max_size=2 * LIMIT)))
def test_segments_are_what_was_written_in_order(pieces):
    file = Segments(LIMIT)
    assert [file.write(piece) for piece in pieces] == [len(piece) for piece in pieces]
    found = file.take()
    assert b"".join(found) == b"".join(pieces)
    assert {one for one in found if one not in file.code} <= set(pieces)


def test_what_a_pickler_wrote_and_gave_up_is_forgotten():
    file = Segments(LIMIT)
    file.write(bytes(LIMIT))
    file.write(b"x")
    file.clear()
    file.write(b"y")
    assert file.take() == file.code == [b"y"]


def test_bulky_bytes_are_a_segment_of_their_own_and_are_not_copied():
    big = bytes(300_000)
    file = Segments(200_000)
    pickle.Pickler(file, 5).dump(big)
    assert any(one is big for one in file.take())


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("size", [50_000, 70_000, 200_000, 300_000])
@pytest.mark.parametrize(
    "make",
    [
        lambda size: np.arange(size // 8),
        lambda size: np.arange(size // 8).reshape(2, -1),
        lambda size: np.asfortranarray(np.arange(size // 8).reshape(2, -1)),
        lambda size: np.arange(size // 4)[::2],
        lambda size: np.arange(size // 8).astype("M8[s]"),
        lambda size: np.asfortranarray(np.arange(size // 8).astype("m8[D]").reshape(2, -1)),
        lambda size: np.arange(size // 4).astype("M8[s]")[::2],
        lambda size: np.zeros(size // 16, [("a", "i8"), ("b", "M8[s]")]),
        bytearray,
    ],
    ids=[
        *("flat", "rows", "columns", "strided", "times", "durations", "strided times"),
        *("records", "bytearray"),
    ],
)
def test_many_that_are_not_bulky_are_together(make, size, count):
    """A pickler hands buffers from 64 KiB on to its file as they are."""
    values = [make(size) for _ in range(count)]
    segments, buffers = split(values, 256 * 1024)
    holder = Holder()
    body = with_parts(
        [holder.put(segment) for segment in segments],
        [holder.put(buffer.raw()) for buffer in buffers],
    )
    assert same(loads(body, holder.part), values)


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1), st.data())
def test_pieces_are_read_as_if_they_were_one(pieces, data):
    file = bodies._Pieces([memoryview(piece) for piece in pieces])
    whole = b"".join(pieces)
    read = b""
    while more := file.read(data.draw(st.integers(1, 20))):
        read += more
    assert read == whole
    assert file.read(1) == b""


def test_only_protocols_with_lengths_are_read():
    with pytest.raises(pickle.UnpicklingError, match="protocol 0"):
        bodies._Pieces([]).readline()


ONLY_DILL = dict.__dict__["fromkeys"]
"""cloudpickle has written what comes before it when it finds that it cannot take this."""


@pytest.mark.parametrize("big", [b"1" * 300_000, np.arange(100_000)], ids=["bytes", "array"])
def test_what_only_dill_takes_is_not_mixed_with_what_failed(big):
    segments, buffers = split((big, ONLY_DILL, big), 256 * 1024)
    first, descriptor, last = pickle.loads(b"".join(segments), buffers=buffers)
    assert same(first, big)
    assert same(last, big)
    assert descriptor is ONLY_DILL
