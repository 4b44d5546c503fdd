"""Calls that were lost with their pods: they fail in time, once, and with all that is known."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.losses import KEPT, NEVER, PATIENCE, Losses
from k8sfutures.scheduler_events import Lost

quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)


def a_call(*pods: str, number: int = 1) -> Lost:
    return Lost(number, None, pods)


def some_losses(retries: int = 2, *, explains: bool = True) -> Losses:
    return Losses(retries, explains=explains)


# --- when a call fails


def test_a_call_fails_at_once_where_the_reasons_of_its_pods_are_known() -> None:
    losses = some_losses()
    losses.gone("a", "it was evicted", explained=True)
    losses.lost(a_call("a"), 10.0)
    assert losses.deadline() == 10.0
    assert len(losses.take(10.0)) == 1


def test_a_call_waits_for_the_reasons_of_its_pods_and_no_longer_than_the_patience() -> None:
    losses = some_losses()
    losses.gone("a", "its queue is gone", explained=False)
    losses.lost(a_call("a"), 10.0)
    assert losses.deadline() == 10.0 + PATIENCE
    assert losses.take(10.0 + PATIENCE - 0.01) == []
    ((_, error),) = losses.take(10.0 + PATIENCE)
    assert error.reasons == ("its queue is gone",)


def test_a_call_that_waits_fails_as_soon_as_the_reasons_are_known() -> None:
    losses = some_losses()
    losses.gone("a", "its queue is gone", explained=False)
    losses.lost(a_call("a"), 0.0)
    losses.gone("a", "it was evicted", explained=True)
    ((_, error),) = losses.take(0.1)
    assert error.reasons == ("it was evicted",)


def test_a_call_waits_until_the_last_reason_is_known() -> None:
    losses = some_losses()
    for pod in "ab":
        losses.gone(pod, "its queue is gone", explained=False)
    losses.lost(a_call("a", "b"), 0.0)
    losses.gone("b", "it was evicted", explained=True)
    assert losses.take(1.0) == []
    losses.gone("a", "it crashed", explained=True)
    assert len(losses.take(1.0)) == 1


def test_where_no_reason_can_become_known_a_call_fails_at_once() -> None:
    losses = some_losses(explains=False)
    losses.gone("a", "its queue is gone", explained=False)
    losses.lost(a_call("a"), 10.0)
    assert losses.deadline() == 10.0
    assert len(losses.take(10.0)) == 1


def test_a_call_does_not_wait_for_the_reasons_of_pods_that_were_not_its_own() -> None:
    losses = some_losses()
    losses.gone("a", "it crashed", explained=True)
    losses.gone("b", "its queue is gone", explained=False)
    losses.lost(a_call("a"), 0.0)
    assert len(losses.take(0.0)) == 1


def test_the_deadline_is_that_of_the_call_that_has_waited_longest() -> None:
    losses = some_losses()
    losses.gone("a", "?", explained=False)
    losses.lost(a_call("a", number=1), 5.0)
    losses.lost(a_call("a", number=2), 3.0)
    assert losses.deadline() == 3.0 + PATIENCE


def test_where_no_call_waits_there_is_no_deadline() -> None:
    losses = some_losses()
    losses.gone("a", "?", explained=False)
    assert (losses.deadline(), losses.take(1000.0)) == (NEVER, [])


def test_a_call_fails_once() -> None:
    losses = some_losses()
    losses.lost(a_call("a"), 0.0)
    assert len(losses.take(0.0)) == 1
    assert losses.take(1000.0) == []


def test_at_the_end_all_that_wait_fail() -> None:
    losses = some_losses()
    losses.gone("a", "its queue is gone", explained=False)
    orders = [a_call("a", number=number) for number in range(3)]
    for order in orders:
        losses.lost(order, 0.0)
    assert [order for order, _ in losses.take_all()] == orders
    assert losses.deadline() == NEVER


# --- what its failure says


def test_a_failure_names_its_pods_in_their_order_with_the_reason_of_each() -> None:
    losses = some_losses(2)
    for pod in "bca":
        losses.gone(pod, f"reason of {pod}", explained=True)
    losses.lost(a_call("c", "a", "b"), 0.0, "simulate")
    ((_, error),) = losses.take(0.0)
    assert (error.pods, error.reasons) == (
        ("c", "a", "b"),
        ("reason of c", "reason of a", "reason of b"),
    )
    assert str(error) == (
        "the call of simulate was lost with 3 pods and is not tried again (retries=2); "
        "it may be what ended them:\n"
        "  1. c: reason of c\n  2. a: reason of a\n  3. b: reason of b"
    )


def test_a_call_that_was_lost_with_one_pod_is_not_accused() -> None:
    losses = some_losses(0)
    losses.gone("a", "its node is gone", explained=True)
    losses.lost(Lost(None, (1, 7), ("a",)), 0.0, "simulate")
    ((_, error),) = losses.take(0.0)
    assert str(error) == (
        "item 7 of the map of simulate was lost with 1 pod and is not tried again (retries=0):\n"
        "  1. a: its node is gone"
    )


def test_a_pod_of_which_nothing_is_known_is_told_as_such() -> None:
    losses = some_losses()
    losses.lost(a_call("a"), 0.0)
    ((_, error),) = losses.take(0.0)
    assert error.reasons == ("for no reason that is known",)


@pytest.mark.parametrize(
    ("first", "then", "told"),
    [
        (("guess", False), ("known", True), "known"),
        (("known", True), ("guess", False), "known"),
        (("known", True), ("known later", True), "known"),
        (("guess", False), ("better guess", False), "better guess"),
    ],
)
def test_the_first_reason_that_is_known_counts(
    first: tuple[str, bool], then: tuple[str, bool], told: str
) -> None:
    losses = some_losses()
    for reason, explained in (first, then):
        losses.gone("a", reason, explained=explained)
    losses.lost(a_call("a"), 0.0)
    ((_, error),) = losses.take(NEVER)
    assert error.reasons == (told,)


def test_a_guess_does_not_make_a_call_wait_again_for_what_is_known() -> None:
    losses = some_losses()
    losses.gone("a", "known", explained=True)
    losses.gone("a", "guess", explained=False)
    losses.lost(a_call("a"), 0.0)
    assert len(losses.take(0.0)) == 1


# --- how much is remembered


def test_the_reasons_of_the_newest_pods_are_remembered_and_no_more() -> None:
    losses = some_losses()
    for number in range(KEPT + 2):
        losses.gone(f"pod-{number}", f"reason {number}", explained=True)
    losses.lost(a_call("pod-1", "pod-2", f"pod-{KEPT + 1}"), 0.0)
    ((_, error),) = losses.take(0.0)
    assert error.reasons == ("for no reason that is known", "reason 2", f"reason {KEPT + 1}")
    assert len(losses._reasons) == KEPT


def test_a_call_does_not_wait_for_the_reason_of_a_pod_that_is_not_remembered() -> None:
    losses = some_losses()
    for number in range(KEPT + 1):
        losses.gone(f"pod-{number}", "?", explained=False)
    losses.lost(a_call("pod-0"), 0.0)
    assert len(losses.take(0.0)) == 1
    assert len(losses._unknown) == KEPT


# --- any sequence of events

pods = st.sampled_from("abcd")
events = st.lists(
    st.one_of(
        st.tuples(st.just("gone"), pods, st.booleans()),
        st.tuples(st.just("lost"), st.lists(pods, min_size=1, max_size=3, unique=True)),
        st.tuples(st.just("time"), st.floats(0, PATIENCE)),
    ),
    max_size=30,
)


class Play:
    """Losses that hear events; every call is put to them once, with a number of its own."""

    def __init__(self, *, explains: bool) -> None:
        self.explains = explains
        self.losses = Losses(2, explains=explains)
        self.now = 0.0
        self.since: dict[int, float] = {}
        self.pods: dict[int, tuple[str, ...]] = {}
        self.guessed: set[str] = set()
        self.known: set[str] = set()
        self.failed: list[int] = []

    def happen(self, event: tuple[Any, ...]) -> list[int]:
        """Returns the numbers of the calls that have failed."""
        match event:
            case ("gone", pod, explained):
                self.losses.gone(pod, "because", explained=explained)
                (self.known if explained else self.guessed).add(pod)
            case ("lost", lost_with):
                number = len(self.since)
                self.since[number], self.pods[number] = self.now, tuple(lost_with)
                self.losses.lost(Lost(number, None, tuple(lost_with)), self.now)
            case ("time", seconds):
                self.now += seconds
        new = [order.call for order, _ in self.losses.take(self.now)]
        failed = [number for number in new if number is not None]
        self.failed += failed
        return failed

    def may_wait(self, number: int) -> bool:
        unknown = (self.guessed - self.known).intersection(self.pods[number])
        return bool(unknown) and self.explains


@given(events, st.booleans())
@quick
def test_every_call_fails_once_and_within_the_patience(
    sequence: list[tuple[Any, ...]], explains: bool
) -> None:
    play = Play(explains=explains)
    for event in sequence:
        play.happen(event)
        late = {n for n, since in play.since.items() if since + PATIENCE <= play.now}
        assert late <= set(play.failed)
    play.happen(("time", PATIENCE))
    assert sorted(play.failed) == list(play.since)


@given(events, st.booleans())
@quick
def test_a_call_waits_only_while_a_reason_is_unknown_and_may_become_known(
    sequence: list[tuple[Any, ...]], explains: bool
) -> None:
    play = Play(explains=explains)
    for event in sequence:
        play.happen(event)
        assert all(play.may_wait(number) for number in set(play.since) - set(play.failed))


@given(events, st.booleans())
@quick
def test_calls_that_fail_together_fail_in_the_order_in_which_they_were_lost(
    sequence: list[tuple[Any, ...]], explains: bool
) -> None:
    play = Play(explains=explains)
    for event in sequence:
        failed = play.happen(event)
        assert failed == sorted(failed)


@given(events, st.booleans())
@quick
def test_a_call_that_waits_has_a_deadline_within_the_patience(
    sequence: list[tuple[Any, ...]], explains: bool
) -> None:
    play = Play(explains=explains)
    for event in sequence:
        play.happen(event)
        waiting = set(play.since) - set(play.failed)
        expected = min((play.since[number] + PATIENCE for number in waiting), default=NEVER)
        assert play.losses.deadline() == expected
