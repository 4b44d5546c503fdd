from hypothesis import given
from hypothesis import strategies as st

from k8sfutures.worker.kept import Kept


def test_what_is_confirmed_is_not_kept():
    kept = Kept(10)
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
    kept = Kept(10)
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
    kept = Kept(30)
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
