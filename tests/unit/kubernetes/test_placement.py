"""What is free on the nodes, and which pods are put there."""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from k8sfutures.pods.kubernetes.capacity import (
    Node,
    cpu_ids_of,
    millicores,
    not_ready,
    quantity,
    read_nodes,
    requests,
)
from k8sfutures.pods.kubernetes.labels import CPU_IDS, NODE, POOL_NAME, labels
from k8sfutures.pods.kubernetes.placement import Placement, Size, cpus, place, why_not

Json = dict[str, Any]
quick = settings(deadline=None, derandomize=True, database=None, max_examples=150)

MIB = 1 << 20
GIB = 1 << 30


# --- quantities


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (None, 0),
        ("0", 0),
        ("4", 4),
        (4, 4),
        (0.5, "0.5"),
        ("0.5", "0.5"),
        (".5", "0.5"),
        ("5.", 5),
        ("+5", 5),
        ("-5", -5),
        ("3920m", "3.920"),
        ("1500m", "1.5"),
        ("1k", 1000),
        ("1Ki", 1024),
        ("1M", 10**6),
        ("1Mi", 2**20),
        ("16G", 16 * 10**9),
        ("16Gi", 16 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("1T", 10**12),
        ("1Ti", 2**40),
        ("1P", 10**15),
        ("1Pi", 2**50),
        ("1E", 10**18),
        ("1Ei", 2**60),
        ("1e3", 1000),
        ("1E3", 1000),
        ("12e6", 12_000_000),
        ("1e+3", 1000),
        ("1e-3", "0.001"),
        ("128974848000m", 128974848),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_a_quantity_is_the_number_that_kubernetes_means(text: Any, number: Any) -> None:
    assert quantity(text) == Decimal(number)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Gi", "m", "one", "NaN", "inf", "-", "+"),
        *("1K", "1ki", "1g", "1GI", "1mi", "1 Gi", " 1", "1\n"),
        *("1e", "1ee3", "e3", "1e1.5", "--1", "0x10", "1,5", "1_000", "1Gib", "1mm"),
    ],
)
def test_what_is_no_quantity_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="is not a Kubernetes quantity") as raised:
        quantity(text)
    assert repr(text) in str(raised.value)


@given(st.integers(0, 10**6), st.sampled_from(["", "k", "M", "G", "T", "P", "E"]))
@quick
def test_a_decimal_suffix_is_a_power_of_1000(number: int, suffix: str) -> None:
    power = ["", "k", "M", "G", "T", "P", "E"].index(suffix)
    assert quantity(f"{number}{suffix}") == number * 1000**power


@given(st.integers(0, 10**6), st.sampled_from(["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"]))
@quick
def test_a_binary_suffix_is_a_power_of_1024(number: int, suffix: str) -> None:
    power = 1 + ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].index(suffix)
    assert quantity(f"{number}{suffix}") == number * 1024**power


@given(st.integers(0, 10**9))
@quick
def test_cpus_are_counted_in_thousandths_however_they_are_written(thousandths: int) -> None:
    written = [f"{thousandths}m", str(Decimal(thousandths) / 1000), f"{thousandths}e-3"]
    assert {millicores(text) for text in written} == {thousandths}


@pytest.mark.parametrize(
    ("thousandths", "text"),
    [(4000, "4"), (500, "0.5"), (3920, "3.92"), (0, "0"), (128000, "128")],
)
def test_cpus_are_shown_to_people_without_zeros(thousandths: int, text: str) -> None:
    assert cpus(thousandths) == text


# --- what a pod requests


def container(cpu: str | None = None, memory: str | None = None, **more: Any) -> Json:
    wants = {name: one for name, one in (("cpu", cpu), ("memory", memory)) if one is not None}
    return {"name": "c", "resources": {"requests": wants}, **more}


def sidecar(cpu: str, memory: str = "0") -> Json:
    return container(cpu, memory, restartPolicy="Always")


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        pytest.param({"containers": [{"name": "c"}]}, (0, 0), id="nothing"),
        pytest.param({"containers": [{"name": "c", "resources": {}}]}, (0, 0), id="empty"),
        pytest.param(
            {"containers": [container("500m", "1Gi"), container("1", "512Mi")]},
            (1500, GIB + 512 * MIB),
            id="containers are added up",
        ),
        pytest.param(
            {"containers": [container("1", "1Mi")], "initContainers": [container("3", "2Mi")]},
            (3000, 2 * MIB),
            id="an init container that wants more counts instead",
        ),
        pytest.param(
            {"containers": [container("3", "2Mi")], "initContainers": [container("1", "1Mi")]},
            (3000, 2 * MIB),
            id="an init container that wants less does not count",
        ),
        pytest.param(
            {
                "containers": [container("1", "9Mi")],
                "initContainers": [container("2", "1Mi"), container("1", "4Mi")],
            },
            (2000, 9 * MIB),
            id="init containers run one after the other, and each resource counts for itself",
        ),
        pytest.param(
            {"containers": [container("1", "2Mi")], "initContainers": [sidecar("500m", "1Mi")]},
            (1500, 3 * MIB),
            id="a sidecar runs beside the containers",
        ),
        pytest.param(
            {"containers": [container("500m", "1Mi")], "initContainers": [sidecar("2", "4Mi")]},
            (2500, 5 * MIB),
            id="a sidecar counts once",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [sidecar("500m"), container("2")],
            },
            (2500, 0),
            id="an init container runs beside the sidecars that were started before it",
        ),
        pytest.param(
            {
                "containers": [container("1")],
                "initContainers": [container("2"), sidecar("500m")],
            },
            (2000, 0),
            id="an init container does not run beside the sidecars that are started after it",
        ),
        pytest.param(
            {
                "containers": [container("1", "1Mi")],
                "initContainers": [container("2", "2Mi")],
                "overhead": {"cpu": "250m", "memory": "3Mi"},
            },
            (2250, 5 * MIB),
            id="overhead comes on top",
        ),
        pytest.param(
            {"containers": [{"name": "c", "resources": {"limits": {"cpu": "2", "memory": "1Mi"}}}]},
            (2000, MIB),
            id="a limit is a request where there is none",
        ),
        pytest.param(
            {
                "containers": [
                    {
                        "name": "c",
                        "resources": {
                            "limits": {"cpu": "2", "memory": "2Mi"},
                            "requests": {"cpu": "1"},
                        },
                    }
                ]
            },
            (1000, 2 * MIB),
            id="a request counts where there is one",
        ),
    ],
)
def test_a_pod_requests_what_the_scheduler_counts(spec: Json, expected: tuple[int, int]) -> None:
    assert requests(spec) == expected


# --- nodes


def a_node(
    name: str = "node-a",
    cpu: str = "4",
    memory: str = "8Gi",
    pods: str = "110",
    *,
    capacity: str | None = None,
    **more: Any,
) -> Json:
    """As the API has it; ready, unless `conditions` say otherwise."""
    conditions = more.pop("conditions", [{"type": "Ready", "status": "True"}])
    node_labels = more.pop("labels", {})
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **node_labels}},
        "spec": more,
        "status": {
            "allocatable": {"cpu": cpu, "memory": memory, "pods": pods},
            "capacity": {"cpu": capacity or cpu, "memory": memory, "pods": pods},
            "conditions": conditions,
        },
    }


def a_pod(name: str, node: str | None, cpu: str = "1", memory: str = "0", **metadata: Any) -> Json:
    """Somebody else's."""
    spec: Json = {"containers": [container(cpu, memory)]}
    if node is not None:
        spec["nodeName"] = node
    return {"metadata": {"name": name, "uid": f"uid-{name}", **metadata}, "spec": spec}


def our_metadata(node: str, cpu_ids: list[int], pool: str = "pool") -> Json:
    return {
        "labels": labels(pool),
        "annotations": {
            POOL_NAME: pool,
            NODE: node,
            CPU_IDS: ",".join(map(str, cpu_ids)),
        },
    }


def our_pod(name: str, node: str, cpu_ids: list[int], **more: Any) -> Json:
    """One of k8sfutures, of whole CPUs, that is placed."""
    metadata = our_metadata(node, cpu_ids, more.pop("pool", "pool"))
    return a_pod(name, node, str(len(cpu_ids)), **metadata, **more)


def our_job(name: str, node: str, cpu_ids: list[int]) -> Json:
    metadata = our_metadata(node, cpu_ids)
    spec = {"containers": [container(str(len(cpu_ids)))]}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", **metadata},
        "spec": {"template": {"metadata": metadata, "spec": spec}},
    }


def read(
    nodes: list[Json],
    pods: list[Json] | None = None,
    jobs: list[Json] | None = None,
    *,
    selector: dict[str, str] | None = None,
    tolerations: list[Json] | None = None,
) -> list[Node]:
    return read_nodes(
        nodes, pods or [], jobs or [], selector=selector or {}, tolerations=tolerations or []
    )


def read_one(node: Json, *args: Any, **kwargs: Any) -> Node:
    (found,) = read([node], *args, **kwargs)
    return found


def test_nodes_are_read_in_the_order_of_their_names() -> None:
    found = read([a_node("b"), a_node("c"), a_node("a")])
    assert [node.name for node in found] == ["a", "b", "c"]


def test_what_is_free_on_an_empty_node_is_what_is_allocatable() -> None:
    node = read_one(a_node(cpu="3920m", memory="7Gi", pods="29", capacity="4"))
    assert (node.cpu_free, node.memory_free, node.pods_free) == (3920, 7 * GIB, 29)


def test_cpu_ids_are_those_of_the_machine_and_not_only_what_is_allocatable() -> None:
    assert read_one(a_node(cpu="3920m", capacity="4")).cpus == 4


def test_a_pod_takes_what_it_requests_from_its_node_alone() -> None:
    pods = [a_pod("web", "a", "1500m", "1Gi")]
    first, second = read([a_node("a"), a_node("b")], pods)
    assert (first.cpu_free, first.memory_free, first.pods_free) == (2500, 7 * GIB, 109)
    assert (second.cpu_free, second.memory_free, second.pods_free) == (4000, 8 * GIB, 110)


@pytest.mark.parametrize("node", [None, "gone"])
def test_a_pod_that_is_on_no_node_of_the_list_takes_nothing(node: str | None) -> None:
    assert read_one(a_node("a"), [a_pod("pending", node, "4")]).cpu_free == 4000


def test_our_job_for_a_node_that_is_gone_takes_nothing() -> None:
    assert read_one(a_node("a"), [], [our_job("j", "gone", [0])]).cpu_free == 4000


def test_our_pod_counts_where_it_is_meant_for_before_it_is_placed() -> None:
    pod = our_pod("p", "node-a", [0, 1])
    del pod["spec"]["nodeName"]
    assert read_one(a_node(), [pod]).cpu_free == 2000


def test_our_job_counts_before_it_has_a_pod() -> None:
    node = read_one(a_node(), [], [our_job("j", "node-a", [0, 1, 2])])
    assert (node.cpu_free, node.pods_free, node.users) == (1000, 109, {0: 1, 1: 1, 2: 1})


def test_our_job_and_its_pod_count_once() -> None:
    pod = our_pod("p", "node-a", [0, 1, 2], ownerReferences=[{"uid": "uid-j", "name": "j"}])
    node = read_one(a_node(), [pod], [our_job("j", "node-a", [0, 1, 2])])
    assert (node.cpu_free, node.pods_free, node.users) == (1000, 109, {0: 1, 1: 1, 2: 1})


def test_the_holdings_of_a_node_name_the_pools_of_k8sfutures_and_nobody_else() -> None:
    pods = [our_pod("p", "node-a", [0, 1], pool="mine"), a_pod("web", "node-a")]
    (holding,) = read_one(a_node(), pods).holdings
    assert (holding.pool, holding.cpu) == ("mine", 2000)


def test_cpu_ids_in_the_annotations_of_others_do_not_count() -> None:
    pod = a_pod("web", "node-a", annotations={CPU_IDS: "0,1"})
    assert read_one(a_node(), [pod]).users == {}


@pytest.mark.parametrize(
    ("annotations", "expected"),
    [({CPU_IDS: "0,5,17"}, [0, 5, 17]), ({CPU_IDS: ""}, []), ({}, []), (None, [])],
)
def test_the_cpu_ids_of_a_pod_are_in_its_annotations(annotations: Any, expected: list[int]) -> None:
    assert cpu_ids_of({"annotations": annotations}) == expected


@pytest.mark.parametrize(
    ("conditions", "words"),
    [
        ([{"type": "Ready", "status": "True", "reason": "KubeletReady"}], ""),
        (
            [
                {"type": "MemoryPressure", "status": "True", "message": "low"},
                {
                    "type": "Ready",
                    "status": "Unknown",
                    "reason": "NodeStatusUnknown",
                    "message": "Kubelet stopped posting node status.",
                },
            ],
            "is not ready (Kubelet stopped posting node status.)",
        ),
        (
            [{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}],
            "is not ready (KubeletNotReady)",
        ),
        ([], "is not ready (it has never reported)"),
        (None, "is not ready (it has never reported)"),
    ],
)
def test_a_node_that_is_not_ready_says_so_in_the_words_of_kubernetes(
    conditions: Any, words: str
) -> None:
    node = a_node(conditions=conditions)
    assert not_ready(node) == words
    assert read_one(node).refusal == words


def test_a_cordoned_node_is_refused() -> None:
    assert read_one(a_node(unschedulable=True)).refusal == "is cordoned (unschedulable)"


@pytest.mark.parametrize(
    ("node_labels", "refused"),
    [({"disk": "ssd", "zone": "b"}, False), ({"disk": "hdd"}, True), ({}, True)],
)
def test_a_node_without_a_label_of_the_selector_is_refused(
    node_labels: dict[str, str], refused: bool
) -> None:
    node = read_one(a_node(labels=node_labels), selector={"disk": "ssd"})
    words = "does not have the label disk=ssd of node_selector"
    assert node.refusal == (words if refused else "")


GPU = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}


@pytest.mark.parametrize(
    ("taint", "toleration", "tolerated"),
    [
        pytest.param(GPU, None, False, id="no toleration"),
        pytest.param(GPU, {"key": "gpu", "operator": "Exists"}, True, id="exists"),
        pytest.param(
            GPU,
            {"key": "gpu", "operator": "Exists", "effect": "NoSchedule"},
            True,
            id="exists, same effect",
        ),
        pytest.param(
            GPU,
            {"key": "gpu", "operator": "Exists", "effect": "NoExecute"},
            False,
            id="exists, another effect",
        ),
        pytest.param(GPU, {"operator": "Exists"}, True, id="everything"),
        pytest.param(
            GPU, {"operator": "Exists", "effect": "NoSchedule"}, True, id="all of its effect"
        ),
        pytest.param(
            GPU, {"operator": "Exists", "effect": "NoExecute"}, False, id="all of another effect"
        ),
        pytest.param(GPU, {"key": "fpga", "operator": "Exists"}, False, id="another key"),
        pytest.param(GPU, {"key": "gpu", "value": "yes"}, True, id="equal by default"),
        pytest.param(
            GPU, {"key": "gpu", "operator": "Equal", "value": "yes"}, True, id="equal value"
        ),
        pytest.param(
            GPU, {"key": "gpu", "operator": "Equal", "value": "no"}, False, id="another value"
        ),
        pytest.param(GPU, {"key": "gpu"}, False, id="no value"),
        pytest.param(
            {"key": "gpu", "effect": "NoSchedule"}, {"key": "gpu"}, True, id="neither has a value"
        ),
        pytest.param(
            GPU, {"key": "gpu", "value": "yes", "effect": ""}, True, id="an empty effect is any"
        ),
        pytest.param({**GPU, "effect": "NoExecute"}, None, False, id="NoExecute refuses"),
        pytest.param(
            {**GPU, "effect": "NoExecute"},
            {"key": "gpu", "operator": "Exists", "tolerationSeconds": 60},
            True,
            id="tolerated for a time",
        ),
        pytest.param({**GPU, "effect": "PreferNoSchedule"}, None, True, id="only preferred"),
    ],
)
def test_a_taint_is_tolerated_as_the_scheduler_decides_it(
    taint: Json, toleration: Json | None, tolerated: bool
) -> None:
    node = read_one(a_node(taints=[taint]), tolerations=[toleration] if toleration else [])
    assert (node.refusal == "") == tolerated


def test_every_taint_must_be_tolerated_and_the_first_that_is_not_is_named() -> None:
    taints = [GPU, {"key": "dedicated", "effect": "NoExecute"}]
    node = read_one(a_node(taints=taints), tolerations=[{"key": "gpu", "operator": "Exists"}])
    assert node.refusal == "has the taint dedicated:NoExecute, which is not tolerated"


def test_a_taint_is_named_with_its_value() -> None:
    refusal = read_one(a_node(taints=[GPU])).refusal
    assert refusal == "has the taint gpu=yes:NoSchedule, which is not tolerated"


# --- where pods go, in any cluster


@dataclasses.dataclass
class Free:
    """What a node had, for comparison: `place` changes its records."""

    cpu: int
    memory: int
    pods: int
    cpus: int
    users: dict[int, int]
    refusal: str


def free_on(nodes: list[Node]) -> dict[str, Free]:
    return {
        node.name: Free(
            node.cpu_free,
            node.memory_free,
            node.pods_free,
            node.cpus,
            dict(node.users),
            node.refusal,
        )
        for node in nodes
    }


@st.composite
def clusters(draw: st.DrawFn) -> list[Node]:
    """Nodes of all sizes; pods of others, and pods of k8sfutures with whole CPUs, are there."""
    raw_nodes, pods = [], []
    for name in draw(st.lists(st.sampled_from("abcde"), unique=True, max_size=4)):
        machine = draw(st.integers(1, 10))
        reserved = draw(st.sampled_from([0, 0, 80, 500, 1000]))
        allocatable = max(0, machine * 1000 - reserved)
        raw_nodes.append(
            a_node(
                name,
                f"{allocatable}m",
                draw(st.sampled_from(["1Gi", "4Gi", "16Gi"])),
                draw(st.sampled_from(["1", "3", "110"])),
                capacity=str(machine),
                unschedulable=draw(st.sampled_from([False, False, False, True])),
            )
        )
        ids = draw(st.sets(st.integers(0, machine - 1), max_size=allocatable // 1000))
        for number, cpu_id in enumerate(sorted(ids)):
            pods.append(our_pod(f"ours-{name}-{number}", name, [cpu_id], pool="other"))
        left = allocatable - 1000 * len(ids)
        taken = draw(st.integers(0, left))
        pods.append(
            a_pod(f"web-{name}", name, f"{taken}m", draw(st.sampled_from(["0", "512Mi", "4Gi"])))
        )
    return read(raw_nodes, pods)


memories = st.sampled_from([0, 0, 256 * MIB, 3 * GIB])
filling = st.builds(Size, memory=memories)
whole = st.builds(Size, processes=st.integers(1, 5), memory=memories)
roomy = st.builds(
    lambda processes, extra, memory: Size(
        processes=processes, cpu=processes * 1000 + extra, memory=memory
    ),
    st.integers(1, 4),
    st.integers(0, 2500),
    memories,
)
shared = st.builds(
    Size, processes=st.none() | st.integers(1, 4), cpu=st.integers(100, 3500), memory=memories
)
sizes = filling | whole | roomy | shared
limits = st.none() | st.integers(0, 40)


@given(clusters(), sizes, limits)
@quick
def test_pods_never_take_more_cpu_memory_or_room_than_a_node_has_free(
    nodes: list[Node], size: Size, wanted: int | None
) -> None:
    before = free_on(nodes)
    placements = place(nodes, size, wanted)
    for name, free in before.items():
        here = [one for one in placements if one.node == name]
        assert sum(one.cpu for one in here) <= max(0, free.cpu)
        assert len(here) * size.memory <= max(0, free.memory)
        assert len(here) <= max(0, free.pods)


@given(clusters(), sizes, limits)
@quick
def test_a_node_that_is_refused_is_never_used(
    nodes: list[Node], size: Size, wanted: int | None
) -> None:
    refused = {node.name for node in nodes if node.refusal}
    assert refused.isdisjoint(one.node for one in place(nodes, size, wanted))


@given(clusters(), sizes, limits)
@quick
def test_each_cpu_process_of_a_pod_has_a_cpu_id_of_its_node_to_itself(
    nodes: list[Node], size: Size, wanted: int | None
) -> None:
    machines = {node.name: node.cpus for node in nodes}
    for one in place(nodes, size, wanted):
        assert len(set(one.cpu_ids)) == len(one.cpu_ids) >= 1
        assert set(one.cpu_ids) <= set(range(machines[one.node]))


@given(clusters(), filling | whole | roomy, limits)
@quick
def test_pods_of_whole_cpus_on_one_node_share_no_cpu_id(
    nodes: list[Node], size: Size, wanted: int | None
) -> None:
    used = {(node.name, cpu_id) for node in nodes for cpu_id in node.users}
    for one in place(nodes, size, wanted):
        ids = {(one.node, cpu_id) for cpu_id in one.cpu_ids}
        assert used.isdisjoint(ids)
        used |= ids


@given(clusters(), shared, limits)
@quick
def test_pods_of_parts_of_cpus_are_spread_evenly_over_the_cpu_ids(
    nodes: list[Node], size: Size, wanted: int | None
) -> None:
    for node in nodes:
        assume(not node.users)
    place(nodes, size, wanted)
    for node in nodes:
        users = [node.users.get(cpu_id, 0) for cpu_id in range(node.cpus)]
        assert max(users) - min(users) <= 1


@given(clusters(), sizes, st.integers(0, 40))
@quick
def test_never_more_cpu_processes_than_wanted_rounded_up_to_a_pod(
    nodes: list[Node], size: Size, wanted: int
) -> None:
    placements = place(nodes, size, wanted)
    total = sum(len(one.cpu_ids) for one in placements)
    assert total - (len(placements[-1].cpu_ids) if placements else 0) < max(1, wanted)
    if size.fixed is None:
        assert total <= wanted


@given(clusters(), sizes, st.integers(0, 40))
@quick
def test_a_limit_is_reached_wherever_there_is_room_for_it(
    nodes: list[Node], size: Size, wanted: int
) -> None:
    unlimited = place([dataclasses.replace(n, users=dict(n.users)) for n in nodes], size, None)
    most = sum(len(one.cpu_ids) for one in unlimited)
    assert sum(len(one.cpu_ids) for one in place(nodes, size, wanted)) >= min(most, wanted)


@given(clusters(), sizes)
@quick
def test_without_a_limit_all_that_fits_is_placed(nodes: list[Node], size: Size) -> None:
    before = free_on(nodes)
    placements = place(nodes, size, None)
    processes, cpu = size.fixed or (1, 1000)
    for name, free in before.items():
        here = [one for one in placements if one.node == name]
        assert (
            free.refusal
            or free.cpus < processes
            or free.cpu - sum(one.cpu for one in here) < cpu
            or free.memory - len(here) * size.memory < size.memory
            or free.pods - len(here) < 1
        )


@given(clusters(), filling)
@quick
def test_by_default_a_node_has_one_pod_that_fills_it(nodes: list[Node], size: Size) -> None:
    before = free_on(nodes)
    placements = place(nodes, size, None)
    assert len({one.node for one in placements}) == len(placements)
    for one in placements:
        assert len(one.cpu_ids) == before[one.node].cpu // 1000
        assert one.cpu == 1000 * len(one.cpu_ids)


@given(clusters(), filling, st.integers(1, 40))
@quick
def test_as_few_pods_as_will_do_are_placed(nodes: list[Node], size: Size, wanted: int) -> None:
    unlimited = place([dataclasses.replace(n, users=dict(n.users)) for n in nodes], size, None)
    rooms = sorted((len(one.cpu_ids) for one in unlimited), reverse=True)
    wanted = min(wanted, sum(rooms))
    fewest = next(count for count in range(len(rooms) + 1) if sum(rooms[:count]) >= wanted)
    assert len(place(nodes, size, wanted)) == fewest


@given(clusters(), sizes, limits)
@quick
def test_the_records_of_the_nodes_say_what_is_free_afterwards(
    nodes: list[Node], size: Size, wanted: int | None
) -> None:
    before = free_on(nodes)
    placements = place(nodes, size, wanted)
    for node in nodes:
        here = [one for one in placements if one.node == node.name]
        free = before[node.name]
        assert node.cpu_free == free.cpu - sum(one.cpu for one in here)
        assert node.memory_free == free.memory - size.memory * len(here)
        assert node.pods_free == free.pods - len(here)


# --- where pods go, by example


def test_what_fits_on_one_node_goes_to_the_smallest_that_has_room_for_it() -> None:
    nodes = read([a_node("big", "16"), a_node("middle", "8"), a_node("small", "2")])
    assert place(nodes, Size(), 6) == [Placement("middle", (0, 1, 2, 3, 4, 5), 6000, 0)]


def test_what_fits_on_no_node_alone_begins_on_the_largest() -> None:
    nodes = read([a_node("big", "8"), a_node("middle", "4"), a_node("small", "2")])
    assert [(one.node, len(one.cpu_ids)) for one in place(nodes, Size(), 9)] == [
        ("big", 8),
        ("small", 1),
    ]


def test_a_pod_gets_the_cpu_ids_that_no_pod_of_k8sfutures_has() -> None:
    nodes = read([a_node()], [our_pod("p", "node-a", [0, 2], pool="other")])
    assert place(nodes, Size(), None) == [Placement("node-a", (1, 3), 2000, 1)]


def test_nothing_is_placed_where_nothing_is_wanted() -> None:
    assert place(read([a_node()]), Size(), 0) == []


@pytest.mark.parametrize(
    ("size", "fixed"),
    [
        (Size(), None),
        (Size(memory=GIB), None),
        (Size(processes=3), (3, 3000)),
        (Size(processes=3, cpu=1500), (3, 1500)),
        (Size(cpu=2500), (2, 2500)),
        (Size(cpu=500), (1, 500)),
    ],
)
def test_a_pod_has_a_cpu_process_for_each_whole_cpu_unless_both_are_given(
    size: Size, fixed: tuple[int, int] | None
) -> None:
    assert size.fixed == fixed


# --- why no pod can be placed


@pytest.mark.parametrize(
    ("node", "pods", "size", "words"),
    [
        pytest.param(
            a_node(unschedulable=True),
            [],
            Size(),
            "node-a is cordoned (unschedulable)",
            id="refused",
        ),
        pytest.param(
            a_node(cpu="3920m", capacity="4"),
            [],
            Size(processes=4),
            "node-a has 3.92 CPUs in all, and a pod wants 4",
            id="too small",
        ),
        pytest.param(
            a_node(cpu="4"),
            [],
            Size(processes=8, cpu=4000),
            "node-a has 4 CPUs, and a pod has 8 CPU processes",
            id="too few CPU ids",
        ),
        pytest.param(
            a_node(),
            [a_pod("web", "node-a", "3500m")],
            Size(),
            "node-a has 0.5 of 4 CPUs free, and a pod wants 1",
            id="taken by others",
        ),
        pytest.param(
            a_node(),
            [
                our_pod("p", "node-a", [0, 1], pool="theirs"),
                our_pod("q", "node-a", [2], pool="theirs"),
                our_pod("r", "node-a", [3], pool="mine"),
            ],
            Size(processes=2),
            "node-a has 0 of 4 CPUs free, and a pod wants 2 (pool mine has 1, pool theirs has 3)",
            id="taken by pools",
        ),
        pytest.param(
            a_node(),
            [a_pod("web", "node-a", "5")],
            Size(),
            "node-a has 0 of 4 CPUs free, and a pod wants 1",
            id="overcommitted",
        ),
        pytest.param(
            a_node(memory="2Gi"),
            [a_pod("web", "node-a", "1", "1536Mi")],
            Size(memory=GIB),
            "node-a has 512 MiB of memory free, and a pod wants 1024 MiB",
            id="no memory",
        ),
        pytest.param(
            a_node(pods="1"),
            [a_pod("web", "node-a", "1")],
            Size(),
            "node-a takes no more pods (it has as many as it may)",
            id="no room for a pod",
        ),
    ],
)
def test_the_words_name_the_node_and_the_figures(
    node: Json, pods: list[Json], size: Size, words: str
) -> None:
    nodes = read([node], pods)
    assert place(nodes, size, None) == []
    assert why_not(nodes, size) == words


def test_the_words_name_each_node() -> None:
    nodes = read([a_node("a", unschedulable=True), a_node("b"), a_node("c", "2")])
    assert why_not(nodes, Size(processes=3)) == (
        "a is cordoned (unschedulable); b has room; c has 2 CPUs in all, and a pod wants 3"
    )


def test_the_words_say_that_a_cluster_has_no_nodes() -> None:
    assert why_not([], Size()) == "the cluster has no nodes"


@given(clusters(), sizes)
@quick
def test_the_words_say_that_a_node_has_room_where_a_pod_can_be_placed(
    nodes: list[Node], size: Size
) -> None:
    for node in nodes:
        words = why_not([node], size)
        room = bool(place([node], size, 1))
        assert (words == f"{node.name} has room") == room
