"""The objects that we put into a cluster: what they say, what they hide, how they are called."""

from __future__ import annotations

import base64
import copy
import json
import logging
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.config import Settings
from k8sfutures.errors import ClusterError, SettingValueError
from k8sfutures.image import default_image
from k8sfutures.messages import Versions
from k8sfutures.pods.kubernetes.fields import CONTAINER as CONTAINER_FIELDS
from k8sfutures.pods.kubernetes.fields import METADATA, SPEC, check_fields
from k8sfutures.pods.kubernetes.jobs import Access, Jobs, has_ended
from k8sfutures.pods.kubernetes.labels import (
    CPU_IDS,
    NODE,
    POOL,
    POOL_NAME,
    SHAPE,
    digest,
    is_ours,
    labels,
    selector_of,
)
from k8sfutures.pods.kubernetes.library import fields_of
from k8sfutures.pods.kubernetes.manifests import (
    BROKER_FILE,
    BROKER_FOLDER,
    PodSpec,
    broker_secret,
    job,
    job_name,
    merged,
    registry_secret,
    ttl,
)
from k8sfutures.pods.kubernetes.placement import Placement, Size
from k8sfutures.pods.kubernetes.shape import pod_spec, registry_of, size_of
from k8sfutures.worker import configuration, cpus
from tests.kubernetes.restricted import Control, broken, every_control

Json = dict[str, Any]
quick = settings(deadline=None, derandomize=True, database=None, max_examples=150)

PLACEMENT = Placement("node-a", (0, 1, 5), 3000, 0)
KEY = bytes(range(32))
PASSWORD = "pass-of-the-broker"
URL = f"amqps://user:{PASSWORD}@broker.example:5671/host"
REGISTRY = ("registry.example", "robot", "pass-of-the-registry")
SECRETIVE = Settings(
    amqp_url=URL,
    pod_amqp_url=URL,
    secret="key-of-the-messages",
    registry_server=REGISTRY[0],
    registry_user=REGISTRY[1],
    registry_password=REGISTRY[2],
)
FULL = Settings(
    worker_processes=3,
    image="registry.example/worker:1",
    image_pull_policy="Always",
    cpu=2.5,
    memory="2Gi",
    node_selector={"disk": "ssd"},
    tolerations=[{"key": "gpu", "operator": "Exists"}],
    pod_template={"metadata": {"labels": {"team": "blue"}}, "spec": {"priorityClassName": "low"}},
    warm_for=45.0,
)


def job_of(given: Settings | None = None, placement: Placement = PLACEMENT, **kwargs: Any) -> Json:
    pull_secret = kwargs.pop("pull_secret", None)
    pool = kwargs.pop("pool", "a-pool")
    pool_cpus = kwargs.pop("pool_cpus", 0)
    assert not kwargs
    spec = pod_spec(given or Settings(), pool)
    return job(spec, placement, secret="k-s", pull_secret=pull_secret, pool_cpus=pool_cpus)


def pod_of(*args: Any, **kwargs: Any) -> Json:
    pod: Json = job_of(*args, **kwargs)["spec"]["template"]
    return pod


def worker_of(pod: Json) -> Json:
    (worker,) = [one for one in pod["spec"]["containers"] if one["name"] == "worker"]
    return worker


def templated(**spec: Any) -> Json:
    return pod_of(Settings(pod_template={"spec": spec}))


# --- what a pod may do


@every_control
@pytest.mark.parametrize("given", [Settings(), FULL], ids=["default", "full"])
def test_a_pod_meets_the_restricted_standard(control: Control, given: Settings) -> None:
    pod = pod_of(given, pull_secret="k-s-registry")
    assert control.holds(pod["metadata"], pod["spec"])


@every_control
def test_a_pod_that_breaks_the_restricted_standard_is_noticed(control: Control) -> None:
    pod = broken(pod_of(), control)
    assert not control.holds(pod["metadata"], pod["spec"])


@pytest.mark.parametrize(
    ("where", "field", "value"),
    [
        ("pod", "runAsNonRoot", True),
        ("pod", "runAsUser", 65532),
        ("pod", "runAsGroup", 65532),
        ("pod", "seccompProfile", {"type": "RuntimeDefault"}),
        ("container", "allowPrivilegeEscalation", False),
        ("container", "capabilities", {"drop": ["ALL"]}),
        ("container", "readOnlyRootFilesystem", True),
    ],
)
def test_a_security_context_says_outright(where: str, field: str, value: Any) -> None:
    pod = pod_of()
    context = (pod["spec"] if where == "pod" else worker_of(pod))["securityContext"]
    assert context[field] == value


def test_a_pod_gets_no_service_account_token() -> None:
    assert pod_of()["spec"]["automountServiceAccountToken"] is False


def test_a_pod_gets_no_variables_of_services() -> None:
    assert pod_of()["spec"]["enableServiceLinks"] is False


def test_a_pod_can_write_where_programs_expect_to() -> None:
    pod = pod_of()
    mounts = {mount["mountPath"]: mount["name"] for mount in worker_of(pod)["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]]
    assert volumes[mounts["/dev/shm"]]["emptyDir"] == {"medium": "Memory"}


# --- what a Job says


def test_a_job_runs_one_pod_once() -> None:
    spec = job_of()["spec"]
    assert (spec["parallelism"], spec["completions"], spec["backoffLimit"]) == (1, 1, 0)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize(
    ("warm_for", "seconds"), [(600.0, 60), (60.0, 60), (45.7, 45), (1.0, 1), (0.2, 1), (0.0, 1)]
)
def test_a_job_that_has_ended_is_soon_removed(warm_for: float, seconds: int) -> None:
    assert ttl(warm_for) == seconds
    assert job_of(Settings(warm_for=warm_for))["spec"]["ttlSecondsAfterFinished"] == seconds


def test_a_pod_goes_to_its_node_and_to_no_other() -> None:
    (term,) = pod_of()["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term == {
        "matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-a"]}]
    }


def test_a_pod_requests_the_cpu_of_its_placement() -> None:
    resources = worker_of(pod_of(placement=Placement("n", (0, 1), 1500, 0)))["resources"]
    assert resources == {"requests": {"cpu": "1500m"}}


def test_memory_is_requested_and_is_the_limit() -> None:
    resources = worker_of(pod_of(Settings(memory="2Gi")))["resources"]
    assert resources["requests"]["memory"] == resources["limits"]["memory"] == "2Gi"


def test_cpu_has_no_limit_that_would_throttle_a_pod() -> None:
    assert "cpu" not in worker_of(pod_of(FULL))["resources"]["limits"]


def test_what_is_not_set_is_left_to_kubernetes() -> None:
    pod = pod_of()
    assert {"nodeSelector", "tolerations", "imagePullSecrets"}.isdisjoint(pod["spec"])
    assert "imagePullPolicy" not in worker_of(pod)


def test_what_is_set_is_in_the_pod() -> None:
    pod = pod_of(FULL, pull_secret="k-s-registry")
    worker = worker_of(pod)
    assert (worker["image"], worker["imagePullPolicy"]) == ("registry.example/worker:1", "Always")
    assert pod["spec"]["nodeSelector"] == {"disk": "ssd"}
    assert pod["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["spec"]["imagePullSecrets"] == [{"name": "k-s-registry"}]


def test_a_job_and_its_pod_are_marked_alike_with_what_clients_look_for() -> None:
    made = job_of(FULL)
    pod = made["spec"]["template"]
    expected = {
        POOL_NAME: "a-pool",
        SHAPE: json.dumps(dict(pod_spec(FULL, "a-pool").shape), sort_keys=True),
        NODE: "node-a",
        CPU_IDS: "0,1,5",
    }
    for metadata in (made["metadata"], pod["metadata"]):
        assert expected.items() <= metadata["annotations"].items()
        assert labels("a-pool").items() <= metadata["labels"].items()


def test_a_manifest_is_json() -> None:
    made = job_of(FULL)
    assert json.loads(json.dumps(made)) == made


def test_the_worker_reads_what_the_job_and_its_secret_tell_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpus, "available", lambda allotted, _count: allotted)
    worker = worker_of(pod_of(FULL, pool_cpus=7))
    environ = {one["name"]: one.get("value", "from-a-field") for one in worker["env"]}
    secret = broker_secret("k-s", "a-pool", OWNER, URL, KEY)
    text = base64.b64decode(secret["data"][BROKER_FILE]).decode()
    found = configuration.read(text, environ)
    assert (found.url, found.pool, found.agent.key) == (URL, "a-pool", KEY)
    assert (found.agent.cpu_ids, found.agent.warm_for, found.agent.pool_cpus) == ([0, 1, 5], 45, 7)
    assert found.agent.shape == dict(pod_spec(FULL, "a-pool").shape)


def test_the_worker_is_told_the_file_that_the_secret_is_mounted_as() -> None:
    pod = pod_of()
    worker = worker_of(pod)
    (mount,) = [one for one in worker["volumeMounts"] if one["mountPath"] == BROKER_FOLDER]
    (volume,) = [one for one in pod["spec"]["volumes"] if one["name"] == mount["name"]]
    assert worker["args"] == [f"{BROKER_FOLDER}/{BROKER_FILE}"]
    assert volume["secret"]["secretName"] == "k-s"
    assert mount["readOnly"] is True


# --- secrets

OWNER = {"metadata": {"name": "a-job", "uid": "a-uid"}}
HIDDEN = {
    "the broker's URL": URL,
    "the broker's password": PASSWORD,
    "the key that signs": KEY.hex(),
    "the key's origin": SECRETIVE.secret,
    "the registry's password": REGISTRY[2],
}


def opened(secret: Json) -> Json:
    """The only file of a Secret."""
    (content,) = secret["data"].values()
    found: Json = json.loads(base64.b64decode(content))
    return found


def in_disguise(secret: str) -> list[str]:
    """A text as it is, and as manifests may carry it."""
    return [
        secret,
        secret.encode().hex(),
        base64.b64encode(secret.encode()).decode().rstrip("=")[:-1],
    ]


@pytest.mark.parametrize("secret", HIDDEN.values(), ids=HIDDEN)
def test_a_job_holds_no_secret(secret: str) -> None:
    text = json.dumps(job_of(SECRETIVE, pull_secret="k-s-registry"))
    assert [one for one in in_disguise(secret) if one in text] == []


def test_what_a_job_must_not_hold_is_in_the_secrets() -> None:
    broker = opened(broker_secret("s", "p", OWNER, URL, KEY))
    assert broker == {"url": URL, "key": KEY.hex()}
    login = opened(registry_secret("s", "p", OWNER, REGISTRY))["auths"]["registry.example"]
    assert login == {
        "username": "robot",
        "password": REGISTRY[2],
        "auth": base64.b64encode(f"robot:{REGISTRY[2]}".encode()).decode(),
    }


def test_the_secret_of_a_registry_is_of_the_type_that_nodes_pull_with() -> None:
    secret = registry_secret("s", "p", OWNER, REGISTRY)
    assert secret["type"] == "kubernetes.io/dockerconfigjson"
    assert list(secret["data"]) == [".dockerconfigjson"]


@pytest.mark.parametrize(
    "secret",
    [broker_secret("s", "p", OWNER, URL, KEY), registry_secret("s", "p", OWNER, REGISTRY)],
    ids=["broker", "registry"],
)
class TestEverySecret:
    def test_goes_with_the_job_that_owns_it(self, secret: Json) -> None:
        assert secret["metadata"]["ownerReferences"] == [
            {"apiVersion": "batch/v1", "kind": "Job", "name": "a-job", "uid": "a-uid"}
        ]

    def test_belongs_to_its_pool(self, secret: Json) -> None:
        assert secret["metadata"]["labels"] == labels("p")

    def test_holds_what_it_holds_in_its_data_only(self, secret: Json) -> None:
        text = json.dumps({**secret, "data": None})
        assert [
            one for hidden in HIDDEN.values() for one in in_disguise(hidden) if one in text
        ] == []


def test_the_repr_of_what_pods_need_shows_none_of_it() -> None:
    text = repr(Access(URL, KEY, REGISTRY))
    assert text == "Access(...)"


# --- names and labels

DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
QUALIFIED = re.compile(r"([a-z0-9.-]{1,253}/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

names = st.text(min_size=1, max_size=300) | st.from_regex(r"[A-Za-z0-9._-]{1,100}", fullmatch=True)
ids = st.lists(st.integers(0, 4095), min_size=1, max_size=4, unique=True).map(sorted)


@given(names, names, ids)
@quick
def test_the_name_of_a_job_is_a_dns_label_whatever_pool_and_node_are_called(
    pool: str, node: str, cpu_ids: list[int]
) -> None:
    name = job_name(pool, Placement(node, tuple(cpu_ids), 1000, cpu_ids[0]))
    assert DNS_LABEL.fullmatch(name)
    assert len(name) <= 63 - len("-abcde")  # what Kubernetes adds for the pod's


@given(names, names)
@quick
def test_the_values_of_labels_are_valid_whatever_pool_and_node_are_called(
    pool: str, node: str
) -> None:
    made = job_of(pool=pool, placement=Placement(node, (0,), 1000, 0))
    for metadata in (made["metadata"], made["spec"]["template"]["metadata"]):
        for value in metadata["labels"].values():
            assert LABEL_VALUE.fullmatch(value)
            assert len(value) <= 63


def test_the_keys_of_labels_and_annotations_are_valid() -> None:
    metadata = job_of()["metadata"]
    for key in [*metadata["labels"], *metadata["annotations"]]:
        assert QUALIFIED.fullmatch(key)


@given(names, names, ids)
@quick
def test_two_clients_that_want_the_same_pod_call_its_job_the_same(
    pool: str, node: str, cpu_ids: list[int]
) -> None:
    wanted = Placement(node, tuple(cpu_ids), 1000 * len(cpu_ids), cpu_ids[0])
    one, other = pod_spec(Settings(), pool), pod_spec(Settings(warm_for=1), pool)
    made = [
        job(spec, wanted, secret=secret, pull_secret=None, pool_cpus=0)
        for spec, secret in ((one, "s"), (other, "t"))
    ]
    assert made[0]["metadata"]["name"] == made[1]["metadata"]["name"]


@pytest.mark.parametrize(
    ("pool", "placement"),
    [
        ("q", Placement("node-a", (0, 1), 2000, 0)),
        ("p", Placement("node-b", (0, 1), 2000, 0)),
        ("p", Placement("node-a", (2, 3), 2000, 2)),
    ],
    ids=["another pool", "another node", "other CPUs"],
)
def test_another_pod_has_a_job_of_another_name(pool: str, placement: Placement) -> None:
    assert job_name(pool, placement) != job_name("p", Placement("node-a", (0, 1), 2000, 0))


def selects(selector: str, found: Json) -> bool:
    return all(
        found.get(key) == value for key, value in (p.split("=") for p in selector.split(","))
    )


@given(names, names)
@quick
def test_the_selector_of_a_pool_selects_what_is_its_own(pool: str, other: str) -> None:
    assert selects(selector_of(pool), labels(pool))
    assert selects(selector_of(pool), labels(other)) == (pool == other)


@pytest.mark.parametrize(
    ("metadata", "ours"),
    [
        ({"labels": labels("p")}, True),
        ({"labels": {"app.kubernetes.io/name": "web"}}, False),
        ({"labels": {}}, False),
        ({"labels": None}, False),
        ({}, False),
    ],
)
def test_what_k8sfutures_has_made_is_known_by_its_label(metadata: Json, ours: bool) -> None:
    assert is_ours(metadata) is ours


# --- merging

keys = st.sampled_from("abcd")
leaves = st.integers(0, 3) | st.sampled_from(["x", "y"]) | st.booleans()
trees = st.recursive(leaves, lambda inner: st.dictionaries(keys, inner, max_size=3), max_leaves=12)
mappings = st.dictionaries(keys, trees, max_size=4)
unnamed = st.lists(leaves | st.fixed_dictionaries({"key": leaves}), max_size=3)


def named_lists() -> st.SearchStrategy[list[Json]]:
    item = st.fixed_dictionaries({"name": st.sampled_from("pqrs")}, optional={"x": trees})
    return st.lists(item, max_size=4, unique_by=lambda one: one["name"])


anything = st.recursive(
    leaves | st.none(),
    lambda inner: (
        st.dictionaries(keys, inner, max_size=3)
        | st.lists(inner, max_size=2)
        | st.lists(st.fixed_dictionaries({"name": keys, "x": inner}), max_size=2)
    ),
    max_leaves=10,
)


def patched(target: Any, patch: Any) -> Any:
    """RFC 7386, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = patched(result.get(name), value)
    return result


@given(mappings, mappings)
@quick
def test_mappings_are_merged_as_rfc_7386_says(base: Json, over: Json) -> None:
    assert merged(base, over) == patched(base, over)


@given(mappings, keys)
@quick
def test_none_takes_a_field_away(base: Json, key: str) -> None:
    assert merged(base, {key: None}) == {name: base[name] for name in base if name != key}


@given(mappings, keys, mappings, keys)
@quick
def test_none_takes_a_field_of_a_field_away(
    base: Json, outer: str, inside: Json, inner: str
) -> None:
    over = {outer: {inner: None}}
    left = {name: inside[name] for name in inside if name != inner}
    assert merged({**base, outer: inside}, over) == {**base, outer: left}


@given(anything)
@quick
def test_laying_nothing_over_a_mapping_changes_nothing(value: Any) -> None:
    assert merged({"a": value}, {}) == {"a": value}


@given(anything, anything)
@quick
def test_what_is_merged_is_not_changed(base: Any, over: Any) -> None:
    before = copy.deepcopy((base, over))
    merged(base, over)
    assert (base, over) == before


@given(mappings, mappings)
@quick
def test_merging_the_same_twice_is_merging_it_once(base: Json, over: Json) -> None:
    once = merged(base, over)
    assert merged(once, over) == once


@given(unnamed, unnamed)
@quick
def test_to_a_list_of_things_without_a_name_it_adds(base: list[Any], over: list[Any]) -> None:
    assert merged(base, over) == base + over


@given(named_lists(), named_lists())
@quick
def test_lists_of_things_with_a_name_are_merged_by_name(base: list[Json], over: list[Json]) -> None:
    theirs = {item["name"]: item for item in over}
    ours = {item["name"] for item in base}
    expected = [merged(item, theirs.get(item["name"], {})) for item in base]
    assert merged(base, over) == expected + [item for item in over if item["name"] not in ours]


@pytest.mark.parametrize(
    ("base", "over"), [([1], {"a": 1}), ({"a": 1}, [1]), ({"a": 1}, 5), (5, {"a": 1}), (None, [1])]
)
def test_of_two_different_kinds_the_one_that_is_laid_over_stays(base: Any, over: Any) -> None:
    assert merged(base, over) == over


# --- a template wins


def test_a_template_changes_a_field_of_ours() -> None:
    assert templated(terminationGracePeriodSeconds=5)["spec"]["terminationGracePeriodSeconds"] == 5


def test_a_template_takes_a_field_of_ours_away() -> None:
    assert "enableServiceLinks" not in templated(enableServiceLinks=None)["spec"]


def test_a_template_changes_one_field_of_a_mapping_and_leaves_the_others() -> None:
    context = templated(securityContext={"runAsUser": 1000})["spec"]["securityContext"]
    assert context == {**pod_of()["spec"]["securityContext"], "runAsUser": 1000}


def test_a_template_reaches_our_container_by_its_name() -> None:
    limits = {"limits": {"nvidia.com/gpu": 1}}
    pod = templated(containers=[{"name": "worker", "image": "mine:2", "resources": limits}])
    worker = worker_of(pod)
    assert worker["image"] == "mine:2"
    assert worker["resources"] == {**worker_of(pod_of())["resources"], **limits}


def test_a_template_adds_containers_volumes_variables_and_tolerations() -> None:
    pod = templated(
        containers=[
            {"name": "log", "image": "busybox"},
            {"name": "worker", "env": [{"name": "OMP_NUM_THREADS", "value": "2"}]},
        ],
        volumes=[{"name": "data", "emptyDir": {}}],
        tolerations=[{"operator": "Exists"}],
    )
    ours = pod_of()
    assert [one["name"] for one in pod["spec"]["containers"]] == ["worker", "log"]
    assert pod["spec"]["volumes"] == [*ours["spec"]["volumes"], {"name": "data", "emptyDir": {}}]
    assert pod["spec"]["tolerations"] == [{"operator": "Exists"}]
    *before, added = worker_of(pod)["env"]
    assert [one["name"] for one in before] == [one["name"] for one in worker_of(ours)["env"]]
    assert added == {"name": "OMP_NUM_THREADS", "value": "2"}


def test_a_template_adds_labels_and_annotations_beside_ours() -> None:
    more = {"labels": {"team": "blue"}, "annotations": {"note": "x"}}
    made = job_of(Settings(pod_template={"metadata": more}))
    metadata = made["spec"]["template"]["metadata"]
    assert metadata["labels"] == {**labels("a-pool"), "team": "blue"}
    assert metadata["annotations"] == {
        **pod_of(Settings(pod_template={"metadata": more}))["metadata"]["annotations"],
        "note": "x",
    }
    assert made["metadata"]["annotations"]["note"] == "x"


def test_the_kind_that_a_template_names_does_not_get_into_the_pod() -> None:
    pod = pod_of(Settings(pod_template={"apiVersion": "v1", "kind": "Pod", "spec": {}}))
    assert set(pod) == {"metadata", "spec"}


# --- from settings to a pod's shape


def test_a_template_that_is_no_pod_is_refused_by_what_it_has_at_its_top() -> None:
    given = Settings(pod_template={"spec": {}, "containers": [], "template": {}})
    with pytest.raises(SettingValueError, match=r"'containers', 'template' at its top"):
        pod_spec(given, "p")


def test_without_settings_a_pod_has_the_usual_image_and_stays_for_ten_minutes() -> None:
    spec = pod_spec(Settings(), "p")
    assert (spec.image, spec.warm_for) == (default_image(Settings()), 600.0)
    assert dict(spec.shape) == {
        "image": default_image(Settings()),
        "versions": str(Versions.ours()),
    }


@pytest.mark.parametrize(
    "other",
    [
        Settings(image="x"),
        Settings(worker_processes=2),
        Settings(cpu=2),
        Settings(memory="1Gi"),
        Settings(node_selector={"a": "b"}),
        Settings(tolerations=[{"operator": "Exists"}]),
        Settings(pod_template={"spec": {"priority": 1}}),
    ],
    ids=repr,
)
def test_a_job_that_was_made_with_other_settings_differs_and_they_are_named(
    other: Settings,
) -> None:
    annotations = job_of(other)["metadata"]["annotations"]
    (name,) = other.shape("kubernetes")
    assert pod_spec(Settings(), "a-pool").differences(annotations).startswith(f"{name}=")
    assert not pod_spec(other, "a-pool").differences(annotations)


@pytest.mark.parametrize(
    "other",
    [
        Settings(warm_for=5),
        Settings(retries=0),
        Settings(amqp_url=URL, secret="s"),
        Settings(image_pull_policy="Never"),
        Settings(image=default_image(Settings())),
    ],
    ids=["warm_for", "retries", "the broker", "the pull policy", "the image that it has anyway"],
)
def test_a_job_does_not_differ_by_what_does_not_shape_its_pod(other: Settings) -> None:
    annotations = job_of(other)["metadata"]["annotations"]
    assert not pod_spec(Settings(), "a-pool").differences(annotations)


@pytest.mark.parametrize("text", ["", "[]", "{", '"x"'])
def test_a_job_whose_shape_cannot_be_read_differs(text: str) -> None:
    spec = PodSpec(pool="p", shape={"a": "1"}, image="i", warm_for=1.0)
    assert spec.differences({SHAPE: text}) == "a=not set (here 1)"


@pytest.mark.parametrize("secret", HIDDEN.values(), ids=HIDDEN)
def test_the_shape_that_clients_see_holds_no_secret(secret: str) -> None:
    assert secret not in json.dumps(dict(pod_spec(SECRETIVE, "p").shape))


@pytest.mark.parametrize(
    ("given", "size"),
    [
        (Settings(), Size()),
        (Settings(worker_processes=3), Size(processes=3)),
        (Settings(cpu=2), Size(cpu=2000)),
        (Settings(cpu=0.5), Size(cpu=500)),
        (Settings(cpu="1500m"), Size(cpu=1500)),
        (Settings(memory="2Gi"), Size(memory=2 << 30)),
        (Settings(memory=1000), Size(memory=1000)),
        (
            Settings(worker_processes=4, cpu=2, memory="1G"),
            Size(processes=4, cpu=2000, memory=10**9),
        ),
    ],
    ids=repr,
)
def test_the_size_of_a_pod_is_that_of_the_settings(given: Settings, size: Size) -> None:
    assert size_of(given) == size


@pytest.mark.parametrize(
    "given", [Settings(), Settings(registry_server="registry.example")], ids=repr
)
def test_a_registry_without_a_user_needs_no_login(given: Settings) -> None:
    assert registry_of(given) is None


def test_a_registry_with_a_user_needs_a_login() -> None:
    assert registry_of(SECRETIVE) == REGISTRY


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"registry_user": "u"}, "registry_server and registry_password"),
        ({"registry_password": "hidden"}, "registry_server and registry_user"),
        ({"registry_server": "r", "registry_user": "u"}, "registry_password"),
        ({"registry_server": "r", "registry_password": "hidden"}, "registry_user"),
        ({"registry_user": "u", "registry_password": "hidden"}, "registry_server"),
    ],
)
def test_half_a_login_is_refused_by_what_is_missing(given: Json, missing: str) -> None:
    with pytest.raises(SettingValueError, match=f"^{missing} must be given") as raised:
        registry_of(Settings(**given))
    assert "hidden" not in str(raised.value)


# --- Jobs that have ended, and those that are left behind

LONG_AGO = "2020-01-01T00:00:00Z"
AHEAD = "2999-01-01T00:00:00Z"
"""Younger than anything, whenever this runs."""


def a_job(
    name: str = "j", made: str = LONG_AGO, *conditions: tuple[str, str, str], **more: Any
) -> Json:
    """As the API has it; conditions are type, status and time."""
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "creationTimestamp": made, **more},
        "status": {
            "conditions": [
                {"type": kind, "status": status, "lastTransitionTime": time}
                for kind, status, time in conditions
            ]
        },
    }


@pytest.mark.parametrize(
    ("one", "ended"),
    [
        (a_job(), False),
        ({"metadata": {"name": "j"}}, False),
        ({"metadata": {"name": "j"}, "status": {"active": 1, "ready": 1}}, False),
        (a_job("j", LONG_AGO, ("Complete", "True", AHEAD)), True),
        (a_job("j", LONG_AGO, ("Failed", "True", AHEAD)), True),
        (a_job("j", LONG_AGO, ("FailureTarget", "True", AHEAD)), True),
        (a_job("j", LONG_AGO, ("SuccessCriteriaMet", "True", AHEAD)), True),
        (a_job("j", LONG_AGO, ("Failed", "False", AHEAD)), False),
        (a_job("j", LONG_AGO, ("Suspended", "True", AHEAD)), False),
        (a_job("j", LONG_AGO, ("Suspended", "False", AHEAD), ("Failed", "True", AHEAD)), True),
        (a_job("j", LONG_AGO, deletionTimestamp=AHEAD), True),
    ],
)
def test_a_job_has_ended_once_kubernetes_says_so_or_deletes_it(one: Json, ended: bool) -> None:
    assert has_ended(one) is ended


class RecordingApi:
    """A cluster in which Jobs can be deleted, except for some."""

    namespace = "here"

    def __init__(self, *refused: str) -> None:
        self.refused = refused
        self.deleted: list[str] = []

    def delete(self, path: str, uid: str = "") -> bool:
        folder, _, name = path.rpartition("/")
        assert folder == "/apis/batch/v1/namespaces/here/jobs"
        if name in self.refused:
            raise ClusterError("the API refused", status=403)
        self.deleted.append(name)
        return True


NOW = "2026-01-01T10:00:00Z"


def pods_of(jobs: list[Json], phase: str, *states: str) -> list[Json]:
    """A pod for each Job; states are those of the worker and of other containers."""
    return [
        {
            "metadata": {"ownerReferences": [{"uid": one["metadata"]["uid"]}]},
            "spec": {"restartPolicy": "Never"},
            "status": {
                "phase": phase,
                "containerStatuses": [
                    {"name": name, "state": {state: {}}}
                    for name, state in zip(("worker", "other"), states, strict=False)
                ],
            },
        }
        for one in jobs
    ]


def collected(jobs: list[Json], *, started: bool = False, now: str = NOW) -> list[str]:
    api = RecordingApi()
    pods = pods_of(jobs, "Running" if started else "Pending")
    Jobs(api, "p").collect(jobs, pods, now)  # type: ignore[arg-type]
    return api.deleted


@pytest.mark.parametrize(
    "one",
    [
        pytest.param(a_job("j", AHEAD), id="young, without a pod"),
        pytest.param(a_job("j", AHEAD, ("Failed", "True", AHEAD)), id="young, and ended"),
        pytest.param(a_job("j", LONG_AGO, ("Failed", "True", AHEAD)), id="ended just now"),
        pytest.param(a_job("j", LONG_AGO, deletionTimestamp=LONG_AGO), id="being deleted"),
    ],
)
def test_a_job_is_kept(one: Json) -> None:
    assert collected([one]) == []


def test_a_job_whose_pod_runs_is_kept_however_old_it_is() -> None:
    assert collected([a_job("j", LONG_AGO)], started=True) == []


def test_a_job_that_ended_long_ago_is_removed() -> None:
    assert collected([a_job("j", LONG_AGO, ("Complete", "True", LONG_AGO))], started=True) == ["j"]


def test_a_job_whose_pod_never_started_is_removed_in_the_end() -> None:
    assert collected([a_job("j", LONG_AGO)], started=False) == ["j"]


def test_only_what_is_left_behind_is_removed() -> None:
    jobs = [a_job("a", AHEAD), a_job("b"), a_job("c", AHEAD), a_job("d")]
    assert collected(jobs) == ["b", "d"]


def test_a_job_that_cannot_be_removed_costs_a_warning_and_the_next_is_removed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    api = RecordingApi("b")
    with caplog.at_level(logging.WARNING):
        Jobs(api, "p").collect([a_job("b"), a_job("d")], [], NOW)  # type: ignore[arg-type]
    assert api.deleted == ["d"]
    assert caplog.messages == [
        "cannot remove the Job b, whose pod has never started: the API refused"
    ]


@pytest.mark.parametrize("now", ["", "tomorrow"])
def test_where_the_servers_time_is_unknown_nothing_is_too_old(now: str) -> None:
    jobs = [a_job("a"), a_job("b", LONG_AGO, ("Complete", "True", LONG_AGO))]
    assert collected(jobs, now=now) == []


def test_by_the_servers_clock_alone_a_job_is_old() -> None:
    assert collected([a_job("a", "2026-01-01T09:55:00Z"), a_job("b", "2026-01-01T09:45:00Z")]) == [
        "b"
    ]


@pytest.mark.parametrize(
    ("phase", "states", "removed"),
    [
        ("Running", ("terminated", "running"), ["j"]),
        ("Running", ("terminated", "waiting"), ["j"]),
        ("Running", ("terminated", "terminated"), []),
        ("Running", ("terminated",), []),
        ("Running", ("running", "terminated"), []),
        ("Running", ("running", "running"), []),
        ("Succeeded", ("terminated", "terminated"), []),
    ],
)
def test_a_job_whose_worker_has_ended_is_removed_where_another_container_goes_on(
    phase: str, states: tuple[str, ...], removed: list[str]
) -> None:
    api = RecordingApi()
    jobs = [a_job("j", AHEAD)]
    Jobs(api, "p").collect(jobs, pods_of(jobs, phase, *states), NOW)  # type: ignore[arg-type]
    assert api.deleted == removed


def test_a_worker_that_kubernetes_starts_again_has_not_ended_for_good() -> None:
    api = RecordingApi()
    jobs = [a_job("j", AHEAD)]
    pods = pods_of(jobs, "Running", "terminated", "running")
    pods[0]["spec"]["restartPolicy"] = "OnFailure"
    Jobs(api, "p").collect(jobs, pods, NOW)  # type: ignore[arg-type]
    assert api.deleted == []


# --- Jobs that nobody waits for any more


class CreatingApi(RecordingApi):
    """A cluster where Jobs can be made, until somebody has had enough."""

    def __init__(self, enough: int) -> None:
        super().__init__()
        self.enough = enough
        self.created: list[str] = []

    def create(self, path: str, body: Json) -> Json:
        kind = body["kind"]
        self.created.append(kind)
        name = body["metadata"]["name"]
        return {"metadata": {"name": name, "uid": f"uid-{len(self.created)}"}}

    def wanted(self) -> bool:
        return self.created.count("Job") < self.enough


def started(
    api: CreatingApi, count: int, registry: tuple[str, str, str] | None = None
) -> dict[str, str]:
    return Jobs(api, "p").start(  # type: ignore[arg-type]
        PodSpec(pool="p", shape={}, image="i", warm_for=1),
        [Placement(f"node-{n}", (0,), 1000, 0) for n in range(count)],
        Access("amqp://u:p@h/", bytes(32), registry),
        pool_cpus=0,
        is_dead=lambda _uid: False,
        wanted=api.wanted,
    )


def test_pods_that_are_wanted_get_a_job_each_and_each_job_a_secret() -> None:
    api = CreatingApi(1000)
    assert len(started(api, 3)) == 3
    assert sorted(api.created) == ["Job"] * 3 + ["Secret"] * 3
    assert api.deleted == []


REFUSED = ClusterError('Operation cannot be fulfilled on resourcequotas "q"', status=409)


class RefusingApi(CreatingApi):
    """A cluster whose quota refuses so many Secrets with a conflict."""

    def __init__(self, times: int) -> None:
        super().__init__(1000)
        self.times = times

    def create(self, path: str, body: Json) -> Json:
        if body["kind"] == "Secret" and self.times:
            self.times -= 1
            raise REFUSED
        return super().create(path, body)


def test_a_secret_that_a_quota_refuses_for_others_at_that_moment_is_tried_again() -> None:
    api = RefusingApi(1)
    assert len(started(api, 1)) == 1
    assert api.created == ["Job", "Secret"]


def test_a_job_whose_secret_is_refused_is_removed_and_the_reason_told() -> None:
    api = RefusingApi(2)
    with pytest.raises(ClusterError, match="resourcequotas"):
        started(api, 1)
    assert api.created == ["Job"]
    assert len(api.deleted) == 1


def test_nodes_find_the_secret_that_they_pull_with_before_they_want_it() -> None:
    """The other one is mounted first: a pod that has it pulls its image next."""
    api = CreatingApi(1000)
    made: list[str] = []

    def create(path: str, body: Json) -> Json:
        made.append(body.get("type", body["kind"]))
        return CreatingApi.create(api, path, body)

    api.create = create  # type: ignore[method-assign]
    started(api, 1, REGISTRY)
    assert made == ["Job", "kubernetes.io/dockerconfigjson", "Opaque"]


@pytest.mark.parametrize("enough", [0, 1, 2])
def test_once_pods_are_not_wanted_any_more_no_job_of_theirs_stays(enough: int) -> None:
    api = CreatingApi(enough)
    assert started(api, 2) == {}
    assert api.created.count("Job") == len(api.deleted), "and their Secrets go with them"
    assert len(api.deleted) >= enough


def test_the_jobs_of_a_pool_are_told_from_those_of_others() -> None:
    jobs = [{"metadata": {"name": pool, "labels": labels(pool)}} for pool in ("p", "q")]
    assert Jobs(RecordingApi(), "p").of_pool(jobs) == jobs[:1]  # type: ignore[arg-type]
    assert jobs[0]["metadata"]["labels"][POOL] == digest("p")


# --- misspelt templates


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"metadata": {"label": {}}}, "metadata of pod_template has 'label'.*'labels'"),
        ({"spec": {"conatiners": []}}, "spec of pod_template has 'conatiners'.*'containers'"),
        ({"spec": {"nodeselector": {}}}, "spec of pod_template has 'nodeselector'.*'nodeSelector'"),
        (
            {"spec": {"containers": [{"name": "worker"}, {"name": "x", "resource": {}}]}},
            r"spec.containers\[1\] of pod_template has 'resource'.*'resources'",
        ),
        (
            {"spec": {"initContainers": [{"comand": []}]}},
            r"spec.initContainers\[0\] of pod_template has 'comand'.*'command'",
        ),
        ({"spec": {"zzz": 1}}, "spec of pod_template has 'zzz'.*Kubernetes would drop it"),
        ({"spec": {1: 1}}, "spec of pod_template has '1'"),
        ({"spec": {"initContainers": {"name": "x"}}}, "initContainers .* must be a list of dicts"),
        ({"spec": {"containers": ["worker"]}}, "containers .* must be a list of dicts"),
    ],
)
def test_a_misspelt_template_is_refused_and_the_right_word_is_offered(
    template: Json, words: str
) -> None:
    with pytest.raises(SettingValueError, match=words):
        pod_spec(Settings(pod_template=template), "p")


def test_every_field_that_the_installed_client_knows_is_let_through() -> None:
    for kind, part in ((SPEC, "spec"), (METADATA, "metadata")):
        template = {part: dict.fromkeys(fields_of(kind))}
        assert pod_spec(Settings(pod_template=template), "p").template == template
    container = dict.fromkeys(fields_of(CONTAINER_FIELDS))
    pod_spec(Settings(pod_template={"spec": {"containers": [container]}}), "p")


def test_a_field_that_only_the_installed_client_knows_is_let_through() -> None:
    check_fields({"spec": {"fieldOfTheFuture": 1}}, lambda _kind: {"fieldOfTheFuture"})


def test_the_client_is_not_asked_for_what_is_known() -> None:
    check_fields({"spec": {"volumes": [], "containers": [{"name": "worker"}]}}, pytest.fail)
