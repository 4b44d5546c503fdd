"""Calls that run again: how often, under which id, and the story that their exception tells."""

import itertools

import pytest

from k8sfutures.attempts import FIRST, LAST, LONGEST, Attempt, Attempts, in_words, listed, shortened
from k8sfutures.errors import CallTimeout, PodLost, WorkerCrashed
from k8sfutures.functions import PickledFunction
from k8sfutures.options import Options
from k8sfutures.scheduler_events import Limits, Loss, Settle

FUNCTION = PickledFunction(7, "f", b"")
CALL = (1, 7, 0, b"body")


def lost_with(loss):
    return Attempt(0, loss.pod, "node", None, loss.seconds, "its pod was lost: gone")


@pytest.fixture
def attempts():
    return Attempts(3, lost_with, itertools.count(100).__next__)


def fail(attempts, key, error=None, lost=(), options=None):
    settle = Settle("pod", [], [], {key: tuple(lost)} if lost else {})
    return attempts.failed(key, error or ValueError("boom"), settle, options)


def test_a_call_for_which_nothing_was_chosen_fails_as_it_is(attempts):
    error = ValueError("boom")
    assert fail(attempts, 5, error) is None
    assert not hasattr(error, "__notes__")
    assert not attempts


def test_it_runs_again_under_a_new_id_with_what_is_left(attempts):
    assert attempts.begin(Options(2, (ValueError,), 1.5), CALL, FUNCTION) == Limits(2, 1.5)
    again = fail(attempts, 1)
    assert (again.call, again.limits) == ((100, 7, 0, b"body"), Limits(1, 1.5))
    again = fail(attempts, 100)
    assert (again.call, again.limits) == ((101, 7, 0, b"body"), Limits(0, 1.5))
    assert fail(attempts, 101) is None
    assert not attempts


def test_losses_of_pods_count_against_the_same_number(attempts):
    attempts.begin(Options(2, (ValueError,)), CALL, FUNCTION)
    losses = (Loss("a", 1.0),)
    again = fail(attempts, 1, lost=losses)
    assert (again.limits, again.lost) == (Limits(1, None), losses)
    error = ValueError("last")
    assert fail(attempts, 100, error, lost=losses) is None
    (note,) = error.__notes__
    assert note.splitlines() == [
        "k8sfutures: attempt 3 of 3; those before:",
        "  1. a on node node, after 1 s: its pod was lost: gone",
        "  2. pod: raised ValueError: boom",
    ]


def test_a_call_that_was_lost_before_it_failed_says_so(attempts):
    error = WorkerCrashed("it died", pod="pod", node="n", cpu_id=2, seconds=3.0, exitcode=3)
    assert fail(attempts, 5, error, lost=[Loss("a", 60.0)]) is None
    assert error.attempts == (
        Attempt(1, "a", "node", None, 60.0, "its pod was lost: gone"),
        Attempt(2, "pod", "n", 2, 3.0, "its CPU process exited with code 3"),
    )


def test_subclasses_are_retried_and_nothing_else(attempts):
    class Mine(ValueError):
        pass

    attempts.begin(Options(retry_on=(ValueError,)), CALL, FUNCTION)
    assert fail(attempts, 1, Mine()).call[0] == 100
    assert fail(attempts, 100, KeyError("k")) is None


def test_a_class_that_claims_everything_is_not_asked(attempts):
    class Meta(type):
        def __instancecheck__(cls, _instance):
            raise AssertionError("user code on our thread")

    class Odd(Exception, metaclass=Meta):
        pass

    attempts.begin(Options(retry_on=(Odd,)), CALL, FUNCTION)
    assert fail(attempts, 1) is None


def test_an_item_runs_again_too(attempts):
    options = Options(1, (CallTimeout,), 2.0)
    again = fail(attempts, (3, 9), CallTimeout("late", timeout=2.0), options=options)
    assert (again.call, again.map_item, again.limits) == (None, (3, 9), Limits(0, 2.0))
    error = CallTimeout("late", timeout=2.0)
    assert fail(attempts, (3, 9), error, options=options) is None
    assert [one.outcome for one in error.attempts] == ["it ran for longer than timeout=2 s"] * 2


def test_a_map_that_nobody_wants_is_forgotten(attempts):
    options = Options(retry_on=(ValueError,))
    fail(attempts, (3, 9), options=options)
    fail(attempts, (4, 9), options=options)
    attempts.forget_map(3)
    assert attempts
    attempts.forget_map(4)
    assert not attempts


def test_what_is_lost_for_good_has_the_story_of_what_it_raised_before(attempts):
    attempts.begin(Options(1, (ValueError,)), CALL, FUNCTION)
    fail(attempts, 1)
    error = PodLost("lost", attempts=(lost_with(Loss("a", 1.0)),))
    attempts.lost(100, error)
    assert [one.number for one in error.attempts] == [1, 2]
    assert "1. pod: raised ValueError: boom" in error.__notes__[0]
    assert not attempts


def test_a_function_is_held_back_while_a_call_may_run_again(attempts):
    attempts.begin(Options(retry_on=(ValueError,)), CALL, FUNCTION)
    assert attempts.hold_back(7)
    assert not attempts.hold_back(8)
    fail(attempts, 1)
    assert attempts.take_dropped() == []
    attempts.forget(100)
    assert attempts.take_dropped() == [7]
    assert not attempts.hold_back(7)


def test_a_thousand_attempts_are_told_in_a_few_lines(attempts):
    attempts.begin(Options(999, (ValueError,)), CALL, FUNCTION)
    key, error = 1, ValueError("x" * 10_000)
    while again := fail(attempts, key, error):
        key = again.call[0]
    (note,) = error.__notes__
    assert note.startswith("k8sfutures: attempt 1000 of 1000;")
    assert f"  … {1000 - FIRST - LAST} more" in note
    assert len(note) < (FIRST + LAST + 3) * (LONGEST + 60)


def test_a_text_that_cannot_be_had(attempts):
    class Odd(Exception):
        def __str__(self):
            raise ValueError

    attempts.begin(Options(1, (Odd,)), CALL, FUNCTION)
    fail(attempts, 1, Odd())
    error = Odd()
    fail(attempts, 100, error)
    assert "raised Odd: (its text cannot be had)" in error.__notes__[0]


def test_a_few_are_listed_whole():
    few = [Attempt(number, "p", None, None, None, "x") for number in range(1, 4)]
    assert shortened(few) == few
    assert listed(few) == "\n  1. p: x\n  2. p: x\n  3. p: x"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.00123, "0.0012 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.9, "60 s"),
        (61, "1 min 1 s"),
        (7300, "2 h 1 min"),
    ],
)
def test_times_in_words(seconds, words):
    assert in_words(seconds) == words
