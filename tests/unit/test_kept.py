from hypothesis import given
from hypothesis import strategies as st

from k8sfutures.bulk_memory import MOST_KEPT, PART_OF_MEMORY
from k8sfutures.worker.kept import Kept, Room


def kept_in(size):
    return Kept(Room(size * PART_OF_MEMORY))


def test_what_is_confirmed_is_not_kept():
    kept = kept_in(10)
    kept.made += 6
    kept.sent(1)
    kept.made += 5
    assert kept.is_full
    kept.sent(2)
    kept.confirmed(0)
    assert kept.size == 11
    kept.confirmed(1)
    assert (kept.size, kept.is_full) == (5, False)
    kept.confirmed(2)
    assert kept.size == 0


def test_what_is_larger_than_the_bound_is_full_until_it_is_confirmed():
    kept = kept_in(10)
    assert not kept.is_full
    kept.made += 1000
    kept.sent(1)
    assert kept.is_full
    kept.confirmed(1)
    assert not kept.is_full


@given(
    st.lists(
        st.tuples(st.just("make"), st.integers(0, 20))
        | st.tuples(st.just("send"), st.integers(1, 3))
        | st.tuples(st.just("confirm"), st.integers(0, 3))
    )
)
def test_it_is_what_was_made_and_is_not_confirmed(steps):
    kept = kept_in(30)
    fresh, sent, number, confirmed = 0, {}, 0, 0
    for step, count in steps:
        if step == "make":
            kept.made += count
            fresh += count
        elif step == "send":  # in several messages
            number += count
            sent[number], fresh = fresh, 0
            kept.sent(number)
        else:  # some are confirmed again
            confirmed = min(number, max(0, confirmed - 1) + count)
            kept.confirmed(confirmed)
            sent = {last: size for last, size in sent.items() if last > confirmed}
        assert kept.size == fresh + sum(sent.values())
        assert kept.is_full == (kept.size >= 30)


def test_clients_share_a_part_of_the_memory_of_their_pod_and_have_no_more_than_without_a_limit():
    room = Room(100 * PART_OF_MEMORY)
    assert room.share == 100
    for clients, share in ((0, 100), (1, 100), (3, 33), (1000, 1)):
        room.divide(clients)
        assert room.share == share, "a call can run, however many they are"
    for large in (Room(None), Room(1 << 40)):
        large.divide(10)
        assert large.share == MOST_KEPT


def test_a_client_that_comes_makes_less_room_for_those_that_are_there():
    room = Room(20 * PART_OF_MEMORY)
    kept = Kept(room)
    kept.made += 15
    assert not kept.is_full
    room.divide(2)
    assert kept.is_full
