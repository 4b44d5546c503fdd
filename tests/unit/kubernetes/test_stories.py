"""What is said of a pod, from what the API says of it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.pods.kubernetes.labels import NODE
from k8sfutures.pods.kubernetes.stories import (
    AT_START,
    State,
    absent_volumes,
    has_mounted,
    refused_creations,
    story_of,
)
from k8sfutures.pods.kubernetes.timestamps import between, of_header

Json = dict[str, Any]
quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)

NAME = "k8sfutures-148de9c5a7-ca978112-0-x7k2p"
JOB = "k8sfutures-148de9c5a7-ca978112-0"
IMAGE = "registry.example/worker:1"
SUBJECT = f"pod {NAME} on node node-a "
BY_SOMEBODY = "(by a user, an eviction or a drain of its node)"

SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T10:00:00Z"}
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available.",
}


def a_pod(
    status: Json | None, *, limits: Json | None = None, placed: bool = True, **metadata: Any
) -> Json:
    """As the API has it."""
    spec: Json = {
        "containers": [
            {"name": "worker", "image": IMAGE, "resources": {"limits": limits} if limits else {}}
        ]
    }
    if placed:
        spec["nodeName"] = "node-a"
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": JOB, "uid": "u", "controller": True}
    return {
        "metadata": {
            "name": NAME,
            "annotations": {NODE: "node-a"},
            "ownerReferences": [owner],
            **metadata,
        },
        "spec": spec,
        **({} if status is None else {"status": status}),
    }


def in_state(phase: str, conditions: list[Json] | None = None, **state: Json) -> Json:
    """A status whose worker is in a state."""
    return {
        "phase": phase,
        "conditions": [SCHEDULED, *(conditions or [])],
        "containerStatuses": [
            {"name": "worker", "image": IMAGE, "restartCount": 0, "state": state}
        ],
    }


def waiting(reason: str, message: str | None = None) -> Json:
    said = {"reason": reason} if message is None else {"reason": reason, "message": message}
    return in_state("Pending", waiting=said)


def running(*conditions: Json) -> Json:
    return in_state("Running", list(conditions), running={"startedAt": "2026-01-01T10:00:02Z"})


def terminated(code: int, *conditions: Json, after: str = "10:00:03", **more: Any) -> Json:
    state = {
        "exitCode": code,
        "reason": "Completed" if code == 0 else "Error",
        "startedAt": "2026-01-01T10:00:02Z",
        "finishedAt": f"2026-01-01T{after}Z",
        "containerID": "containerd://0f47200ea929",
        **more,
    }
    return in_state("Succeeded" if code == 0 else "Failed", list(conditions), terminated=state)


# --- pods that start, or cannot


@pytest.mark.parametrize(
    ("status", "words"),
    [
        pytest.param(None, "is waiting to be started", id="nothing is said of it"),
        pytest.param({}, "is waiting to be started", id="an empty status"),
        pytest.param({"phase": "Pending"}, "is waiting to be started", id="not yet placed"),
        pytest.param(
            {"phase": "Pending", "conditions": [SCHEDULED]},
            "is waiting to be started",
            id="it never had a container",
        ),
        pytest.param(
            waiting("ContainerCreating"), "is starting (ContainerCreating)", id="being created"
        ),
        pytest.param(
            waiting("PodInitializing"), "is starting (PodInitializing)", id="being initialized"
        ),
        pytest.param(
            in_state("Pending", waiting={}), "is starting (is waiting)", id="waiting for no reason"
        ),
    ],
)
def test_a_pod_that_is_on_its_way_is_starting(status: Json | None, words: str) -> None:
    story = story_of(a_pod(status))
    assert (story.state, story.words) == (State.STARTING, SUBJECT + words)


NOT_FOUND = (
    'failed to pull and unpack image "registry.example/worker:1": failed to resolve reference '
    '"registry.example/worker:1": registry.example/worker:1: not found'
)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", NOT_FOUND),
        ("ImagePullBackOff", f'Back-off pulling image "{IMAGE}": ErrImagePull: {NOT_FOUND}'),
        (
            "ErrImageNeverPull",
            f'Container image "{IMAGE}" is not present with pull policy of Never',
        ),
        (
            "InvalidImageName",
            'Failed to apply default image tag "A:b:c": couldn\'t parse image name "A:b:c"',
        ),
        ("ImageInspectError", "Failed to inspect image"),
        ("CreateContainerConfigError", 'secret "k8sfutures-148de9c5a7-1a2b3c4d" not found'),
        ("CreateContainerError", "context deadline exceeded"),
        ("RunContainerError", "cannot start a stopped process"),
        ("CrashLoopBackOff", "back-off 10s restarting failed container"),
    ],
)
def test_a_pod_whose_container_cannot_start_is_stuck(reason: str, message: str) -> None:
    story = story_of(a_pod(waiting(reason, message)))
    assert story.state is State.STUCK
    assert story.words.startswith(f"{SUBJECT}cannot start image {IMAGE}: {reason}: {message}")


@pytest.mark.parametrize(
    ("reason", "about_the_image"),
    [
        ("ErrImagePull", True),
        ("ImagePullBackOff", True),
        ("ErrImageNeverPull", True),
        ("InvalidImageName", True),
        ("CreateContainerConfigError", False),
    ],
)
def test_who_has_trouble_with_the_image_is_told_how_to_build_it(
    reason: str, about_the_image: bool
) -> None:
    assert ("k8sfutures image" in story_of(a_pod(waiting(reason))).words) is about_the_image


def test_a_pod_that_the_scheduler_cannot_place_is_stuck_in_the_schedulers_words() -> None:
    status = {"phase": "Pending", "conditions": [UNSCHEDULABLE]}
    story = story_of(a_pod(status, placed=False))
    assert story.state is State.STUCK
    assert story.words == (
        f"{SUBJECT}is not placed by the scheduler: Unschedulable: {UNSCHEDULABLE['message']}"
    )


def test_a_pod_that_runs_says_so() -> None:
    story = story_of(a_pod(running()))
    assert (story.state, story.words) == (State.RUNNING, f"{SUBJECT}is running")


def test_a_pod_that_runs_and_is_being_deleted_is_still_running() -> None:
    story = story_of(a_pod(running(), deletionTimestamp="2026-01-01T11:00:00Z"))
    assert story.state is State.RUNNING
    assert story.words == f"{SUBJECT}is being deleted {BY_SOMEBODY}"


# --- pods that have ended


def test_a_pod_that_came_to_its_end_has_not_failed() -> None:
    story = story_of(a_pod(terminated(0, message="unused for 600 s\n")))
    assert (story.state, story.failed) == (State.ENDED, False)
    assert story.words == f"{SUBJECT}has ended; its log ends with:\n    unused for 600 s"


def test_a_crash_is_told_with_its_exit_code_and_the_tail_of_the_log() -> None:
    log = 'Traceback (most recent call last):\n  File "x.py", line 1\nImportError: no numpy\n'
    story = story_of(a_pod(terminated(1, message=log)))
    assert (story.state, story.failed) == (State.ENDED, True)
    assert story.words == (
        f"{SUBJECT}exited with code 1 (Error); its log ends with:\n"
        "    Traceback (most recent call last):\n"
        '      File "x.py", line 1\n'
        "    ImportError: no numpy"
    )


@pytest.mark.parametrize("message", ["", "  \n", None])
def test_a_crash_without_a_log_is_told_without_one(message: str | None) -> None:
    story = story_of(a_pod(terminated(3, message=message)))
    assert story.words == f"{SUBJECT}exited with code 3 (Error)"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "exited with code 1"),
        (127, "exited with code 127"),
        (128, "exited with code 128"),
        (137, "was ended by signal 9"),
        (139, "was ended by signal 11"),
        (143, "was ended by signal 15"),
    ],
)
def test_an_exit_code_over_128_is_a_signal(code: int, words: str) -> None:
    assert story_of(a_pod(terminated(code))).words == f"{SUBJECT}{words} (Error)"


@pytest.mark.parametrize(
    ("limits", "words"),
    [({"memory": "512Mi"}, "with the limit 512Mi"), (None, "without a limit")],
)
def test_out_of_memory_is_told_with_the_limit_and_what_to_do(
    limits: Json | None, words: str
) -> None:
    story = story_of(a_pod(terminated(137, reason="OOMKilled"), limits=limits))
    assert story.failed
    assert story.words == (
        f"{SUBJECT}ran out of memory: Kubernetes says OOMKilled {words}; "
        "give pods more (setting memory), or calls less"
    )


@pytest.mark.parametrize(
    ("after", "at_start"), [("10:00:02", True), ("10:00:21", True), ("10:00:22", False)]
)
def test_a_pod_has_failed_at_its_start_if_it_ran_for_less_than_20_seconds(
    after: str, at_start: bool
) -> None:
    assert AT_START == 20.0
    assert story_of(a_pod(terminated(1, after=after))).at_start is at_start


def test_a_pod_that_came_to_its_end_at_once_has_not_failed_at_its_start() -> None:
    assert not story_of(a_pod(terminated(0))).at_start


@pytest.mark.parametrize("code", [137, 143, 1])
def test_a_pod_that_was_killed_after_its_deletion_was_deleted(code: int) -> None:
    story = story_of(a_pod(terminated(code), deletionTimestamp="2026-01-01T10:00:00Z"))
    how = {137: "was ended by signal 9", 143: "was ended by signal 15", 1: "exited with code 1"}
    assert story.words == f"{SUBJECT}was deleted {BY_SOMEBODY} and {how[code]}"
    assert (story.failed, story.at_start) == (True, False)


def test_a_pod_that_ended_well_after_its_deletion_has_ended() -> None:
    story = story_of(a_pod(terminated(0), deletionTimestamp="2026-01-01T10:00:00Z"))
    assert (story.words, story.failed) == (f"{SUBJECT}has ended", False)


PREEMPTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "PreemptionByScheduler",
    "message": "default-scheduler: preempting to accommodate a higher priority pod",
}
TAINTED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "DeletionByTaintManager",
    "message": "Taint manager: deleting due to NoExecute taint",
}
DRAINED = {
    "type": "DisruptionTarget",
    "status": "True",
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}


@pytest.mark.parametrize("condition", [PREEMPTED, TAINTED, DRAINED], ids=lambda one: one["reason"])
@pytest.mark.parametrize(
    "status", [running, lambda one: terminated(137, one)], ids=["runs", "ended"]
)
def test_who_deleted_a_pod_is_told_where_kubernetes_knows_it(status: Any, condition: Json) -> None:
    story = story_of(a_pod(status(condition), deletionTimestamp="2026-01-01T10:00:00Z"))
    assert f"deleted ({condition['reason']}: {condition['message']})" in story.words


def test_a_disruption_that_did_not_come_about_is_not_the_reason() -> None:
    condition = {**PREEMPTED, "status": "False"}
    story = story_of(a_pod(terminated(137, condition), deletionTimestamp="2026-01-01T10:00:00Z"))
    assert f"was deleted {BY_SOMEBODY}" in story.words


@pytest.mark.parametrize(
    "status",
    [None, {"phase": "Pending"}, waiting("ContainerCreating"), waiting("ErrImagePull"), running()],
    ids=["nothing", "pending", "starting", "stuck", "runs"],
)
def test_a_pod_that_is_not_there_any_more_was_deleted(status: Json | None) -> None:
    story = story_of(a_pod(status), deleted=True)
    assert (story.state, story.failed, story.at_start) == (State.ENDED, True, False)
    assert story.words == f"{SUBJECT}was deleted {BY_SOMEBODY}"


def test_how_a_pod_ended_is_told_even_when_it_is_not_there_any_more() -> None:
    assert story_of(a_pod(terminated(1)), deleted=True) == story_of(a_pod(terminated(1)))


def test_a_pod_that_was_evicted_before_it_had_a_container_says_why() -> None:
    message = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 93Mi. "
    status = {"phase": "Failed", "reason": "Evicted", "message": message}
    story = story_of(a_pod(status))
    assert (story.state, story.failed, story.at_start) == (State.ENDED, True, True)
    assert story.words == f"{SUBJECT}was evicted: Evicted: {message.strip()}"


def test_a_pod_that_its_node_rejects_says_why() -> None:
    message = (
        "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 1000, "
        "capacity: 4000"
    )
    story = story_of(a_pod({"phase": "Failed", "reason": "OutOfcpu", "message": message}))
    assert (story.state, story.failed, story.at_start) == (State.ENDED, True, True)
    assert story.words == f"{SUBJECT}failed: OutOfcpu: {message}"


def test_a_pod_that_failed_without_a_word_says_so() -> None:
    assert story_of(a_pod({"phase": "Failed"})).words == f"{SUBJECT}failed: without saying why"


def test_a_pod_that_succeeded_without_a_word_has_not_failed() -> None:
    story = story_of(a_pod({"phase": "Succeeded"}))
    assert (story.state, story.words, story.failed) == (State.ENDED, f"{SUBJECT}has ended", False)


# --- whose story it is


def test_a_story_names_pod_node_and_job() -> None:
    story = story_of(a_pod(running()))
    assert (story.name, story.node, story.job) == (NAME, "node-a", JOB)


def test_a_pod_that_is_not_placed_is_told_of_with_the_node_that_it_is_meant_for() -> None:
    assert story_of(a_pod({"phase": "Pending"}, placed=False)).node == "node-a"


@pytest.mark.parametrize("annotations", [None, {}])
def test_a_pod_of_nobody_knows_neither_node_nor_job(annotations: Json | None) -> None:
    pod = a_pod(None, placed=False, annotations=annotations, ownerReferences=None)
    story = story_of(pod)
    assert (story.node, story.job) == ("?", "")


def test_other_containers_of_the_pod_do_not_count() -> None:
    status = running()
    other = {"name": "log", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}
    status["containerStatuses"].insert(0, other)
    assert story_of(a_pod(status)).state is State.RUNNING


states = st.one_of(
    st.just({}),
    st.builds(
        lambda reason, message: {"waiting": {"reason": reason, "message": message}},
        st.sampled_from(["ErrImagePull", "ContainerCreating", None]),
        st.none() | st.text(max_size=5),
    ),
    st.just({"running": {}}),
    st.builds(
        lambda code, reason, times: {
            "terminated": {
                "exitCode": code,
                "reason": reason,
                "startedAt": times[0],
                "finishedAt": times[1],
            }
        },
        st.integers(0, 255),
        st.sampled_from(["Completed", "Error", "OOMKilled", None]),
        st.sampled_from(
            [(None, None), ("2026-01-01T10:00:02Z", "2026-01-01T10:00:03Z"), ("x", "")]
        ),
    ),
)
statuses = st.fixed_dictionaries(
    {"phase": st.sampled_from(["Pending", "Running", "Failed", "Succeeded", "Unknown"])},
    optional={
        "reason": st.sampled_from([None, "Evicted", "NodeLost"]),
        "message": st.none() | st.text(max_size=5),
        "conditions": st.none() | st.lists(st.sampled_from([SCHEDULED, UNSCHEDULABLE, PREEMPTED])),
        "containerStatuses": st.none()
        | st.lists(states.map(lambda one: {"name": "worker", "state": one}), max_size=1),
    },
)


@given(st.none() | statuses, st.booleans(), st.booleans())
@quick
def test_there_is_something_to_say_of_every_pod(
    status: Json | None, deleted: bool, being_deleted: bool
) -> None:
    more = {"deletionTimestamp": "2026-01-01T10:00:00Z"} if being_deleted else {}
    story = story_of(a_pod(status, **more), deleted=deleted)
    assert story.words.startswith(SUBJECT)
    assert len(story.words) > len(SUBJECT)


@given(st.none() | statuses)
@quick
def test_a_pod_that_is_not_there_has_ended_whatever_its_status_was(status: Json | None) -> None:
    assert story_of(a_pod(status), deleted=True).state is State.ENDED


@given(st.none() | statuses, st.booleans())
@quick
def test_only_a_pod_that_has_ended_has_failed(status: Json | None, deleted: bool) -> None:
    story = story_of(a_pod(status), deleted=deleted)
    assert story.state is State.ENDED or not (story.failed or story.at_start)


# --- pods that cannot be created

QUOTA = (
    'Error creating: pods "k8sfutures-148de9c5a7-ca978112-0-" is forbidden: exceeded quota: small, '
    "requested: requests.cpu=4, used: requests.cpu=0, limited: requests.cpu=2"
)


def an_event(
    job: str, message: str | None, reason: str = "FailedCreate", kind: str = "Job"
) -> Json:
    named = {
        "kind": kind,
        "name": "any",
        "uid": job,
        "namespace": "default",
        "apiVersion": "batch/v1",
    }
    return {"type": "Warning", "reason": reason, "message": message, "involvedObject": named}


def test_why_the_pod_of_a_job_cannot_be_created_is_in_the_events() -> None:
    events = [an_event("j", f" {QUOTA}\n"), an_event("k", "denied by policy")]
    assert refused_creations(events) == {"j": QUOTA, "k": "denied by policy"}


def test_the_newest_event_of_a_job_counts() -> None:
    assert refused_creations([an_event("j", "first"), an_event("j", "then")]) == {"j": "then"}


@pytest.mark.parametrize(
    "event",
    [an_event("j", "x", reason="SuccessfulCreate"), an_event("j", "x", kind="ReplicaSet")],
    ids=["another reason", "another kind"],
)
def test_other_events_are_no_refusals(event: Json) -> None:
    assert refused_creations([event]) == {}


MOUNT = (
    'MountVolume.SetUp failed for volume "broker" : secret "k8sfutures-148de9c5a7-0a1b2c3d" '
    "not found"
)


def test_what_a_pod_cannot_mount_because_it_is_not_there_is_in_the_events() -> None:
    config = 'MountVolume.SetUp failed for volume "m" : configmap "models" not found'
    events = [
        an_event("pod-1", MOUNT, reason="FailedMount", kind="Pod"),
        an_event("pod-2", f"{config}\n", reason="FailedMount", kind="Pod"),
    ]
    assert absent_volumes(events) == {
        "pod-1": ("k8sfutures-148de9c5a7-0a1b2c3d", MOUNT),
        "pod-2": ("models", config),
    }


@pytest.mark.parametrize(
    "event",
    [
        an_event("p", MOUNT, reason="Failed", kind="Pod"),
        an_event("p", "timed out waiting for the condition", reason="FailedMount", kind="Pod"),
        an_event("p", None, reason="FailedMount", kind="Pod"),
    ],
    ids=["another reason", "what may pass", "no words"],
)
def test_other_events_name_nothing_that_is_absent(event: Json) -> None:
    assert absent_volumes([event]) == {}


@pytest.mark.parametrize(
    ("reasons", "mounted"),
    [
        (["Scheduled", "FailedMount"], False),
        (["Scheduled", "FailedMount", "Pulling"], True),
        (["FailedMount", "Pulled", "Created", "Started"], True),
        ([], False),
    ],
)
def test_what_a_kubelet_does_after_mounting_says_that_it_has_mounted(
    reasons: list[str], mounted: bool
) -> None:
    assert has_mounted([an_event("p", "", reason=reason) for reason in reasons]) is mounted


# --- times


@pytest.mark.parametrize(
    ("header", "time"),
    [
        ("Tue, 24 Nov 2026 13:40:00 GMT", "2026-11-24T13:40:00+00:00"),
        ("today", ""),
        ("", ""),
        (None, ""),
    ],
)
def test_the_servers_time_is_read_from_its_header(header: str | None, time: str) -> None:
    assert of_header(header) == time


@pytest.mark.parametrize(
    ("earlier", "later", "seconds"),
    [
        ("2026-01-01T10:00:00Z", "2026-01-01T10:00:42Z", 42.0),
        ("2026-01-01T10:00:00Z", "2026-01-01T12:00:01+02:00", 1.0),
        ("2026-01-01T10:00:00.250000Z", "2026-01-01T10:00:01Z", 0.75),
        ("2026-01-01T10:00:01Z", "2026-01-01T10:00:00Z", -1.0),
        (None, "2026-01-01T10:00:00Z", 0.0),
        ("2026-01-01T10:00:00Z", None, 0.0),
        ("yesterday", "2026-01-01T10:00:00Z", 0.0),
    ],
)
def test_the_span_between_two_times_of_the_api(
    earlier: str | None, later: str | None, seconds: float
) -> None:
    assert between(earlier, later) == seconds
