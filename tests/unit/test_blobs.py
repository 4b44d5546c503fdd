import functools
import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures import bodies
from k8sfutures.blobs import Blobs, Bulky, blobs_of, kept_in_pods, size_of
from k8sfutures.bulk_memory import MOST_KEPT
from k8sfutures.messages import INLINE_LIMIT, MODULES

BIG = 2 * INLINE_LIMIT


@pytest.fixture
def blobs() -> Blobs:
    return Blobs(kept=10 * BIG)


def ids(body):
    return [blob.id for blob in blobs_of(body)]


def load(body):
    by_id = {blob.id: blob.data for blob in blobs_of(body)}
    return bodies.loads(body, lambda number: memoryview(bytearray(by_id[number])))


class TestIdentity:
    def test_equal_bytes_are_one_blob_whoever_holds_them(self, blobs):
        assert blobs.keep(b"1" * BIG) is blobs.keep(memoryview(bytearray(b"1" * BIG)))

    @pytest.mark.parametrize("at", [0, 100, BIG // 2 - 1, BIG - 100, BIG - 1])
    def test_a_byte_makes_another_wherever_it_is(self, blobs, at):
        data = bytearray(BIG)
        first = blobs.keep(memoryview(data))
        data[at] = 1
        second = blobs.keep(memoryview(data))
        assert first is not second
        assert first.data == bytes(BIG)
        assert second.data == data

    def test_a_kind_is_apart(self, blobs):
        assert blobs.keep(b"1" * BIG) is not blobs.keep(b"1" * BIG, MODULES)

    def test_it_is_known_whether_a_second_call_wants_it(self, blobs):
        first = blobs.keep(b"1" * BIG)
        assert not first.wanted_again
        blobs.keep(b"1" * BIG)
        assert first.wanted_again

    @given(st.lists(st.integers(0, 5), max_size=30), st.integers(0, 4))
    def test_ids_are_never_used_twice(self, fills, kept):
        blobs = Blobs(kept=kept * 100)
        seen: dict[int, bytes] = {}
        for fill in fills:
            blob = blobs.keep(bytes([fill]) * 100)
            assert seen.setdefault(blob.id, blob.data) == blob.data


class TestLifetime:
    def test_it_ends_with_the_last_that_needs_it(self):
        blobs = Blobs(kept=0)
        body = blobs.dumps(bytes(BIG))
        (number,) = ids(body)
        assert blobs.take_gone() == []
        assert blobs.is_alive(number)
        del body
        assert blobs.is_alive(number), "nobody has been told"
        assert blobs.take_gone() == [number]
        assert not blobs.is_alive(number)
        assert blobs.take_gone() == []

    def test_the_most_recent_are_kept_for_calls_to_come(self):
        blobs = Blobs(kept=3 * BIG)
        numbers = [blobs.keep(bytes([fill]) * BIG).id for fill in range(5)]
        assert blobs.take_gone() == numbers[:2]

    def test_what_is_used_again_is_recent(self):
        blobs = Blobs(kept=2 * BIG)
        first = blobs.keep(b"1" * BIG).id
        second = blobs.keep(b"2" * BIG).id
        blobs.keep(b"1" * BIG)
        blobs.keep(b"3" * BIG)
        assert blobs.take_gone() == [second]
        assert blobs.keep(b"1" * BIG).id == first

    def test_none_are_kept_when_no_call_comes_any_more(self):
        blobs = Blobs(kept=9 * BIG)
        needed = blobs.keep(b"1" * BIG)
        number = blobs.keep(b"2" * BIG).id
        blobs.forget_recent()
        assert blobs.take_gone() == [number]
        late = blobs.keep(b"3" * BIG).id
        assert blobs.take_gone() == [late]
        assert blobs.keep(b"1" * BIG) is needed

    def test_one_that_is_bigger_than_all_that_is_kept_lives_while_it_is_needed(self):
        blobs = Blobs(kept=BIG)
        blob = blobs.keep(bytes(3 * BIG))
        assert blobs.take_gone() == []
        assert blobs.keep(bytes(3 * BIG)) is blob

    def test_it_ends_with_its_executor(self):
        blobs = Blobs()
        body = blobs.dumps(bytes(BIG))
        del blobs
        gc.collect()
        assert load(body) == bytes(BIG)

    def test_threads_may_submit_at_the_same_time(self):
        blobs = Blobs(kept=4 * BIG)
        wrong = []
        start = threading.Barrier(4)

        def submit(seed):
            start.wait(10)
            for step in range(60):
                fill = (seed + step) % 7
                if load(blobs.dumps(bytes([fill]) * BIG)) != bytes([fill]) * BIG:
                    wrong.append(fill)
                blobs.take_gone()

        threads = [threading.Thread(target=submit, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert not wrong
        blobs.take_gone()
        assert blobs._size == sum(len(blob.data) for blob in blobs._recent.values())
        assert blobs._size <= 4 * BIG
        assert blobs._alive >= {blob.id for blob in blobs._recent.values()}


class TestBodies:
    def test_what_is_small_has_no_blobs(self, blobs):
        body = blobs.dumps([1, "a", np.arange(10)])
        assert not isinstance(body, Bulky)
        assert blobs_of(body) == ()
        assert blobs_of(None) == ()

    @pytest.mark.parametrize(
        "value",
        [
            bytes(BIG),
            "ä" * BIG,
            bytearray(BIG),
            np.arange(BIG),
            [np.arange(BIG), b"1" * BIG, {"a": np.ones(BIG)}],
            10**700_000,
        ],
        ids=["bytes", "str", "bytearray", "array", "nested", "int"],
    )
    def test_what_is_bulky_is_in_blobs_and_comes_back(self, blobs, value):
        body = blobs.dumps(value)
        assert len(body) < 1000
        back = load(body)
        assert type(back) is type(value)
        if isinstance(value, list):
            assert (back[0] == value[0]).all()
            assert back[1] == value[1]
            assert (back[2]["a"] == value[2]["a"]).all()
        else:
            assert np.all(back == value)

    def test_an_array_that_is_changed_between_calls_is_seen(self, blobs):
        array = np.zeros(BIG)
        before = blobs.dumps(array)
        again = blobs.dumps(array)
        array[BIG // 3] = 1
        after = blobs.dumps(array)
        assert ids(before) == ids(again) != ids(after)
        assert load(before)[BIG // 3] == 0
        assert load(after)[BIG // 3] == 1

    def test_an_array_that_is_in_a_call_twice_is_one_there(self, blobs):
        array = np.zeros(BIG)
        one, other, equal = load(blobs.dumps((array, array, array.copy())))
        assert one is other
        assert equal is not one
        one[0] = 1
        assert equal[0] == 0

    def test_the_size_counts_what_nothing_else_has_needed(self, blobs):
        body = blobs.dumps(bytes(BIG))
        assert BIG < size_of(body) < BIG + 1000
        assert size_of(blobs.dumps(bytes(BIG))) < 1000


class TestCallables:
    def test_the_state_of_one_is_the_same_blob_in_every_call(self, blobs):
        function = functools.partial(len, "1" * BIG)
        bodies_of_calls = [blobs.dumps_call(function, (n,), {"key": n}) for n in range(3)]
        assert len({tuple(ids(body)) for body in bodies_of_calls}) == 1
        for n, body in enumerate(bodies_of_calls):
            (callee, *args), kwargs = load(body)
            assert callee.args == ("1" * BIG,)
            assert (args, kwargs) == ([n], {"key": n})

    def test_so_is_an_array_of_it(self, blobs):
        function = functools.partial(len, np.zeros(BIG))
        first, second = (blobs.dumps_call(function, (n,), {}) for n in range(2))
        assert ids(first) == ids(second)

    def test_a_bulky_argument_of_a_small_one_is_an_argument(self, blobs):
        (callee, *args), kwargs = load(
            blobs.dumps_call(functools.partial(len), (b"1" * BIG,), {"key": b"2" * BIG})
        )
        assert callee.func is len
        assert (args, kwargs) == ([b"1" * BIG], {"key": b"2" * BIG})


def test_pods_with_little_memory_keep_little_of_what_no_call_needs():
    assert kept_in_pods(None) == kept_in_pods("1Ti") == MOST_KEPT
    assert kept_in_pods("128Mi") == 16 << 20
    assert kept_in_pods("800000000") == 100_000_000
