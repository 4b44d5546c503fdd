"""A pool's name says nothing of the broker: whose pods are ours, and whose only have the name."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from k8sfutures.codec import derive_key
from k8sfutures.pods.kubernetes.capacity import Holding, Node, read_nodes
from k8sfutures.pods.kubernetes.jobs import Access
from k8sfutures.pods.kubernetes.labels import ACCESS, Membership, access_mark, labels
from k8sfutures.pods.kubernetes.manifests import PodSpec, job, job_name
from k8sfutures.pods.kubernetes.placement import Placement, Size
from k8sfutures.pods.kubernetes.room import LOOK_AGAIN, YIELD_PATIENCE, Room
from k8sfutures.pods.kubernetes.roster import Roster

Json = dict[str, Any]

KEY = derive_key("secret")
URL = "amqp://user:password@broker:5672/%2F"
PLACEMENT = Placement("node-a", (0, 1), 2000, 0)


# --- the mark


@pytest.mark.parametrize(
    "url",
    [
        "amqp://user:password@other:5672/%2F",
        "amqp://user:password@broker:5673/%2F",
        "amqp://user:password@broker:5672/other",
        "amqps://user:password@broker/%2F",
    ],
)
def test_another_broker_has_another_mark(url: str) -> None:
    assert access_mark(url, KEY) != access_mark(URL, KEY)


def test_another_secret_has_another_mark() -> None:
    assert access_mark(URL, derive_key("another")) != access_mark(URL, KEY)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://somebody:else@broker:5672/%2F",
        "amqp://user:password@broker/%2F?heartbeat=5",
    ],
)
def test_who_logs_in_otherwise_is_at_the_same_broker(url: str) -> None:
    assert access_mark(url, KEY) == access_mark(URL, KEY)


def test_a_mark_gives_nothing_away_that_could_be_guessed_cheaply() -> None:
    mark = access_mark(URL, KEY)
    for text in ("secret", "password", URL, "broker:5672/", "secret" + URL, URL + "secret"):
        for digest in (hashlib.sha256, hashlib.sha1, hashlib.md5):
            assert not digest(text.encode()).hexdigest().startswith(mark)
    assert len(mark) == 16


def a_job(pool: str = "p", access: str = "") -> Json:
    spec = PodSpec(pool=pool, shape={}, image="i", warm_for=1)
    made = job(spec, PLACEMENT, secret="s", pull_secret=None, pool_cpus=0, access=access)
    made["metadata"]["uid"] = f"uid-of-{pool}-{access}"
    return made


def test_a_job_and_its_pod_bear_the_mark_of_who_may_use_them() -> None:
    mark = Access(URL, KEY, None).mark
    made = a_job(access=mark)
    for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
        assert metadata["annotations"][ACCESS] == mark
        assert Membership("p", mark).includes(metadata)


def test_the_jobs_of_two_brokers_have_different_names() -> None:
    assert job_name("p", PLACEMENT, "one") != job_name("p", PLACEMENT, "two")


# --- membership


@pytest.mark.parametrize(
    ("pool", "access", "included", "namesake"),
    [
        ("p", "mine", True, False),
        ("p", "theirs", False, True),
        ("q", "mine", False, False),
        ("q", "theirs", False, False),
    ],
)
def test_a_pool_is_its_name_and_its_broker(
    pool: str, access: str, included: bool, namesake: bool
) -> None:
    metadata = a_job(pool, access)["metadata"]
    membership = Membership("p", "mine")
    assert membership.includes(metadata) is included
    assert membership.is_namesake(metadata) is namesake


def test_a_pod_that_has_answered_is_a_member_whatever_its_mark_says() -> None:
    metadata = {**a_job("p", "theirs")["metadata"], "name": "pod-1"}
    membership = Membership("p", "mine", frozenset({"pod-1"}))
    assert membership.includes(metadata)
    assert not membership.is_namesake(metadata)


@pytest.mark.parametrize("metadata", [{}, {"labels": None}, {"labels": {}, "annotations": None}])
def test_what_has_no_labels_is_of_no_pool(metadata: Json) -> None:
    assert not Membership("p").includes(metadata)
    assert not Membership("p").is_namesake(metadata)


# --- what follows


def a_pod(access: str, name: str = "j-x") -> Json:
    return {
        "metadata": {
            "name": name,
            "labels": labels("p"),
            "annotations": {ACCESS: access},
            "ownerReferences": [{"name": "j", "uid": "u"}],
        },
        "spec": {"nodeName": "node-a", "containers": [{"name": "worker", "image": "i"}]},
        "status": {"phase": "Running"},
    }


def test_the_pods_of_a_namesake_are_not_on_the_way() -> None:
    roster = Roster("p")
    roster.belongs(Membership("p", "mine"))
    roster.listed([a_pod("theirs")], 0.0)
    roster.changed(a_pod("theirs"), 1.0, deleted=False)
    assert not roster.on_the_way()
    assert roster.news() == ""
    roster.changed(a_pod("mine", "j-y"), 2.0, deleted=False)
    assert roster.on_the_way()


NODE = {
    "metadata": {"name": "node-a"},
    "status": {
        "allocatable": {"cpu": "2", "memory": "8Gi", "pods": "10"},
        "conditions": [{"type": "Ready", "status": "True"}],
    },
}


def test_a_namesake_holds_its_cpus_and_is_named_as_what_it_is() -> None:
    (node,) = read_nodes(
        [NODE],
        [],
        [a_job(access="theirs")],
        selector={},
        tolerations=(),
        membership=Membership("p", "mine"),
    )
    assert node.cpu_free == 0
    assert node.holdings == [Holding("p", 2000, namesake=True)]
    words = Room("p", Size(), 10.0).words([node])
    assert "pool p of another broker or secret has 2" in words
    assert "settings amqp_url, pod_amqp_url and secret" in words
    assert words.endswith("a pool that is not needed ends by k8sfutures pool delete NAME")


# --- waiting for room


def a_node(*holdings: Holding, refusal: str = "") -> Node:
    return Node("n", 4, 4000, 0, 0, 110, holdings=list(holdings), refusal=refusal)


OTHER, OWN = Holding("other", 1000), Holding("p", 1000)
NAMESAKE, STRANGE = Holding("p", 1000, namesake=True), Holding("no pool's name!", 1000)


@pytest.fixture
def room() -> Room:
    return Room("p", Size(), 100.0)


@pytest.mark.parametrize(
    ("holding", "nothing", "ask"),
    [
        (OTHER, True, ("other",)),
        (OTHER, False, ("other",)),
        (OWN, True, ()),
        (NAMESAKE, True, ()),
        (STRANGE, True, ()),
    ],
)
def test_cpus_that_pods_of_ours_hold_are_waited_for(
    room: Room, holding: Holding, nothing: bool, ask: tuple[str, ...]
) -> None:
    wait = room.wait([a_node(holding)], 10.0, nothing=nothing)
    assert wait is not None
    assert (wait.until, wait.begins, wait.ask) == (10.0 + LOOK_AGAIN, True, ask)


@pytest.mark.parametrize("holding", [OWN, NAMESAKE, STRANGE])
def test_who_has_some_pods_does_not_wait_for_those_that_cannot_be_asked(
    room: Room, holding: Holding
) -> None:
    assert room.wait([a_node(holding)], 10.0, nothing=False) is None


@pytest.mark.parametrize("node", [a_node(), a_node(OTHER, refusal="is cordoned")])
def test_where_nothing_of_ours_could_make_room_nobody_waits(room: Room, node: Node) -> None:
    assert room.wait([node], 10.0, nothing=True) is None


@pytest.mark.parametrize(("nothing", "patience"), [(True, 100.0), (False, YIELD_PATIENCE)])
def test_waiting_ends_and_begins_anew_when_cpus_are_wanted_anew(
    room: Room, nothing: bool, patience: float
) -> None:
    nodes = [a_node(OTHER)]
    first = room.wait(nodes, 0.0, nothing=nothing)
    assert first is not None
    assert first.patience == patience
    last = room.wait(nodes, patience - 1, nothing=nothing)
    assert last is not None
    assert (last.until, last.begins) == (patience, False)
    assert room.wait(nodes, patience, nothing=nothing) is None
    room.begin()
    assert room.wait(nodes, patience, nothing=nothing) is not None


@pytest.mark.parametrize(
    ("holding", "grows"), [(OTHER, True), (NAMESAKE, True), (STRANGE, True), (OWN, False)]
)
def test_a_pool_may_grow_where_others_have_cpus(room: Room, holding: Holding, grows: bool) -> None:
    assert room.may_grow([a_node(holding)]) is grows
    assert not room.may_grow([a_node(holding, refusal="is cordoned")])
