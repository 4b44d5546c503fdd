"""Edges of the pure modules around Kubernetes; each of these was wrong once."""

from decimal import Decimal

import pytest

from k8sfutures.demand import Demand
from k8sfutures.pods.kubernetes.capacity import Node, requests
from k8sfutures.pods.kubernetes.labels import labels
from k8sfutures.pods.kubernetes.manifests import job_name, merged
from k8sfutures.pods.kubernetes.placement import Size, place, why_not
from k8sfutures.pods.kubernetes.roster import Roster
from k8sfutures.pods.kubernetes.stories import story_of
from k8sfutures.quantities import quantity
from k8sfutures.worker import configuration
from k8sfutures.worker.cpus import choose


def a_pod(status):
    return {
        "metadata": {
            "name": "j-x",
            "labels": labels("p"),
            "ownerReferences": [{"name": "j", "uid": "u"}],
        },
        "spec": {"nodeName": "n", "containers": [{"name": "worker", "image": "i"}]},
        "status": status,
    }


def terminated(code, reason, started, finished, message=None, **more):
    state = {
        "exitCode": code,
        "reason": reason,
        "startedAt": started,
        "finishedAt": finished,
        "message": message,
    }
    return {
        "phase": "Failed",
        **more,
        "containerStatuses": [{"name": "worker", "state": {"terminated": state}}],
    }


@pytest.mark.parametrize("size", [Size(cpu=500), Size(processes=2, cpu=1000)], ids=str)
def test_the_jobs_of_one_start_have_different_names(size):
    names = [job_name("p", one) for one in place([Node("n", 4, 4000, 4000, 0, 110)], size, None)]
    assert len(set(names)) == len(names)


def test_once_a_refused_pod_has_come_after_all_its_refusal_is_no_deadline():
    roster = Roster("p")
    roster.expect("j", "u", "n", 0.0)
    roster.refused({"u": "exceeded quota"}, 1.0)
    roster.changed(
        a_pod(
            {
                "phase": "Running",
                "containerStatuses": [{"name": "worker", "state": {"running": {}}}],
            }
        ),
        2.0,
        deleted=False,
    )
    roster.endings(100.0)
    assert roster.deadline() > 100.0


def test_a_container_that_could_not_be_started_has_failed_at_its_start():
    status = terminated(
        128,
        "StartError",
        "1970-01-01T00:00:00Z",
        "2026-01-01T10:00:03Z",
        'exec: "/run/k8sfutures/broker.json": permission denied',
    )
    assert story_of(a_pod(status)).at_start


def test_an_evicted_pod_says_so_even_though_its_container_was_killed():
    message = "The node was low on resource: memory."
    status = {
        **terminated(137, "Error", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z"),
        "reason": "Evicted",
        "message": message,
    }
    assert message in story_of(a_pod(status)).words


def test_a_pod_that_its_node_ended_says_why():
    status = {
        **terminated(137, "Error", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z"),
        "conditions": [
            {
                "type": "DisruptionTarget",
                "status": "True",
                "reason": "TerminationByKubelet",
                "message": "The node was low on resource: ephemeral-storage.",
            }
        ],
    }
    assert "low on resource" in story_of(a_pod(status)).words


@pytest.mark.parametrize(("text", "number"), [("500u", "0.0005"), ("5n", "0.000000005")])
def test_tiny_quantities(text, number):
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", [".", "1.2.3"])
def test_what_has_too_many_points_is_no_quantity(text):
    with pytest.raises(ValueError, match="is not a Kubernetes quantity"):
        quantity(text)


def test_no_mount_of_a_template_is_lost():
    ours = [{"name": "tmp", "mountPath": "/tmp"}]
    over = [
        {"name": "tmp", "mountPath": "/a", "subPath": "a"},
        {"name": "tmp", "mountPath": "/b", "subPath": "b"},
    ]
    assert {one["mountPath"] for one in merged(ours, over, "mountPath")} == {"/tmp", "/a", "/b"}


def test_pods_that_have_gone_are_not_answering():
    demand = Demand(4, eager=False)
    demand.called(0.0)
    demand.joined("a", 4, 0, 0.1)
    demand.left("a", explained=True)
    assert not demand.take(1.0, busy=True).answering


def test_requests_of_the_whole_pod_count():
    spec = {"resources": {"requests": {"cpu": "3"}}, "containers": [{"name": "c"}]}
    assert requests(spec) == (3000, 0)


def test_memory_that_is_overcommitted_is_not_told_as_less_than_nothing():
    words = why_not([Node("n", 4, 4000, 4000, -5 << 20, 110)], Size(memory=1 << 20))
    assert "-5" not in words


def test_the_error_of_a_bad_configuration_shows_nothing_of_it():
    text = '{"url": "u", "key": "00", "pool": "p", "name": "n", "warm_for": "hidden"}'
    with pytest.raises(ValueError) as raised:
        configuration.read(text, {})
    assert "hidden" not in str(raised.value)


def test_an_empty_allotment_leaves_a_cpu():
    assert choose({0, 1}, {0, 1}, [])


def test_none_is_taken_away_where_ours_has_nothing():
    assert merged({}, {"a": {"b": None}}) == {"a": {}}


def test_a_pod_whose_init_container_cannot_start_is_stuck():
    status = {
        "phase": "Pending",
        "initContainerStatuses": [
            {"name": "i", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}
        ],
        "containerStatuses": [
            {"name": "worker", "state": {"waiting": {"reason": "PodInitializing"}}}
        ],
    }
    assert "not found" in story_of(a_pod(status)).words


def test_a_new_job_of_the_same_name_is_not_dead_with_the_old_one():
    roster = Roster("p")
    roster.expect("j", "u", "n", 0.0)
    ended = terminated(137, "Error", "2026-01-01T09:00:00Z", "2026-01-01T10:00:00Z")
    roster.changed(a_pod(ended), 1.0, deleted=False)
    assert roster.is_dead("u")
    assert not roster.is_dead("another uid")


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Failed", "reason": "OutOfcpu", "message": "Node didn't have enough resource"},
        {
            "phase": "Pending",
            "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}],
        },
    ],
    ids=["not admitted", "not scheduled"],
)
def test_where_there_was_no_room_after_all_the_place_is_wrong_and_not_the_pod(status):
    assert story_of(a_pod(status)).misplaced
