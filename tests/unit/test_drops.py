"""What the log says of messages that were dropped."""

from k8sfutures.drops import QUIET, Drops


def test_the_first_is_told_at_once_and_those_that_follow_are_counted():
    drops = Drops()
    assert drops.note("a", 100.0) == "dropped a message: a"
    assert [drops.note("b", 100.0 + QUIET / 2) for _ in range(5)] == [""] * 5
    assert drops.note("c", 100.0 + QUIET) == "dropped a message: c (and 5 more before it)"
    assert drops.note("d", 200.0) == "dropped a message: d"
    assert drops.last == "d"
