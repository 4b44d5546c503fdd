import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures import arrivals as module
from k8sfutures.arrivals import Arrivals
from k8sfutures.bodies import with_parts
from k8sfutures.lanes import CREDIT_EVERY, Bulk, Lane, weight_of
from k8sfutures.messages import CHUNK_SIZE, CRASHED, RESULT, Results


def bulky(call: int, memory: bytes, status: int = RESULT):
    """The outcome of a call, and the chunks that come ahead of it."""
    bulk = Bulk(call, 0, memory)
    return (call, 0, status, 1, with_parts([0], [], [len(memory)])), list(iter(bulk.next, None))


def small(call: int):
    return (call, 0, RESULT, 1, b"\x80small")


class TestResults:
    def test_come_with_their_parts(self):
        arrivals = Arrivals(0)
        memory = bytes(range(256)) * 8000
        outcome, chunks = bulky(7, memory)
        for chunk in chunks:
            arrivals.chunk(chunk)
        small_one, whole = arrivals.results(Results(1, [small(1), outcome]), 9)
        assert small_one == small(1)
        assert whole[:4] == (7, 0, RESULT, 1)
        assert whole[4].memory == memory
        assert arrivals.number == 1

    def test_whose_parts_are_missing_count_for_lost(self):
        arrivals = Arrivals(0)
        outcome, chunks = bulky(7, bytes(3 * CHUNK_SIZE))
        for chunk in chunks[1:]:
            arrivals.chunk(chunk)
        assert arrivals.results(Results(1, [small(1), outcome]), 9) is None
        assert arrivals.number == 0

    def test_that_were_here_before_are_none(self):
        arrivals = Arrivals(3)
        assert arrivals.results(Results(3, [small(1)]), 9) == []

    def test_wait_for_what_was_said_before_them_and_is_lost(self):
        arrivals = Arrivals(3)
        assert arrivals.results(Results(5, [small(1)]), 9) is None
        assert arrivals.number == 3
        assert arrivals.printed(4)
        assert arrivals.results(Results(5, [small(1)]), 9) == [small(1)]

    def test_of_a_crash_have_no_parts_whatever_they_look_like(self):
        outcome = (1, 0, CRASHED, 0, b"\x01")
        assert Arrivals(0).results(Results(1, [outcome]), 9) == [outcome]

    def test_come_again_after_a_connection_was_lost(self):
        arrivals = Arrivals(0)
        outcome, chunks = bulky(7, bytes(3 * CHUNK_SIZE))
        arrivals.chunk(chunks[0])
        arrivals.begin_anew()
        arrivals.chunk(chunks[2])
        assert arrivals.results(Results(1, [outcome]), 9) is None
        arrivals.resume(0)
        for chunk in chunks:
            arrivals.chunk(chunk)
        assert len(arrivals.results(Results(1, [outcome]), 9)) == 1
        assert arrivals.number == 1


class TestOutput:
    def test_comes_once_whatever_comes_again(self):
        arrivals = Arrivals(0)
        assert arrivals.printed(1)
        assert arrivals.results(Results(2, [small(1)]), 9) == [small(1)]
        assert arrivals.printed(3)
        arrivals.begin_anew()
        arrivals.resume(0)  # nothing was confirmed yet, so all comes again
        assert not arrivals.printed(1)
        arrivals.results(Results(2, [small(1)]), 9)
        assert not arrivals.printed(3)
        assert arrivals.number == 3
        assert arrivals.printed(4)

    def test_waits_for_what_was_before_it(self):
        arrivals = Arrivals(0)
        assert arrivals.printed(2) is None
        assert arrivals.number == 0
        arrivals.resume(0)
        assert arrivals.printed(1)
        assert arrivals.printed(2)

    def test_of_a_pod_that_has_let_go_of_us_is_new(self):
        arrivals = Arrivals(0)
        assert arrivals.printed(1)
        arrivals.resume(0, afresh=True)
        assert arrivals.printed(1)


@given(st.data())
def test_whatever_is_lost_no_outcome_is_wrong_and_none_is_confirmed_that_is_not_here(data):
    """Chunks and results of several calls, of which some never arrive."""
    calls = data.draw(st.integers(1, 4))
    stream = []
    bodies = {}
    for call in range(1, calls + 1):
        bodies[call] = bytes([call]) * data.draw(
            st.sampled_from([1, CHUNK_SIZE, CHUNK_SIZE + 1, 2 * CHUNK_SIZE])
        )
        outcome, chunks = bulky(call, bodies[call])
        stream += [*chunks, Results(call, [outcome])]
    kept = data.draw(st.lists(st.booleans(), min_size=len(stream), max_size=len(stream)))
    arrivals = Arrivals(0)
    here = set()
    for message in itertools.compress(stream, kept):
        if isinstance(message, Results):
            for call, _, _, _, whole in arrivals.results(message, 9) or []:
                assert whole.memory == bodies[call]
                here.add(call)
        else:
            arrivals.chunk(message)
    assert set(range(1, arrivals.number + 1)) <= here


@pytest.mark.parametrize(("size", "memory"), [(6, 0), (1, 5), (0, 6)])
def test_the_pod_is_told_of_much_before_a_second_has_passed(monkeypatch, size, memory):
    monkeypatch.setattr(module, "CONFIRM_EVERY", 10)
    arrivals = Arrivals(0)
    told = []
    for number in range(1, 5):
        outcome, chunks = bulky(number, bytes(memory)) if memory else (small(number), ())
        for chunk in chunks:
            arrivals.chunk(chunk)
        arrivals.results(Results(number, [outcome]), size)
        told.append(arrivals.must_confirm())
    assert told == [False, True, False, True]


def test_what_is_large_together_is_credited_as_the_pod_counts_it():
    pods_side, arrivals = Lane(), Arrivals(0)
    told = sent = 0
    for number, size in enumerate([10, 70_000, 200_000] * 40, 1):
        message = Results(number, [(number, 0, RESULT, 1, bytes(size)), small(-number)])
        weight = weight_of(sum(len(outcome[4]) for outcome in message.outcomes))
        pods_side.put(message, weight)
        assert list(pods_side.take()) == [message]
        sent += weight
        told += (credit := arrivals.taken(message, size + 50))
        pods_side.credit(credit)
    assert sent - CREDIT_EVERY < told <= sent


def test_what_is_small_is_confirmed_by_and_by():
    arrivals = Arrivals(0)
    arrivals.results(Results(1, [small(1)]), 9)
    assert not arrivals.must_confirm()
