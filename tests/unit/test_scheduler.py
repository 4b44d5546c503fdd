"""What the scheduler promises, by example."""

import pytest

from k8sfutures import scheduler as module
from k8sfutures.messages import CRASHED, RESULT
from k8sfutures.scheduler import Scheduler
from k8sfutures.scheduler_events import (
    Again,
    Arrived,
    Cancelled,
    CancelPending,
    Dispatch,
    FunctionsDropped,
    GivenBack,
    ItemsMeasured,
    Limits,
    Loss,
    Lost,
    MapDropped,
    MapGrown,
    PodGone,
    PodJoined,
    PodReported,
    Range,
    Recalled,
    Retried,
    Settle,
    Submitted,
    Withdrawn,
)
from k8sfutures.scheduler_records import LONGEST_RANGE, RANGE, RANGE_BYTES, WINDOW

F, G = 1, 2


def calls(*ids, function=F, size=1):
    return [(call_id, function, 0, b"x" * size) for call_id in ids]


def done(*ids, micros=100, status=RESULT):
    return [(call_id, 0, status, micros, b"r") for call_id in ids]


class Play:
    """A scheduler whose last dispatch is at hand."""

    def __init__(self, pods=None, **arguments):
        self.scheduler = Scheduler(**arguments)
        for pod, slots in (pods or {}).items():
            self.handle(PodJoined(pod, slots))

    def handle(self, event):
        out = self.scheduler.handle(event)
        self.scheduler.validate()
        orders = [one for one in out if isinstance(one, Dispatch)]
        self.order = orders[0] if orders else None
        return out

    def submit(self, *ids, **arguments):
        self.handle(Submitted(calls(*ids, **arguments)))
        return self.sent()

    def sent(self):
        """Pod to ids of what the last event sent there."""
        if self.order is None:
            return {}
        return {pod: [call[0] for call in share[1]] for pod, share in self.order.shares.items()}

    def learn(self, micros, pod="a", function=F):
        """Let one call of a function take so long."""
        self.submit(10_000 + function, function=function)
        self.handle(Arrived(pod, done(10_000 + function, micros=micros)))

    def ranges(self):
        return [] if self.order is None else list(self.order.ranges.values())

    def finish_all(self, micros=100):
        """Let pods run everything; returns the final outcomes by call id or map item."""
        ends = {}
        while not self.scheduler.idle:
            for pod in ("a", "b"):
                outcomes = []
                for call_id in self.scheduler.in_flight(pod):
                    state = self.scheduler._backlog.ranges.get(call_id)
                    items = range(state.cut.items) if state else [0]
                    outcomes += [(call_id, item, RESULT, micros, b"r") for item in items]
                for one in self.handle(Arrived(pod, outcomes)):
                    if isinstance(one, Settle):
                        for call in one.calls:
                            assert ends.setdefault(call[0], call) is call
                        for item in one.items:
                            assert ends.setdefault(item[:2], item) is item
        return ends


class TestAssignment:
    def test_nothing_is_sent_without_pods(self):
        play = Play()
        assert play.submit(1, 2) == {}
        assert play.scheduler.waiting == 2
        play.handle(PodJoined("a", 2))
        assert play.sent() == {"a": [1, 2]}

    def test_first_come_first_served(self):
        play = Play({"a": 1})
        assert play.submit(1, 2, 3) == {"a": [1]}
        for call_id in (1, 2):
            play.handle(Arrived("a", done(call_id, micros=10**6)))
            assert play.sent() == {"a": [call_id + 1]}

    def test_one_group_for_all_pods(self):
        play = Play({"a": 2, "b": 1})
        assert play.submit(1, 2, 3) == {"a": [1, 2], "b": [3]}
        assert play.order.number == play.scheduler.group == 1

    def test_the_pod_with_the_most_free_slots_comes_first(self):
        play = Play({"a": 1, "b": 3})
        assert play.submit(1) == {"b": [1]}

    @pytest.mark.parametrize("micros", [None, 1_000_000])
    def test_long_and_unknown_calls_go_one_to_a_slot(self, micros):
        play = Play({"a": 2})
        if micros:
            play.learn(micros)
        assert play.submit(1, 2, 3, 4) == {"a": [1, 2]}
        play.handle(Arrived("a", done(2, micros=1_000_000)))
        assert play.sent() == {"a": [3]}

    def test_short_calls_are_prefetched_for_one_window(self):
        play = Play({"a": 1})
        play.learn(1_000)
        count = round(WINDOW / 0.001)
        sent = play.submit(*range(1, 100))["a"]
        assert sent == list(range(1, len(sent) + 1))
        assert len(sent) in {count - 1, count}  # the last may not fit by a rounding error

    def test_a_pod_is_topped_up_at_half(self):
        play = Play({"a": 1})
        play.learn(1_000)
        sent = play.submit(*range(1, 100))["a"]
        play.handle(Arrived("a", done(*sent[:8], micros=1_000)))
        assert play.order is None
        play.handle(Arrived("a", done(*sent[8:12], micros=1_000)))
        assert len(play.sent()["a"]) in {11, 12}

    def test_bytes_count_too(self):
        play = Play({"a": 1})
        play.learn(20)
        assert len(play.submit(*range(1, 100), size=1_000_000)["a"]) <= 3

    def test_what_is_prefetched_is_shared_between_pods(self):
        play = Play({"a": 1, "b": 1})
        play.learn(20)
        sent = play.submit(*range(1, 101))
        assert [len(sent[pod]) for pod in ("a", "b")] == [50, 50]

    def test_max_workers_bounds_all_pods_together(self):
        play = Play({"a": 2, "b": 2}, max_workers=3)
        sent = play.submit(*range(1, 10))
        assert sorted(map(len, sent.values())) == [1, 2]
        assert {pod: share[0] for pod, share in play.order.shares.items()} == {"a": 2, "b": 1}
        assert play.scheduler.statistics().slots == 3

    def test_a_lost_pod_leaves_its_part_of_max_workers(self):
        play = Play({"a": 2, "b": 2}, max_workers=2)
        assert play.submit(1, 2, 3) == {"a": [1, 2]}
        play.handle(PodGone("a"))
        assert play.sent() == {"b": [1, 2]}


class TestFunctions:
    def test_a_function_goes_to_a_pod_once(self):
        play = Play({"a": 1, "b": 1})
        play.submit(1)
        assert play.order.functions == [F]
        play.submit(2)  # on the other pod
        assert play.order.functions == [F]
        play.handle(Arrived("a", done(1)))
        play.submit(3)
        assert play.order.functions == []

    def test_a_pod_that_may_have_lost_messages_is_sent_functions_again(self):
        play = Play({"a": 1})
        play.submit(1)
        play.handle(PodReported("a", 1, frozenset()))
        assert play.sent() == {"a": [1]}
        assert play.order.functions == [F]

    def test_dropped_functions_are_released_in_bulk_when_unused(self, monkeypatch):
        monkeypatch.setattr(module, "KEPT_FUNCTIONS", 1)
        play = Play({"a": 3})
        play.submit(1, function=1)
        play.submit(2, function=2)
        play.handle(Arrived("a", done(2)))
        play.handle(FunctionsDropped([1]))
        play.submit(3, function=3)
        assert play.order.released == []
        play.handle(FunctionsDropped([2]))
        play.submit(4, function=4)
        assert play.order.released == [2]  # call 1 still runs
        play.handle(Arrived("a", done(4)))
        play.submit(5, function=2)
        assert play.order.functions == [2]

    def test_looking_for_what_to_release_is_no_burden_while_much_waits(self, monkeypatch):
        play = Play({"a": 1})
        looks = []
        functions = play.scheduler._backlog.functions
        monkeypatch.setattr(
            play.scheduler._backlog, "functions", lambda: looks.append(1) or functions()
        )
        for call_id in range(1, 2_001):
            play.scheduler.handle(Submitted(calls(call_id, function=call_id)))
            play.scheduler.handle(FunctionsDropped([call_id]))
        for call_id in range(1, 2_001):
            play.scheduler.handle(Arrived("a", done(call_id)))
        assert play.scheduler.idle
        assert len(looks) < 500


class TestMaps:
    def test_ranges_are_of_one_item_until_a_duration_is_known(self):
        play = Play({"a": 2})
        play.handle(MapGrown(1, F, 100))
        assert play.ranges() == [Range(1, 0, 1), Range(1, 1, 1)]

    def test_then_they_are_sized_by_time(self):
        play = Play({"a": 2})
        play.learn(1_000)
        play.handle(MapGrown(1, F, 1_000))
        assert {cut.items for cut in play.ranges()} == {round(RANGE / 0.001)}

    def test_never_longer_than_a_fair_part_of_the_rest(self):
        play = Play({"a": 2})
        play.learn(1)
        play.handle(MapGrown(1, F, 80))
        assert play.ranges()[0].items == 10

    def test_never_longer_than_the_bound(self):
        play = Play({"a": 1})
        play.learn(0)
        play.handle(MapGrown(1, F, 10**6))
        assert max(cut.items for cut in play.ranges()) <= LONGEST_RANGE

    def test_of_bulky_items_no_more_than_so_many_bytes(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 1000))
        play.handle(ItemsMeasured(1, RANGE_BYTES // 5))
        (first,) = play.scheduler.in_flight("a")
        play.handle(Arrived("a", [(first, 0, RESULT, 1, b"r")]))
        assert {cut.items for cut in play.ranges()} == {5}

    def test_chunksize_is_honoured(self):
        play = Play({"a": 4})
        play.handle(MapGrown(1, F, 10, 4))
        assert play.ranges() == [Range(1, 0, 4), Range(1, 4, 4), Range(1, 8, 2)]

    def test_each_item_ends_once_whatever_the_order(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 3, 3))
        ((call_id, _, _, _),) = play.order.shares["a"][1]
        order = [(call_id, item, RESULT, 5, b"%d" % item) for item in (2, 0, 2, 1, 1)]
        (settle,) = play.handle(Arrived("a", order))
        assert settle.items == [(1, 2, 0, b"2"), (1, 0, 0, b"0"), (1, 1, 0, b"1")]
        assert play.scheduler.idle

    def test_a_lost_range_comes_back_item_by_item(self):
        play = Play({"a": 1}, retries=1)
        play.handle(MapGrown(1, F, 4, 4))
        ((call_id, _, _, _),) = play.order.shares["a"][1]
        play.handle(Arrived("a", [(call_id, 1, RESULT, 5, b"r")]))
        play.handle(PodGone("a"))
        play.handle(PodJoined("b", 4))
        assert play.ranges() == [Range(1, 0, 1), Range(1, 2, 1), Range(1, 3, 1)]
        lost = play.handle(PodGone("b"))
        assert lost == [Lost(None, (1, index), ("a", "b"), (0.0, 0.0), 1, 1) for index in (0, 2, 3)]
        assert play.scheduler.idle

    def test_a_range_given_back_whole_stays_whole(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 4, 4))
        (call_id,) = play.sent()["a"]
        play.handle(GivenBack("a", [call_id]))
        assert play.ranges() == [Range(1, 0, 4)]
        assert play.sent()["a"] != [call_id]

    def test_a_dropped_map_is_forgotten(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 10))
        play.handle(MapDropped(1))
        play.handle(MapDropped(1))
        assert play.scheduler.waiting == 0
        play.handle(PodGone("a"))
        assert play.scheduler.idle
        assert play.scheduler.position(1) == 0

    def test_a_map_that_grows_waits_behind_what_came_before(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 1))
        play.submit(1, 2)
        play.handle(MapGrown(1, F, 1))
        order = []
        while not play.scheduler.idle:
            (call_id,) = play.scheduler.in_flight("a")
            order.append(min(call_id, 100))
            play.handle(Arrived("a", done(call_id, micros=10**6)))
        assert order == [100, 1, 2, 100]
        assert play.scheduler.position(1) == 2

    def test_every_item_ends(self):
        play = Play({"a": 2, "b": 3})
        play.handle(MapGrown(1, F, 5_000))
        play.submit(*range(1, 500))
        ends = play.finish_all()
        assert len(ends) == 5_499


class TestFaults:
    def test_a_lost_call_goes_first_and_then_is_lost_for_good(self):
        play = Play({"a": 1}, retries=1)
        play.submit(1, 2)
        play.handle(PodGone("a"))
        play.handle(PodJoined("b", 1))
        assert play.sent() == {"b": [1]}
        assert play.handle(PodGone("b")) == [Lost(1, None, ("a", "b"), (0.0, 0.0), 1, 1)]
        play.handle(PodJoined("c", 1))
        assert play.sent() == {"c": [2]}

    def test_without_retries_a_call_is_lost_at_once(self):
        play = Play({"a": 1}, retries=0)
        play.submit(1)
        assert play.handle(PodGone("a")) == [Lost(1, None, ("a",), (0.0,), 0, 1)]

    def test_what_never_arrived_is_sent_again_and_counts_as_no_loss(self):
        play = Play({"a": 2}, retries=0)
        play.submit(1)
        play.submit(2)
        play.handle(PodReported("a", 1, frozenset()))
        assert play.sent() == {"a": [1]}
        assert sorted(play.scheduler.in_flight("a")) == [1, 2]

    def test_stale_outcomes_are_ignored(self):
        play = Play({"a": 1, "b": 1})
        play.submit(1)
        pod = next(iter(play.sent()))
        other = {"a": "b", "b": "a"}[pod]
        assert play.handle(Arrived(other, done(1))) == []
        assert play.handle(Arrived("unknown", done(1))) == []
        (settle,) = play.handle(Arrived(pod, done(1)))
        assert settle == Settle(pod, [(1, F, RESULT, b"r")], [])
        assert play.handle(Arrived(pod, done(1))) == []

    def test_a_crash_says_nothing_about_durations(self):
        play = Play({"a": 1})
        play.submit(1)
        play.handle(Arrived("a", done(1, micros=0, status=CRASHED)))
        assert play.submit(2, 3, 4) == {"a": [2]}

    def test_cancelled_at_dispatch(self):
        play = Play({"a": 1})
        play.submit(1, 2)
        play.handle(Withdrawn([1]))
        assert play.sent() == {"a": [2]}

    def test_events_about_unknown_pods_change_nothing(self):
        play = Play({"a": 1})
        for event in (
            PodGone("x"),
            PodReported("x", 1, frozenset({1})),
            GivenBack("x", [1], draining=True),
        ):
            assert play.handle(event) == []
        assert play.scheduler.in_flight("x") == []

    def test_joining_twice_changes_nothing(self):
        play = Play({"a": 1})
        play.submit(1)
        play.handle(PodJoined("a", 4))
        assert play.scheduler.statistics().slots == 1
        assert play.scheduler.in_flight("a") == [1]

    def test_cancel_pending_keeps_what_has_run_before(self):
        play = Play({"a": 1})
        play.submit(1, 2)
        play.handle(MapGrown(1, G, 5))
        play.handle(PodGone("a"))
        play.handle(CancelPending(frozenset({1})))
        assert play.scheduler.waiting == 1
        play.handle(PodJoined("b", 3))
        assert play.sent() == {"b": [1]}

    def test_cancel_pending_keeps_items_that_were_dispatched(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 5))
        play.handle(PodGone("a"))
        play.handle(CancelPending(frozenset()))
        play.handle(PodJoined("b", 3))
        assert play.ranges() == [Range(1, 0, 1)]


class TestDraining:
    def test_a_pod_that_drains_is_given_nothing_more(self):
        play = Play({"a": 2})
        play.submit(1, 2)
        play.handle(GivenBack("a", [2], draining=True))
        assert play.order is None
        play.handle(PodJoined("b", 1))
        assert play.sent() == {"b": [2]}
        play.handle(Arrived("a", done(1)))
        play.submit(3)
        assert play.order is None

    def test_it_keeps_its_part_of_max_workers_while_it_runs_something(self):
        play = Play({"a": 2, "b": 2}, max_workers=2)
        play.submit(1, 2, 3)
        play.handle(GivenBack("a", [2], draining=True))
        assert play.sent() == {"b": [2]}
        play.handle(Arrived("a", done(1, micros=10**6)))
        assert play.sent() == {"b": [3]}

    def test_calls_that_were_recalled_do_not_make_it_drain(self):
        play = Play({"a": 1})
        play.submit(1)
        play.handle(GivenBack("a", [1]))
        assert play.sent() == {"a": [1]}


def test_a_group_number_is_not_spent_on_nothing():
    play = Play({"a": 1})
    play.submit(1)
    play.submit(2)
    assert play.scheduler.group == 1
    play.handle(Arrived("a", done(1)))
    assert play.scheduler.group == 2


class TestLimits:
    def test_a_call_has_retries_of_its_own(self):
        play = Play({"a": 2}, retries=0)
        play.handle(Submitted(calls(1, 2), {1: Limits(retries=1)}))
        assert play.handle(PodGone("a")) == [Lost(2, None, ("a",), (0.0,), 0, 1)]
        play.handle(PodJoined("b", 2))
        assert play.sent() == {"b": [1]}

    def test_a_limit_travels_with_each_dispatch_and_with_nothing_else(self):
        play = Play({"a": 4})
        play.handle(Submitted(calls(1, 2), {1: Limits(timeout=2.0)}))
        assert play.order.limits == {1: 2.0}
        play.handle(PodGone("a"))
        play.handle(PodJoined("b", 4))
        assert play.order.limits == {1: 2.0}
        play.submit(3)
        assert play.order.limits == {}

    def test_so_does_that_of_a_map(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 3, 3, Limits(timeout=2.0)))
        assert list(play.order.limits.values()) == [2.0]
        play.handle(PodGone("a"))
        play.handle(PodJoined("b", 4))
        assert list(play.order.limits.values()) == [2.0] * 3

    def test_what_a_pod_gives_back_of_a_range_keeps_its_limit(self):
        """Where some of its items have their outcomes, and where none has."""
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 3, 3, Limits(timeout=2.0)))
        for done_items in (1, 0):
            (call_id,) = play.scheduler.in_flight("a")[:1]
            outcomes = [(call_id, item, RESULT, 0, b"r") for item in range(done_items)]
            play.handle(Arrived("a", outcomes))
            play.handle(GivenBack("a", play.scheduler.in_flight("a")))
            assert set(play.order.limits) == {
                call[0] for _, calls in play.order.shares.values() for call in calls
            }
            assert set(play.order.limits.values()) == {2.0}

    def test_losses_are_told_with_a_failure_and_remembered_as_it_runs_again(self):
        play = Play({"a": 1}, retries=2)
        play.submit(1)
        play.handle(PodGone("a"))
        play.handle(PodJoined("b", 1))
        (settle,) = play.handle(Arrived("b", done(1, status=CRASHED)))
        assert settle.lost == {1: (Loss("a", 0.0),)}
        again = Retried(calls(5)[0], None, Limits(1), settle.lost[1])
        play.handle(Again([again]))
        assert play.sent() == {"b": [5]}
        assert play.handle(PodGone("b")) == [Lost(5, None, ("a", "b"), (0.0, 0.0), 1, 1)]

    def test_losses_are_told_with_the_time_since_the_call_was_given(self):
        scheduler = Scheduler(retries=0)
        scheduler.handle(PodJoined("a", 1), 10.0)
        scheduler.handle(Submitted(calls(1)), 20.0)
        (lost,) = scheduler.handle(PodGone("a"), 25.5)
        assert lost.seconds == (5.5,)

    def test_an_item_runs_again_before_all_others(self):
        play = Play({"a": 1})
        play.handle(MapGrown(1, F, 3, 1))
        ((call_id, *_),) = play.order.shares["a"][1]
        play.handle(Arrived("a", [(call_id, 0, CRASHED, 0, b"")]))
        play.handle(Again([Retried(None, (1, 0), Limits(1, 3.0), ())]))
        play.handle(Arrived("a", done(*play.scheduler.in_flight("a"))))
        assert play.ranges()[0] == Range(1, 0, 1)
        assert 3.0 in play.order.limits.values()

    def test_an_item_of_a_map_that_nobody_waits_for_does_not(self):
        play = Play({"a": 1})
        play.handle(Again([Retried(None, (1, 0), Limits(), ())]))
        assert play.order is None


class TestCancelled:
    def test_what_waits_is_forgotten(self):
        play = Play()
        play.submit(1, 2)
        assert play.handle(Cancelled([1])) == []
        play.handle(PodJoined("a", 4))
        assert play.sent() == {"a": [2]}

    def test_a_pod_is_told_of_what_it_has_and_keeps_its_slot_until_that_ends(self):
        play = Play({"a": 1})
        play.submit(1)
        assert play.handle(Cancelled([1])) == [Recalled("a", [1])]
        assert play.scheduler.in_flight("a") == [1]
        play.handle(Arrived("a", done(1, status=CRASHED)))
        assert play.scheduler.idle

    def test_what_comes_back_is_not_sent_again(self):
        play = Play({"a": 1})
        play.submit(1)
        play.handle(Cancelled([1]))
        play.handle(GivenBack("a", [1]))
        assert play.scheduler.idle
        assert play.order is None

    def test_nor_is_what_is_lost(self):
        play = Play({"a": 1}, retries=0)
        play.submit(1)
        play.handle(Cancelled([1]))
        assert play.handle(PodGone("a")) == []
        assert play.scheduler.idle

    def test_a_pod_that_comes_back_with_it_is_told_again(self):
        play = Play({"a": 1})
        play.submit(1)
        play.handle(Cancelled([1]))
        assert play.handle(PodReported("a", 1, frozenset({1}))) == [Recalled("a", [1])]
        assert play.handle(PodReported("a", 1, frozenset())) == []
        assert play.scheduler.idle
