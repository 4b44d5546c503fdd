import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.blobs import Blobs, blobs_of
from k8sfutures.bodies import loads, parts_of
from k8sfutures.cargo import Cargo, group_until, last_number
from k8sfutures.codec import Codec
from k8sfutures.functions import PickledFunction
from k8sfutures.messages import INLINE_LIMIT, Group

BODY = b"\x80" + bytes(INLINE_LIMIT - 1)


@pytest.fixture
def blobs() -> Blobs:
    return Blobs(kept=0)


def group_of(*calls, functions=None, released=(), number=1):
    share = [(call, function, 0, body) for call, function, body in calls]
    return Group(number, functions or {}, list(released), {"pod": (1, share)}, {})


def numbers(blobs_of_pod):
    return [blob.id for blob in blobs_of_pod]


def load(cargo, group):
    """The only message of a group, and what its only pod needs."""
    (message,), needed = cargo.load(group)
    assert needed.keys() <= {"pod"}
    return message, needed.get("pod", [])


class TestCalls:
    def test_that_are_small_need_nothing_and_stay_as_they_are(self, blobs):
        calls = [(1, 7, 0, b"\x80a"), (2, 7, 0, b"\x80b")]
        share = list(calls)
        group, needed = load(Cargo(blobs, None), Group(1, {}, [], {"pod": (1, share)}, {}))
        assert all(one is other for one, other in zip(calls, group.shares["pod"][1], strict=True))
        assert group.needs == {}
        assert needed == []

    def test_need_the_blobs_of_their_bodies(self, blobs):
        body = blobs.dumps(bytes(2 * INLINE_LIMIT))
        group, needed = load(Cargo(blobs, None), group_of((1, 7, body), (2, 7, b"\x80b")))
        assert numbers(needed) == parts_of(body)
        assert group.needs == {1: parts_of(body)}

    def test_whose_body_is_bulky_itself_have_it_apart(self, blobs):
        """As a range of a map may be, of which each item is small."""
        group, needed = load(Cargo(blobs, None), group_of((1, 7, BODY), (2, 7, BODY + b"1")))
        (small, _), (apart, parts) = (
            (call[3], parts_of(call[3])) for call in group.shares["pod"][1]
        )
        assert small is BODY
        assert group.needs == {2: parts}
        assert [blob.data for blob in needed] == [BODY + b"1"]
        assert len(apart) < 100

    def test_that_are_put_apart_keep_what_they_need_themselves(self, blobs):
        """Many parts of them are bulky, and what is between those is too much together."""
        value = [(bytes([n]) * (INLINE_LIMIT + 1), bytes([n]) * 100_000) for n in range(5)]
        body = blobs.dumps(value)
        assert len(body) > INLINE_LIMIT
        group, needed = load(Cargo(blobs, None), group_of((1, 7, body)))
        apart = group.shares["pod"][1][0][3]
        assert len(apart) < 100
        data = {blob.id: blob.data for blob in needed}
        assert set(group.needs[1]) == set(data)
        assert loads(apart, lambda part: memoryview(data[part])) == value

    def test_of_several_pods_need_their_own(self, blobs):
        bodies = [blobs.dumps(bytes([n]) * 2 * INLINE_LIMIT) for n in range(2)]
        shares = {f"pod-{n}": (1, [(n, 7, 0, bodies[n])]) for n in range(2)}
        _, needed = Cargo(blobs, None).load(Group(1, {}, [], shares, {}))
        assert {pod: numbers(needed[pod]) for pod in needed} == {
            "pod-0": parts_of(bodies[0]),
            "pod-1": parts_of(bodies[1]),
        }


class TestFunctions:
    def test_that_are_bulky_are_needed_by_each_of_their_calls(self, blobs):
        body = blobs.dumps(bytes(2 * INLINE_LIMIT))
        cargo = Cargo(blobs, None)
        group, needed = load(cargo, group_of((1, 7, b"\x80"), functions={7: body}))
        assert numbers(needed) == parts_of(body)
        assert group.needs == {-7: parts_of(body)}
        _, needed = load(cargo, group_of((2, 7, b"\x80")))
        assert numbers(needed) == parts_of(body)

    def test_that_were_put_apart_keep_their_blobs(self, blobs):
        """A pod knows by the id what a function needs, and no other pod may hear otherwise."""
        cargo = Cargo(blobs, None)
        code = BODY + b"1"
        first, needed = load(cargo, group_of((1, 7, b"\x80"), functions={7: code}))
        parts = first.needs[-7]
        assert numbers(needed) == parts
        del needed
        assert not blobs.take_gone(), "a pod waits for it"
        second, needed = load(cargo, group_of((2, 7, b"\x80"), functions={7: code}))
        assert second.needs == {-7: parts}
        assert numbers(needed) == parts

    def test_that_are_released_need_nothing_any_more(self, blobs):
        cargo = Cargo(blobs, None)
        body = blobs.dumps(bytes(2 * INLINE_LIMIT))
        (number,) = parts_of(body)
        cargo.load(group_of((1, 7, b"\x80"), functions={7: body}))
        del body
        assert not blobs.take_gone()
        cargo.load(group_of(released=[7]))
        assert blobs.take_gone() == [number]


class TestTheInitializer:
    def test_that_is_small_travels_as_it_is(self, blobs):
        cargo = Cargo(blobs, PickledFunction(0, "prepare", b"\x80small"))
        assert cargo.initializer == b"\x80small"
        _, needed = load(cargo, group_of((1, 7, b"\x80")))
        assert needed == []

    def test_that_is_bulky_is_needed_by_every_call(self, blobs):
        initializer = b"\x80" + bytes(20_000_000)
        cargo = Cargo(blobs, PickledFunction(0, "prepare", initializer))
        assert len(cargo.initializer) < 1000
        (blob,) = blobs_of(cargo.initializer)
        assert blob.data == initializer
        for number in range(2):
            _, needed = load(cargo, group_of((number, 7, b"\x80")))
            assert needed == [blob]

    def test_is_none_where_there_is_none(self, blobs):
        assert Cargo(blobs, None).initializer is None


SIZES = st.sampled_from([1, 100, INLINE_LIMIT // 2, INLINE_LIMIT, INLINE_LIMIT + 1])


class TestNumbers:
    def test_one_message_is_the_last_of_its_group(self, blobs):
        group, _ = load(Cargo(blobs, None), group_of((1, 7, b"\x80"), number=5))
        assert group.number == last_number(5)
        assert group_until(group.number) == 5

    def test_limits_are_reckoned_with_too(self, blobs):
        """Of 170,000 calls without bodies they are half of what travels."""
        calls = range(1 << 48, (1 << 48) + 170_000)
        share = [(number, 7, 0, b"") for number in calls]
        group = Group(3, {}, [], {"pod": (1, share)}, {}, dict.fromkeys(calls, 1.5))
        messages, _ = Cargo(blobs, None).load(group)
        codec = Codec(bytes(32), "client")
        assert all(len(codec.encode(message)) < 5 * 1024 * 1024 for message in messages)
        assert {n: t for message in messages for n, t in message.limits.items()} == group.limits

    def test_before_the_first_group_there_is_none(self):
        assert group_until(0) == -1
        assert group_until(last_number(0)) == 0

    @settings(deadline=None)
    @given(
        pods=st.lists(st.lists(SIZES, max_size=30), min_size=1, max_size=3),
        functions=st.lists(SIZES, max_size=30),
        released=st.lists(st.integers(100, 110), max_size=2, unique=True),
    )
    def test_all_of_a_group_goes_in_messages_that_every_broker_takes(
        self, pods, functions, released
    ):
        call_ids = itertools.count(1)
        shares = {
            f"pod-{n}": (n, [(next(call_ids), 7, 0, bytes(size)) for size in sizes])
            for n, sizes in enumerate(pods)
        }
        expected = {pod: [call[0] for call in calls] for pod, (_, calls) in shares.items()}
        limits = {number: number / 2 for ids in expected.values() for number in ids[::2]}
        bodies = {number: bytes(size) for number, size in enumerate(functions, 1)}
        whole = Group(3, dict(bodies), list(released), shares, {}, dict(limits))
        messages, _ = Cargo(Blobs(), None).load(whole)
        codec = Codec(bytes(32), "client")
        assert all(len(codec.encode(message)) < 5 * 1024 * 1024 for message in messages)
        order = [message.number for message in messages]
        assert order == sorted(set(order))
        assert [group_until(number) for number in order] == [2] * (len(order) - 1) + [3]
        got: dict[str, list[int]] = {pod: [] for pod in expected}
        known: set[int] = set()
        for message in messages:
            known |= message.functions.keys()
            assert not (message.shares and known != bodies.keys()), "calls before their functions"
            for pod, (limit, calls) in message.shares.items():
                assert limit == int(pod[-1])
                got[pod] += [call[0] for call in calls]
                for call in calls:
                    assert message.needs.get(call[0], []) == parts_of(call[3])
            for number, body in message.functions.items():
                assert message.needs.get(-number, []) == parts_of(body)
            assert len(message.shares) == 1 or len(messages) == 1 or not message.shares
            mine = {call[0] for _, calls in message.shares.values() for call in calls}
            assert message.limits == {n: limits[n] for n in mine & limits.keys()}
        assert got == expected
        assert [one for message in messages for one in message.released] == released
