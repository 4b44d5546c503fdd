"""The pods of a pool, from what is heard of them: each ending is told once, and in time."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.pods.kubernetes.labels import NODE, labels
from k8sfutures.pods.kubernetes.roster import (
    NEVER,
    POD_PATIENCE,
    PULL_PATIENCE,
    START_PATIENCE,
    STUCK_PATIENCE,
    Roster,
)
from k8sfutures.pods.kubernetes.stories import State

Json = dict[str, Any]
quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)

POOL = "a-pool"
JOBS = ("job-a", "job-b")
PODS = tuple(f"{job}-{n}" for job in JOBS for n in "xy")


def ended(code: int, finished: str) -> Json:
    state = {
        "exitCode": code,
        "reason": "Error" if code else "Completed",
        "startedAt": "2026-01-01T10:00:00Z",
        "finishedAt": f"2026-01-01T{finished}Z",
    }
    return {"terminated": state}


STATES: dict[str, tuple[str, Json]] = {
    "starting": ("Pending", {"waiting": {"reason": "ContainerCreating"}}),
    "stuck": ("Pending", {"waiting": {"reason": "ErrImagePull", "message": "not found"}}),
    "stuck still": ("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "again"}}),
    "running": ("Running", {"running": {"startedAt": "2026-01-01T10:00:00Z"}}),
    "crashed": ("Failed", ended(1, "10:00:01")),
    "crashed late": ("Failed", ended(1, "11:00:00")),
    "done": ("Succeeded", ended(0, "11:00:00")),
}
STUCK = {"stuck", "stuck still"}
ENDED = {"crashed", "crashed late", "done"}


def a_pod(name: str, state: str, pool: str = POOL) -> Json:
    """As the API has it; the name of its Job is the beginning of its own."""
    phase, container = STATES[state]
    job = name.rpartition("-")[0]
    return {
        "metadata": {
            "name": name,
            "labels": labels(pool),
            "annotations": {NODE: f"node-of-{job}"},
            "ownerReferences": [{"kind": "Job", "name": job, "uid": f"uid-{job}"}],
        },
        "spec": {
            "nodeName": f"node-of-{job}",
            "containers": [{"name": "worker", "image": "worker:1"}],
        },
        "status": {
            "phase": phase,
            "containerStatuses": [{"name": "worker", "state": container}],
        },
    }


@pytest.fixture
def roster() -> Roster:
    return Roster(POOL)


def hear(roster: Roster, state: str, now: float, name: str = "job-a-x", **kwargs: Any) -> None:
    pool = kwargs.pop("pool", POOL)
    roster.changed(a_pod(name, state, pool), now, deleted=kwargs.pop("deleted", False))


def told(roster: Roster, now: float) -> list[str]:
    return [ending.pod for ending in roster.endings(now)]


# --- endings


@pytest.mark.parametrize("state", sorted(ENDED))
def test_an_ending_is_told_at_once_and_never_again(roster: Roster, state: str) -> None:
    hear(roster, state, 0.0)
    assert told(roster, 0.0) == ["job-a-x"]
    hear(roster, state, 1.0)
    hear(roster, state, 2.0, deleted=True)
    roster.listed([], 3.0)
    assert told(roster, 1000.0) == []


@pytest.mark.parametrize(
    ("state", "failed"), [("crashed", True), ("crashed late", False), ("done", False)]
)
def test_a_pod_counts_as_failed_where_the_next_one_would_fail_alike(
    roster: Roster, state: str, failed: bool
) -> None:
    hear(roster, state, 0.0)
    (ending,) = roster.endings(0.0)
    assert (ending.failed, ending.stuck) == (failed, False)


def test_an_ending_names_pod_job_and_node_and_says_why(roster: Roster) -> None:
    hear(roster, "crashed", 0.0)
    (ending,) = roster.endings(0.0)
    assert (ending.pod, ending.job, ending.node) == ("job-a-x", "job-a", "node-of-job-a")
    assert ending.words == "pod job-a-x on node node-of-job-a exited with code 1 (Error)"


def test_a_pod_that_is_deleted_has_ended(roster: Roster) -> None:
    hear(roster, "running", 0.0)
    hear(roster, "running", 1.0, deleted=True)
    (ending,) = roster.endings(1.0)
    assert "was deleted" in ending.words
    assert (ending.failed, ending.stuck) == (False, False)


def test_a_pod_that_is_missing_from_the_list_was_deleted(roster: Roster) -> None:
    hear(roster, "running", 0.0, "job-a-x")
    hear(roster, "running", 0.0, "job-b-x")
    roster.listed([a_pod("job-b-x", "running")], 1.0)
    (ending,) = roster.endings(1.0)
    assert (ending.pod, ending.failed, ending.stuck) == ("job-a-x", False, False)
    assert ending.words == "pod job-a-x on node node-of-job-a was deleted"


def test_how_a_pod_ended_stays_known_after_its_deletion(roster: Roster) -> None:
    hear(roster, "crashed", 0.0)
    hear(roster, "running", 1.0, deleted=True)
    roster.listed([], 2.0)
    story = roster.story("job-a-x")
    assert story is not None
    assert "exited with code 1" in story.words


def test_the_pods_of_other_pools_are_not_told_of(roster: Roster) -> None:
    hear(roster, "crashed", 0.0, pool="another")
    roster.listed([a_pod("job-b-x", "crashed", "another")], 0.0)
    assert told(roster, 0.0) == []
    assert roster.story("job-a-x") is roster.story("job-b-x") is None


def test_a_pod_without_labels_is_not_ours(roster: Roster) -> None:
    pod = a_pod("job-a-x", "crashed")
    pod["metadata"]["labels"] = None
    roster.changed(pod, 0.0, deleted=False)
    assert told(roster, 0.0) == []


# --- pods that are stuck


def test_a_stuck_pod_is_told_after_the_patience_and_only_once(roster: Roster) -> None:
    hear(roster, "stuck", 10.0)
    assert told(roster, 10.0 + STUCK_PATIENCE - 0.01) == []
    (ending,) = roster.endings(10.0 + STUCK_PATIENCE)
    assert (ending.pod, ending.failed, ending.stuck) == ("job-a-x", True, True)
    hear(roster, "stuck still", 20.0)
    assert told(roster, 1000.0) == []


def test_a_node_that_pulls_with_a_password_has_time_for_a_second_try(roster: Roster) -> None:
    pod = a_pod("job-a-x", "stuck")
    pod["spec"]["imagePullSecrets"] = [{"name": "a-secret"}]
    roster.changed(pod, 10.0, deleted=False)
    assert told(roster, 10.0 + PULL_PATIENCE - 0.01) == []
    assert told(roster, 10.0 + PULL_PATIENCE) == ["job-a-x"]


def test_a_pod_that_is_stuck_for_another_reason_is_stuck_since_the_first(roster: Roster) -> None:
    hear(roster, "stuck", 0.0)
    hear(roster, "stuck still", STUCK_PATIENCE - 0.1)
    (ending,) = roster.endings(STUCK_PATIENCE)
    assert "ImagePullBackOff" in ending.words


def test_a_stuck_pod_that_is_removed_after_it_was_told_is_not_told_again(roster: Roster) -> None:
    hear(roster, "stuck", 0.0)
    assert told(roster, STUCK_PATIENCE) == ["job-a-x"]
    hear(roster, "stuck", 4.0, deleted=True)
    assert told(roster, 1000.0) == []


@given(
    st.floats(0, STUCK_PATIENCE, exclude_max=True),
    st.sampled_from(["starting", "running"]),
    st.lists(st.floats(0, 100)),
)
@quick
def test_a_stuck_pod_that_recovers_in_time_is_never_told(
    after: float, state: str, later: list[float]
) -> None:
    roster = Roster(POOL)
    hear(roster, "stuck", 0.0)
    assert told(roster, after) == []
    hear(roster, state, after)
    for more in sorted(later):
        assert told(roster, after + more) == []


def test_the_patience_begins_anew_when_a_pod_is_stuck_again(roster: Roster) -> None:
    hear(roster, "stuck", 0.0)
    hear(roster, "starting", 2.0)
    hear(roster, "stuck", 2.5)
    assert told(roster, 2.5 + STUCK_PATIENCE - 0.01) == []
    assert told(roster, 2.5 + STUCK_PATIENCE) == ["job-a-x"]


# --- Jobs without a pod


def test_a_job_without_a_pod_is_asked_about_after_a_while(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 10.0)
    assert roster.without_pod(10.0 + POD_PATIENCE - 0.01) == []
    assert roster.without_pod(10.0 + POD_PATIENCE) == ["job-a"]


def test_a_job_without_a_pod_is_asked_about_again_only_after_another_while(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    assert roster.without_pod(5.0) == ["job-a"]
    assert roster.without_pod(5.0 + POD_PATIENCE - 0.01) == []
    assert roster.without_pod(5.0 + POD_PATIENCE) == ["job-a"]


def test_a_job_that_is_expected_again_is_waited_for_since_the_first_time(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.expect("job-a", "job-a", "node-a", POD_PATIENCE)
    assert roster.without_pod(POD_PATIENCE) == ["job-a"]


@pytest.mark.parametrize("state", ["starting", "running", "stuck"])
def test_a_job_whose_pod_is_there_is_not_asked_about(roster: Roster, state: str) -> None:
    hear(roster, state, 0.0)
    roster.expect("job-a", "job-a", "node-a", 0.0)
    assert roster.without_pod(1000.0) == []


def test_a_job_whose_pod_comes_is_not_asked_about_any_more(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    hear(roster, "starting", 0.5)
    assert roster.without_pod(1000.0) == []


def test_a_job_whose_last_pod_has_ended_is_expected_to_have_another(roster: Roster) -> None:
    hear(roster, "crashed", 0.0)
    assert told(roster, 0.0) == ["job-a-x"]
    roster.expect("job-a", "job-a", "node-a", 1.0)
    assert roster.without_pod(1.0 + POD_PATIENCE) == ["job-a"]


def test_a_job_whose_pod_is_refused_is_told_after_the_patience_and_only_once(
    roster: Roster,
) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.refused({"job-a": "exceeded quota: small"}, 1.0)
    assert roster.endings(1.0 + STUCK_PATIENCE - 0.01) == []
    (ending,) = roster.endings(1.0 + STUCK_PATIENCE)
    assert (ending.pod, ending.job, ending.node) == ("job-a", "job-a", "node-a")
    assert (ending.failed, ending.stuck) == (True, True)
    assert ending.words == ("Kubernetes cannot create a pod for node node-a: exceeded quota: small")
    assert roster.endings(1000.0) == []


def test_a_job_that_was_refused_is_not_asked_about_any_more(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.refused({"job-a": "quota"}, 1.0)
    assert roster.without_pod(1000.0) == []


def test_the_patience_with_a_refusal_begins_with_the_first(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.refused({"job-a": "quota"}, 1.0)
    roster.refused({"job-a": "quota still"}, 3.0)
    assert told(roster, 1.0 + STUCK_PATIENCE) == ["job-a"]


def test_a_refusal_counts_no_more_once_the_pod_is_there(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.refused({"job-a": "quota"}, 1.0)
    hear(roster, "starting", 2.0)
    assert roster.endings(1000.0) == []


def test_a_refusal_of_a_job_that_is_not_waited_for_does_not_count(roster: Roster) -> None:
    hear(roster, "running", 0.0)
    roster.refused({"job-a": "quota", "of-others": "quota"}, 0.0)
    assert roster.endings(1000.0) == []


@pytest.mark.parametrize("refused", [False, True])
def test_a_job_that_is_deleted_before_it_had_a_pod_has_ended(roster: Roster, refused: bool) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    if refused:
        roster.refused({"job-a": "quota"}, 1.0)
    roster.jobs_are(["job-b"])
    (ending,) = roster.endings(1000.0)
    assert (ending.job, ending.failed, ending.stuck) == ("job-a", False, False)
    assert "was deleted" in ending.words
    assert (roster.endings(1000.0), roster.without_pod(1000.0)) == ([], [])
    assert (roster.deadline(), roster.on_the_way()) == (NEVER, False)


def test_a_job_that_is_there_is_waited_for(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.jobs_are(["job-a"])
    assert roster.endings(1000.0) == []
    assert roster.on_the_way()


# --- deadlines


def test_where_nothing_is_expected_there_is_no_deadline(roster: Roster) -> None:
    assert roster.deadline() == NEVER


@pytest.mark.parametrize("state", ["running", *sorted(ENDED)])
def test_a_pod_that_is_not_stuck_has_no_deadline(roster: Roster, state: str) -> None:
    hear(roster, state, 0.0)
    roster.endings(0.0)
    assert roster.deadline() == NEVER


def test_the_deadline_of_a_stuck_pod_is_the_end_of_the_patience(roster: Roster) -> None:
    hear(roster, "stuck", 10.0)
    assert roster.deadline() == 10.0 + STUCK_PATIENCE


def test_a_stuck_pod_that_was_told_has_no_deadline(roster: Roster) -> None:
    hear(roster, "stuck", 0.0)
    roster.endings(STUCK_PATIENCE)
    assert roster.deadline() == NEVER


def test_the_deadline_of_a_job_without_a_pod_is_when_to_ask_about_it(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 10.0)
    assert roster.deadline() == 10.0 + POD_PATIENCE


def test_the_deadline_of_a_refused_job_is_the_end_of_the_patience(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    roster.refused({"job-a": "quota"}, 1.0)
    assert roster.deadline() == 1.0 + STUCK_PATIENCE


def test_the_earliest_deadline_counts(roster: Roster) -> None:
    hear(roster, "stuck", 0.0)
    roster.expect("job-b", "job-b", "node-b", 1.0)
    assert roster.deadline() == 1.0 + POD_PATIENCE
    hear(roster, "starting", 1.0, "job-b-x")
    assert roster.deadline() == STUCK_PATIENCE


# --- what can be asked


def test_nothing_is_on_the_way_at_first(roster: Roster) -> None:
    assert not roster.on_the_way()


@pytest.mark.parametrize("state", ["starting", "stuck", "running"])
def test_a_pod_that_has_not_ended_is_on_the_way(roster: Roster, state: str) -> None:
    hear(roster, state, 0.0)
    assert roster.on_the_way()
    assert roster.pod_of("job-a") == "job-a-x"
    assert not roster.is_dead("uid-job-a")


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_pod_that_has_ended_is_not_on_the_way(roster: Roster, state: str) -> None:
    hear(roster, state, 0.0)
    assert not roster.on_the_way()
    assert roster.pod_of("job-a") is None
    assert roster.is_dead("uid-job-a")


def test_a_stuck_pod_that_was_told_is_of_no_use(roster: Roster) -> None:
    hear(roster, "stuck", 0.0)
    roster.endings(STUCK_PATIENCE)
    assert not roster.on_the_way()
    assert roster.pod_of("job-a") is None
    assert roster.is_dead("uid-job-a")


def test_a_job_is_alive_while_one_of_its_pods_is(roster: Roster) -> None:
    hear(roster, "crashed", 0.0, "job-a-x")
    hear(roster, "running", 0.0, "job-a-y")
    assert not roster.is_dead("uid-job-a")
    assert roster.pod_of("job-a") == "job-a-y"


def test_a_job_without_a_known_pod_is_on_the_way_and_not_dead(roster: Roster) -> None:
    roster.expect("job-a", "job-a", "node-a", 0.0)
    assert roster.on_the_way()
    assert not roster.is_dead("uid-job-a")


def test_the_news_tell_how_far_each_pod_has_come(roster: Roster) -> None:
    hear(roster, "running", 0.0, "job-b-x")
    hear(roster, "starting", 0.0, "job-a-x")
    roster.expect("job-c", "job-c", "node-c", 0.0)
    assert roster.news().split("; ") == [
        "pod job-a-x on node node-of-job-a is starting (ContainerCreating)",
        "pod job-b-x on node node-of-job-b is running, and has not answered through the broker",
        "the Job job-c for node node-c has no pod yet",
    ]


@pytest.mark.parametrize("state", sorted(ENDED))
def test_a_pod_that_has_ended_is_no_news(roster: Roster, state: str) -> None:
    hear(roster, state, 0.0)
    assert roster.news() == ""


# --- any sequence of events

changes = st.tuples(st.just("changed"), st.sampled_from(PODS), st.sampled_from(sorted(STATES)))
events = st.one_of(
    changes,
    changes,
    st.tuples(st.just("deleted"), st.sampled_from(PODS), st.sampled_from(sorted(STATES))),
    st.tuples(
        st.just("listed"), st.dictionaries(st.sampled_from(PODS), st.sampled_from(sorted(STATES)))
    ),
    st.tuples(st.just("expect"), st.sampled_from(JOBS)),
    st.tuples(st.just("refused"), st.sampled_from(JOBS)),
    st.tuples(st.just("wait"), st.floats(0, 5)),
    st.tuples(st.just("look")),
)


class Play:
    """A roster that hears events, and what it has told."""

    def __init__(self) -> None:
        self.roster = Roster(POOL)
        self.now = 0.0
        self.told: list[str] = []
        self.states: dict[str, str] = {}
        self.waited: dict[str, float] = {}  # pod -> stuck since

    def happen(self, event: tuple[Any, ...]) -> None:
        match event:
            case ("changed", name, state):
                self.roster.changed(a_pod(name, state), self.now, deleted=False)
                self._note(name, state)
            case ("deleted", name, state):
                self.roster.changed(a_pod(name, state), self.now, deleted=True)
                self._note(name, state if state in ENDED else "deleted")
            case ("listed", pods):
                self.roster.listed([a_pod(*pod) for pod in pods.items()], self.now)
                for name in set(self.states) - set(pods):
                    self._note(name, "deleted")
                for name, state in pods.items():
                    self._note(name, state)
            case ("expect", job):
                self.roster.expect(job, job, f"node-of-{job}", self.now)
            case ("refused", job):
                self.roster.refused({job: "quota"}, self.now)
            case ("wait", seconds):
                self.now += seconds
            case ("look",):
                self.look()

    def _note(self, name: str, state: str) -> None:
        if self.states.get(name) in {*ENDED, "deleted"}:
            return
        self.states[name] = state
        if state not in STUCK:
            self.waited.pop(name, None)
        else:
            self.waited.setdefault(name, self.now)

    def look(self) -> list[str]:
        self.roster.without_pod(self.now)
        new = told(self.roster, self.now)
        self.told += new
        return new

    def over(self, name: str) -> bool:
        """Whether a pod has ended, or has been stuck for too long."""
        stuck = self.waited.get(name, NEVER) + STUCK_PATIENCE <= self.now
        return stuck or self.states[name] in {*ENDED, "deleted"}


plays = st.lists(events, max_size=30)


@given(plays)
@quick
def test_each_ending_is_told_exactly_once(sequence: list[tuple[Any, ...]]) -> None:
    play = Play()
    over: set[str] = set()
    for event in sequence:
        play.happen(event)
        play.look()
        over |= {name for name in play.states if play.over(name)}
        assert Counter(name for name in play.told if name in PODS) == Counter(over)


@given(plays)
@quick
def test_however_late_one_looks_no_ending_is_told_twice_or_forgotten(
    sequence: list[tuple[Any, ...]],
) -> None:
    play = Play()
    for event in sequence:
        play.happen(event)
    play.now += STUCK_PATIENCE
    play.look()
    play.look()
    pods = [name for name in play.told if name in PODS]
    assert len(pods) == len(set(pods))
    assert {name for name in play.states if play.over(name)} <= set(pods)


@given(plays, st.floats(0, 1, exclude_max=True))
@quick
def test_nothing_is_found_before_the_deadline_unless_something_is_heard(
    sequence: list[tuple[Any, ...]], part: float
) -> None:
    play = Play()
    for event in sequence:
        play.happen(event)
        play.look()
        deadline = play.roster.deadline()
        before = play.now + part * (min(deadline, play.now + 1000.0) - play.now)
        if play.now <= before < deadline:
            later = copy.deepcopy(play.roster)
            assert (later.endings(before), later.without_pod(before)) == ([], [])


@given(plays)
@quick
def test_what_can_be_asked_agrees(sequence: list[tuple[Any, ...]]) -> None:
    play = Play()
    for event in sequence:
        play.happen(event)
        roster = play.roster
        there = {job: roster.pod_of(job) for job in JOBS}
        for job, pod in there.items():
            if pod is None:
                continue
            story = roster.story(pod)
            assert story is not None
            assert story.job == job
            assert story.state is not State.ENDED
            assert pod not in play.told
            assert not roster.is_dead(f"uid-{job}")
        assert roster.on_the_way() or not any(there.values())
        assert bool(roster.news()) == roster.on_the_way()


@given(plays, st.sampled_from(JOBS))
@quick
def test_a_job_that_is_expected_is_on_the_way_until_more_is_heard(
    sequence: list[tuple[Any, ...]], job: str
) -> None:
    play = Play()
    for event in sequence:
        play.happen(event)
    play.happen(("expect", job))
    assert play.roster.on_the_way()


# --- pods that wait for what is not there


def waiting_pod(name: str = "job-a-x", uid: str = "uid-of-pod") -> Json:
    pod = a_pod(name, "starting")
    pod["metadata"]["uid"] = uid
    pod["spec"]["volumes"] = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "broker", "secret": {"secretName": "ours"}},
    ]
    return pod


def test_a_pod_that_is_slow_to_start_is_asked_about_now_and_then(roster: Roster) -> None:
    roster.changed(waiting_pod(), 10.0, deleted=False)
    assert roster.deadline() == 10.0 + START_PATIENCE
    assert roster.slow_to_start(10.0 + START_PATIENCE - 1) == []
    (story,) = roster.slow_to_start(10.0 + START_PATIENCE)
    assert (story.name, story.pod_uid, story.secret) == ("job-a-x", "uid-of-pod", "ours")
    assert roster.slow_to_start(10.0 + START_PATIENCE) == []
    assert roster.deadline() == 10.0 + 2 * START_PATIENCE


@pytest.mark.parametrize("state", ["running", "stuck", *sorted(ENDED)])
def test_a_pod_that_starts_or_ends_is_not_slow_any_more(roster: Roster, state: str) -> None:
    roster.changed(waiting_pod(), 0.0, deleted=False)
    hear(roster, state, 1.0)
    assert roster.slow_to_start(1000.0) == []


def test_a_pod_that_is_not_listed_any_more_is_not_slow(roster: Roster) -> None:
    roster.changed(waiting_pod(), 0.0, deleted=False)
    roster.listed([], 1.0)
    assert roster.slow_to_start(1000.0) == []


def test_a_pod_whose_secret_was_never_made_is_of_no_use_and_another_one_will_do(
    roster: Roster,
) -> None:
    roster.changed(waiting_pod(), 0.0, deleted=False)
    assert roster.is_starting("uid-of-pod")
    roster.lacks({"uid-of-pod": ("ours", 'secret "ours" not found')}, 20.0)
    (ending,) = roster.endings(20.0)
    assert (ending.stuck, ending.failed, ending.again) == (True, False, True)
    assert 'cannot start: secret "ours" not found' in ending.words
    assert "before it made this Secret" in ending.words
    assert roster.is_dead("uid-job-a")
    roster.changed(waiting_pod(), 21.0, deleted=False)
    assert roster.is_dead("uid-job-a"), "it is being deleted, and says nothing new"
    assert roster.deadline() == NEVER


def test_a_pod_that_lacks_something_of_the_users_fails_with_kubernetes_words(
    roster: Roster,
) -> None:
    roster.changed(waiting_pod(), 0.0, deleted=False)
    roster.lacks({"uid-of-pod": ("models", 'configmap "models" not found')}, 20.0)
    (ending,) = roster.endings(20.0)
    assert (ending.stuck, ending.failed, ending.again) == (True, True, False)
    assert 'configmap "models" not found' in ending.words


def test_what_other_pods_lack_is_nobodys_ending(roster: Roster) -> None:
    roster.changed(waiting_pod(), 0.0, deleted=False)
    roster.lacks({"another": ("ours", "not found")}, 20.0)
    assert roster.endings(20.0) == []
    assert not roster.is_starting("another")


def test_a_pod_that_runs_by_now_lacks_nothing(roster: Roster) -> None:
    roster.changed(waiting_pod(), 0.0, deleted=False)
    hear(roster, "running", 1.0)
    roster.lacks({"uid-of-pod": ("ours", "not found")}, 20.0)
    assert roster.endings(20.0) == []


def test_a_pod_whose_worker_alone_has_ended_lingers(roster: Roster) -> None:
    pod = a_pod("job-a-x", "done")
    pod["status"]["phase"] = "Running"
    pod["status"]["containerStatuses"].append({"name": "other", "state": {"running": {}}})
    roster.changed(pod, 0.0, deleted=False)
    (ending,) = roster.endings(0.0)
    assert ending.lingers
    assert roster.is_dead("uid-job-a")
