"""A call that ends every pod it meets costs nobody else his retries."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.messages import RESULT
from k8sfutures.scheduler import Scheduler
from k8sfutures.scheduler_events import (
    Arrived,
    CancelPending,
    Dispatch,
    GivenBack,
    Limits,
    Lost,
    MapDropped,
    MapGrown,
    PodGone,
    PodJoined,
    Settle,
    Submitted,
    Withdrawn,
)

quick = settings(deadline=None, derandomize=True, database=None, max_examples=300)
F = 1


class Play:
    """A scheduler, its pods, and what has become of its calls."""

    def __init__(self, *slots: int, retries: int = 2, max_workers: int | None = None) -> None:
        self.scheduler = Scheduler(retries=retries, max_workers=max_workers)
        self.sent: dict[str, list[int]] = {}
        self.settled: list[int] = []
        self.lost: list[Lost] = []
        self.names = 0
        for count in slots:
            self.join(count)

    def handle(self, event: Any) -> None:
        self.sent = {}
        for one in self.scheduler.handle(event):
            if isinstance(one, Dispatch):
                self.sent = {
                    pod: [call[0] for call in calls] for pod, (_, calls) in one.shares.items()
                }
            elif isinstance(one, Settle):
                self.settled += [call[0] for call in one.calls]
            elif isinstance(one, Lost):
                self.lost.append(one)
        self.scheduler.validate()

    def join(self, slots: int) -> str:
        self.names += 1
        self.handle(PodJoined(f"pod-{self.names}", slots))
        return f"pod-{self.names}"

    def submit(self, *ids: int, limits: Limits | None = None) -> None:
        chosen = {} if limits is None else dict.fromkeys(ids, limits)
        self.handle(Submitted([(call_id, F, 0, b"x") for call_id in ids], chosen))

    def finish(self, pod: str, *ids: int) -> None:
        self.handle(Arrived(pod, [(call_id, 0, RESULT, 10_000_000, b"r") for call_id in ids]))

    def lose(self, pod: str) -> None:
        self.handle(PodGone(pod))

    def has(self, pod: str) -> list[int]:
        return self.scheduler.in_flight(pod)


def twice_lost(*ids: int, slots: int = 2, **arguments: Any) -> Play:
    """Calls that two pods have gone with; there is no pod now."""
    play = Play(**arguments)
    play.submit(*ids)
    for _ in range(2):
        pod = play.join(max(slots, len(ids)))
        assert sorted(play.has(pod)) == sorted(ids)
        play.lose(pod)
    return play


def test_calls_that_were_lost_together_once_are_tried_together_again() -> None:
    play = Play(2)
    play.submit(1, 2)
    play.lose("pod-1")
    play.join(2)
    assert play.sent == {"pod-2": [1, 2]}


def test_the_last_try_of_a_call_that_was_lost_more_than_once_is_alone() -> None:
    play = twice_lost(1, 2)
    pod = play.join(2)
    assert play.sent == {pod: [1]}
    play.submit(3)
    assert play.sent == {}, "what nobody suspects keeps away from it, too"
    play.finish(pod, 1)
    assert play.sent == {pod: [2]}
    play.finish(pod, 2)
    assert play.sent == {pod: [3]}, "and then goes on as ever"


@pytest.mark.parametrize("chosen", [False, True], ids=["as any", "chosen for it"])
@pytest.mark.parametrize(("retries", "tries"), [(0, 1), (1, 2), (2, 3), (3, 4), (5, 6)])
def test_a_culprit_ends_as_many_pods_as_it_has_tries_and_the_last_by_itself(
    retries: int, tries: int, chosen: bool
) -> None:
    play = Play(retries=4 if chosen else retries)
    play.submit(1, 2, limits=Limits(retries) if chosen else None)
    for number in range(tries):
        pod = play.join(2)
        assert 1 in play.has(pod)
        together = number < max(2, retries) or retries < 2
        assert (2 in play.has(pod)) is together
        play.lose(pod)
    (lost,) = [one for one in play.lost if one.call == 1]
    assert len(lost.pods) == tries
    survives = retries >= 2
    assert (2 in [one.call for one in play.lost]) is not survives
    if survives:
        pod = play.join(2)
        assert play.has(pod) == [2]


def test_the_items_of_a_range_that_was_lost_are_suspected_one_by_one() -> None:
    play = Play()
    play.handle(MapGrown(7, F, 3, 3))
    for _ in range(2):
        play.lose(play.join(4))
    pod = play.join(4)
    assert len(play.has(pod)) == 1
    (call_id,) = play.has(pod)
    play.finish(pod, call_id)
    assert len(play.has(pod)) == 1


def test_pods_that_are_busy_are_emptied_first_and_half_of_them_go_on() -> None:
    play = twice_lost(1, 2, 3)
    pods = [play.join(1) for _ in range(4)]
    alone = [pod for pod in pods if play.has(pod)]
    assert len(alone) == 2
    play.submit(10, 11, 12)
    assert sum(len(play.has(pod)) for pod in pods) == 4, "the others take what comes"
    play.finish(alone[0], *play.has(alone[0]))
    assert play.has(alone[0]) == [3]


def test_where_every_pod_is_busy_the_one_that_is_empty_first_is_taken() -> None:
    play = twice_lost(1)
    first = play.join(2)
    second, third = play.join(3), play.join(2)
    play.submit(10, 11, 12, 13, 14)
    assert (len(play.has(second)), len(play.has(third))) == (3, 2)
    play.lose(first)
    assert [one.call for one in play.lost] == [1]
    play.submit(2)
    for _ in range(2):
        play.lose(play.join(1))  # the one that has a free slot, so that it is sent there
    assert play.scheduler.waiting == 1, "a suspect, and no pod is empty"
    play.submit(3, 4)
    play.finish(third, *play.has(third))
    assert play.sent == {third: [2]}, "and calls that nobody suspects wait for others"
    play.finish(second, *play.has(second))
    assert play.sent == {second: [3, 4]}


def test_a_call_that_was_cancelled_leaves_its_pod_to_others() -> None:
    play = twice_lost(1)
    pod = play.join(2)
    assert play.has(pod) == [1]
    play.submit(2)
    play.handle(Withdrawn([1]))
    assert play.sent == {pod: [2]}


def test_suspects_that_nobody_waits_for_are_forgotten() -> None:
    play = twice_lost(1, 2)
    play.handle(CancelPending(frozenset({2})))
    assert play.scheduler.waiting == 1
    pod = play.join(2)
    assert play.has(pod) == [2]
    play = Play()
    play.handle(MapGrown(7, F, 2))
    for _ in range(2):
        play.lose(play.join(2))
    assert play.scheduler.waiting == 2
    assert play.scheduler.has_backlog
    play.handle(MapDropped(7))
    assert play.scheduler.idle
    assert play.scheduler.waiting == 0


def test_a_pod_that_drains_is_none_for_a_suspect() -> None:
    play = Play(1)
    play.handle(GivenBack("pod-1", [], draining=True))
    play.submit(1)
    for _ in range(2):
        play.lose(play.join(1))
    assert play.has("pod-1") == []
    assert play.has(play.join(1)) == [1]


def test_the_limit_of_max_workers_holds_for_suspects() -> None:
    play = Play(max_workers=1)
    play.submit(1)
    for _ in range(2):
        play.lose(play.join(2))
    first, second = play.join(2), play.join(2)
    assert (play.has(first), play.has(second)) == ([1], [])


@given(
    slots=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    calls=st.integers(2, 20),
    culprit=st.integers(1, 20),
    retries=st.integers(2, 4),
    max_workers=st.none() | st.integers(1, 5),
    data=st.data(),
)
@quick
def test_a_culprit_fails_alone_whatever_runs_beside_it(
    slots: list[int],
    calls: int,
    culprit: int,
    retries: int,
    max_workers: int | None,
    data: st.DataObject,
) -> None:
    culprit = 1 + culprit % calls
    play = Play(*slots, retries=retries, max_workers=max_workers)
    sizes = {f"pod-{number}": size for number, size in enumerate(slots, 1)}
    play.submit(*range(1, calls + 1))
    last: list[int] = []
    for _ in range(20 * calls):
        if play.scheduler.idle:
            break
        busy = sorted(pod for pod in sizes if play.has(pod))
        assert busy, "calls wait, and no pod has one"
        pod = data.draw(st.sampled_from(busy))
        if culprit in play.has(pod) and data.draw(st.booleans()):
            last = play.has(pod)
            play.lose(pod)
            sizes[play.join(sizes.pop(pod))] = sizes.get(pod, slots[0])
            continue
        innocent = [call for call in play.has(pod) if call != culprit]
        if innocent:
            play.finish(pod, data.draw(st.sampled_from(innocent)))
        elif culprit in play.has(pod):
            last = play.has(pod)
            play.lose(pod)
            sizes[play.join(sizes.pop(pod))] = slots[0]
    assert play.scheduler.idle, "it does not come to an end"
    (lost,) = play.lost
    assert lost.call == culprit
    assert len(lost.pods) == retries + 1
    assert last == [culprit]
    assert sorted([*play.settled, culprit]) == list(range(1, calls + 1))
