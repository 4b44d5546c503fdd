"""What a pod ends before it has ended by itself: only that, and in time."""

import msgpack
import pytest

from k8sfutures.messages import CRASHED, EXCEPTION, RESULT, Attach, Cancel, Group, Results, Returned
from k8sfutures.worker import frames as kinds
from k8sfutures.worker.dispatch import Dispatcher
from k8sfutures.worker.instructions import End, Feed, Send, Steal

F = 1


class Play:
    """One CPU process, which runs nothing before it is told to."""

    def __init__(self, micros=None):
        self.dispatcher = Dispatcher([0])
        self.dispatcher.ready(0)
        self.pipe, self.fed, self.sent, self.said = [], [], [], []
        self.ended = self.halted = False
        self.group_number = 0
        self.dispatcher.attach("c", Attach(("3", 1, "3"), 0, 1e9, None, None, None), 0.0)
        if micros is not None:  # so that more calls go to the process at once
            self.group([(1000, 0)])
            self.hear([(self.claim(), 0, RESULT, micros, b"r")], 0.0)

    def group(self, calls, limits=None, now=0.0):
        self.group_number += 1
        share = 9, [(call_id, F, items, b"") for call_id, items in calls]
        message = Group(self.group_number, {F: b"f"}, [], {}, {}, limits or {})
        self.dispatcher.group("c", message, share, now)
        self.go()

    def claim(self):
        return self.pipe.pop(0)

    def hear(self, frames, now):
        self.dispatcher.frames(0, frames, now)
        self.go()

    def expire(self, now):
        self.dispatcher.expire(now)
        self.go()

    def cancel(self, *calls):
        self.dispatcher.cancel("c", Cancel(list(calls)))
        self.go()

    def go(self):
        while instructions := self.dispatcher.take():
            for one in instructions:
                if isinstance(one, Feed):
                    assert not (self.ended and one.tokens), "work for a process that is ended"
                    assert not (self.halted and one.tokens), "work for a process that is stopped"
                    self.fed += one.frames
                    self.pipe += one.tokens
                elif isinstance(one, Steal):
                    taken, self.pipe = self.pipe[: one.count], self.pipe[one.count :]
                    self.dispatcher.stolen(0, taken)
                elif isinstance(one, End):
                    said, self.said = self.said, []
                    if said:
                        self.dispatcher.frames(0, said, 0.0)
                    self.ended |= self.dispatcher.decide(0)
                elif isinstance(one, Send):
                    self.sent.append(one.message)
        self.dispatcher.validate()

    def halt(self, now=0.0):
        self.halted = True
        self.dispatcher.halted(0, now, stopped=True)
        self.go()

    def go_on(self, now=0.0):
        self.halted = False
        self.dispatcher.halted(0, now, stopped=False)
        self.go()

    def die(self, now=0.0, said=()):
        self.dispatcher.died(0, list(said), self.pipe, {"pid": 5}, [], now)
        self.pipe, self.ended, self.halted = [], False, False
        self.dispatcher.ready(0)
        self.go()

    def outcomes(self):
        self.dispatcher.flush()
        self.go()
        found = [row for one in self.sent if isinstance(one, Results) for row in one.outcomes]
        self.sent.clear()
        return [row for row in found if row[0] != 1000]


@pytest.fixture
def play():
    return Play()


def test_a_process_is_told_which_items_have_a_limit(play):
    play.group([(1, 0)])
    play.hear([(play.claim(), 0, RESULT, 1, b"r")], 0.0)
    assert kinds.TIMED not in [frame[0] for frame in play.fed]
    play.group([(2, 0)], {2: 1.0})
    order = [frame[0] for frame in play.fed]
    assert order.index(kinds.TIMED) < len(order) - 1 == order.index(kinds.JOBS, 2)


def test_the_time_begins_when_the_function_is_called(play):
    play.group([(1, 0)], {1: 5.0}, now=100.0)
    token = play.claim()
    assert play.dispatcher.endings.due() is None
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 200.0)
    assert play.dispatcher.endings.due() == 205.0
    play.expire(204.9)
    assert not play.ended
    play.expire(205.0)
    assert play.ended


def test_what_has_run_for_too_long_is_told_as_such(play):
    play.group([(1, 0)], {1: 5.0})
    play.hear([(play.claim(), 0, kinds.BEGUN, 0, b"")], 200.0)
    play.expire(206.0)
    play.die(206.5)
    ((call_id, item, status, _, body),) = play.outcomes()
    assert (call_id, item, status) == (1, 0, CRASHED)
    assert msgpack.unpackb(body) == {
        "pid": 5,
        "output": "",
        "stack": "",
        "seconds": 6.5,
        "ended": "timeout",
        "limit": 5.0,
    }


def test_a_limit_of_an_item_that_has_ended_means_nothing(play):
    play.group([(1, 2)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b""), (token, 0, RESULT, 9, b"r")], 200.0)
    play.expire(300.0)
    assert not play.ended
    assert play.dispatcher.endings.due() is None


def test_neighbours_of_what_is_ended_run_in_the_next_process():
    play = Play(micros=10)
    play.group([(1, 0), (2, 0), (3, 4)], {1: 5.0})
    play.hear([(play.claim(), 0, kinds.BEGUN, 0, b"")], 200.0)
    assert len(play.pipe) == 5
    play.expire(206.0)
    assert play.ended
    assert play.pipe == []
    play.die()
    assert len(play.pipe) == 5
    assert [row[:3] for row in play.outcomes()] == [(1, 0, CRASHED)]


def test_a_process_that_was_faster_goes_on():
    play = Play(micros=10)
    play.group([(1, 0), (2, 0)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 200.0)
    play.said = [(token, 0, RESULT, 10, b"r")]
    play.claim()
    play.expire(206.0)
    assert not play.ended, "the second call would be ended instead"
    assert [row[:3] for row in play.outcomes()] == [(1, 0, RESULT)]


def test_an_item_that_has_begun_behind_one_of_its_range_that_was_faster_goes_on():
    play = Play(micros=10)
    play.group([(1, 4)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 200.0)
    play.said = [(token, 0, RESULT, 10, b"r"), (play.claim(), 1, kinds.BEGUN, 0, b"")]
    play.expire(206.0)
    assert not play.ended, "the next item would be ended instead"
    assert [row[:3] for row in play.outcomes()] == [(1, 0, RESULT)]
    assert play.dispatcher.endings.due() is not None, "that has its own limit"


def test_what_a_call_raises_as_it_is_ended_is_not_its_outcome(play):
    play.group([(1, 0)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 200.0)
    play.expire(206.0)
    play.hear([(token, 0, EXCEPTION, 9, b"SystemExit")], 206.1)
    play.die()
    assert [row[:3] for row in play.outcomes()] == [(1, 0, CRASHED)]


def test_a_result_that_comes_as_its_process_is_ended_counts(play):
    play.group([(1, 0)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 200.0)
    play.expire(206.0)
    play.hear([(token, 0, RESULT, 9, b"r")], 206.1)
    assert [row[:3] for row in play.outcomes()] == [(1, 0, RESULT)]


def test_calls_that_are_cancelled_come_back_or_are_ended():
    play = Play(micros=10)
    play.group([(1, 0), (2, 0), (3, 0)])
    play.claim()
    play.group([(n, 0) for n in range(10, 12)])
    play.cancel(1, 2, 10, 99)
    assert play.ended
    returned = [call for one in play.sent if isinstance(one, Returned) for call in one.calls]
    assert sorted(returned) == [2, 10]
    play.die()
    ((call_id, _, status, _, body),) = play.outcomes()
    assert (call_id, status) == (1, CRASHED)
    assert msgpack.unpackb(body)["ended"] == "cancelled"
    assert len(play.pipe) == 2, "the others wait"


def test_a_call_that_is_cancelled_as_its_neighbour_runs_harms_nobody():
    play = Play(micros=10)
    play.group([(1, 0), (2, 0)])
    play.claim()
    play.cancel(2)
    assert not play.ended
    assert [one.calls for one in play.sent if isinstance(one, Returned)] == [[2]]


def test_what_is_ended_for_its_time_is_not_ended_once_more_as_it_is_cancelled(play):
    play.group([(1, 0)], {1: 5.0})
    play.hear([(play.claim(), 0, kinds.BEGUN, 0, b"")], 200.0)
    play.expire(206.0)
    play.cancel(1)
    play.die()
    ((*_, body),) = play.outcomes()
    assert msgpack.unpackb(body)["ended"] == "timeout"


def test_a_second_cancellation_changes_nothing(play):
    play.group([(1, 0)])
    play.claim()
    play.cancel(1)
    play.cancel(1)
    play.die()
    assert [row[:3] for row in play.outcomes()] == [(1, 0, CRASHED)]


@pytest.mark.parametrize("heard", [False, True])
def test_how_long_a_call_ran_is_counted_from_the_end_of_the_one_before(heard):
    play = Play(micros=10)
    play.group([(1, 0), (2, 0)], now=10.0)
    said = [(play.claim(), 0, RESULT, 10, b"r")]
    play.claim()
    if heard:
        play.hear(said, 40.0)
    play.die(45.0, [] if heard else said)
    *_, (call_id, _, status, _, body) = play.outcomes()
    assert (call_id, status) == (2, CRASHED)
    assert msgpack.unpackb(body)["seconds"] == (5.0 if heard else 0.0)


def test_what_it_printed_last_does_not_make_it_shorter(play):
    play.group([(1, 0)], now=10.0)
    play.hear([(play.claim(), 0, kinds.PRINTED, 3, b"text")], 40.0)
    play.die(45.0)
    ((*_, body),) = play.outcomes()
    assert msgpack.unpackb(body)["seconds"] == 35.0


# --- processes that somebody has stopped


def test_a_process_that_is_stopped_has_nothing_until_it_goes_on(play):
    play.group([(1, 0)])
    assert len(play.pipe) == 1
    play.halt()
    play.group([(2, 0)])
    assert play.pipe == []
    play.go_on()
    assert len(play.pipe) == 1
    play.hear([(play.claim(), 0, RESULT, 5, b"r")], 0.0)
    play.hear([(play.claim(), 0, RESULT, 5, b"r")], 0.0)
    assert sorted(row[:3] for row in play.outcomes()) == [(1, 0, RESULT), (2, 0, RESULT)]


def test_what_it_has_taken_and_not_begun_has_its_limit_from_then_on(play):
    play.group([(1, 0)], {1: 5.0})
    play.claim()
    assert play.dispatcher.endings.due() is None
    play.halt(now=100.0)
    assert play.dispatcher.endings.due() == 105.0
    play.expire(105.0)
    assert play.ended
    play.die(105.5)
    ((_, _, status, _, body),) = play.outcomes()
    assert (status, msgpack.unpackb(body)["ended"]) == (CRASHED, "timeout")


def test_what_it_has_begun_keeps_its_own(play):
    play.group([(1, 0)], {1: 5.0})
    play.hear([(play.claim(), 0, kinds.BEGUN, 0, b"")], 98.0)
    play.halt(now=100.0)
    assert play.dispatcher.endings.due() == 103.0


def test_a_limit_of_what_has_ended_before_is_none(play):
    play.group([(1, 2)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b""), (token, 0, RESULT, 9, b"r")], 98.0)
    play.claim()
    play.halt(now=100.0)
    assert play.dispatcher.endings.due() == 105.0


def test_what_begins_as_it_goes_on_has_all_its_time(play):
    play.group([(1, 0)], {1: 5.0})
    token = play.claim()
    play.halt(now=100.0)
    play.go_on(now=104.0)
    assert play.dispatcher.endings.due() is None
    play.expire(106.0)
    assert not play.ended
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 106.0)
    assert play.dispatcher.endings.due() == 111.0


def test_one_without_a_limit_waits(play):
    play.group([(1, 0)])
    play.claim()
    play.halt(now=100.0)
    assert play.dispatcher.endings.due() is None
    play.expire(1e6)
    assert not play.ended


def test_an_item_does_not_pay_for_the_one_before_it():
    """A range has one token: the process may be at its next item when the first one is late."""
    play = Play(micros=1)
    play.group([(1, 2)], {1: 5.0})
    token = play.claim()
    play.hear([(token, 0, kinds.BEGUN, 0, b"")], 0.0)
    assert play.claim() == token
    play.said = [(token, 0, RESULT, 5_000_000, b"r"), (token, 1, kinds.BEGUN, 0, b"")]
    play.expire(5.0)
    assert not play.ended
