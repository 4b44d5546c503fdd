"""What the nodes of a cluster have left: read from the API's own JSON, nothing asked or changed.

Pure: dictionaries in, records out. Amounts of CPU are thousandths (``m``), of memory bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

from ...quantities import quantity
from ...values import dataclass
from .labels import CPU_IDS, NODE, POOL, POOL_NAME, Membership, is_ours

Json = Mapping[str, Any]


def millicores(value: str | float | None) -> int:
    """An amount of CPU, in thousandths, rounded up as the scheduler does."""
    return math.ceil(quantity(value) * 1000)


@dataclass(frozen=True, slots=True)
class Holding:
    """What one pool of k8sfutures has requested on a node.

    Attributes:
        pool: the pool's name.
        cpu: thousandths of a CPU.
        namesake: whether it only has the name of the client's own pool; see `Membership`.
    """

    pool: str
    cpu: int
    namesake: bool = False


@dataclass(slots=True)
class Node:
    """A node, and what is free there.

    Attributes:
        name: the node's.
        cpus: CPUs that the machine has, by its capacity; their ids are 0 and up.
        cpu: thousandths of a CPU that can be requested there in all.
        cpu_free: thousandths that nobody has requested.
        memory_free: bytes that nobody has requested.
        pods_free: how many more pods it takes.
        refusal: why no pod of ours can be there, or "".
        users: by CPU id, how many CPU processes of ours have it, in pods of any pool.
        holdings: what pools of k8sfutures have requested there.
        ordinals: numbers of the pods that our own pool has there.
    """

    name: str
    cpus: int
    cpu: int
    cpu_free: int
    memory_free: int
    pods_free: int
    refusal: str = ""
    users: dict[int, int] = field(default_factory=dict)
    holdings: list[Holding] = field(default_factory=list)
    ordinals: set[int] = field(default_factory=set)

    def take(self, cpu: int, memory: int, cpu_ids: Iterable[int]) -> None:
        """A pod is there, or will be."""
        self.cpu_free -= cpu
        self.memory_free -= memory
        self.pods_free -= 1
        for cpu_id in cpu_ids:
            self.users[cpu_id] = self.users.get(cpu_id, 0) + 1

    def new_ordinal(self, wanted: int) -> int:
        """A number for a new pod that none of our pool has there: this one, if it is free."""
        while wanted in self.ordinals:
            wanted += 1
        self.ordinals.add(wanted)
        return wanted

    def free_ids(self, count: int) -> list[int]:
        """So many CPU ids, those first that no process of ours has."""
        ids = sorted(range(self.cpus), key=lambda cpu_id: (self.users.get(cpu_id, 0), cpu_id))
        return sorted(ids[:count])


def read_nodes(
    nodes: Sequence[Json],
    pods: Sequence[Json],
    jobs: Sequence[Json],
    *,
    selector: Mapping[str, str],
    tolerations: Sequence[Json],
    membership: Membership | None = None,
) -> list[Node]:
    """The nodes, with what is free on each.

    Args:
        nodes: every node.
        pods: every pod of the cluster that has not ended.
        jobs: our own Jobs that have not ended: one that has no pod yet counts, too.
        selector: labels that a node of ours must have.
        tolerations: of our pods.
        membership: which pool is the client's; None for nobody's.

    Returns:
        One record for each node, by name.
    """
    found = {
        node["metadata"]["name"]: _read_node(node, selector=selector, tolerations=tolerations)
        for node in nodes
    }
    have_pods: set[str] = set()
    for pod in pods:
        metadata = pod["metadata"]
        annotations = metadata.get("annotations") or {}
        owners = metadata.get("ownerReferences") or ()
        have_pods.update(owner["uid"] for owner in owners)
        where = found.get(pod["spec"].get("nodeName") or annotations.get(NODE, ""))
        if where is not None:
            _count(where, metadata, pod["spec"], membership)
    for job in jobs:
        if job["metadata"]["uid"] not in have_pods:
            template = job["spec"]["template"]
            where = found.get((template["metadata"].get("annotations") or {}).get(NODE, ""))
            if where is not None:
                _count(where, template["metadata"], template["spec"], membership)
    return [found[name] for name in sorted(found)]


def _count(node: Node, metadata: Json, spec: Json, membership: Membership | None) -> None:
    cpu, memory = requests(spec)
    annotations = metadata.get("annotations") or {}
    ours = is_ours(metadata)
    node.take(cpu, memory, cpu_ids_of(metadata) if ours else ())
    if ours:
        digest = (metadata.get("labels") or {}).get(POOL, "")
        namesake = membership is not None and membership.is_namesake(metadata)
        node.holdings.append(Holding(annotations.get(POOL_NAME, digest), cpu, namesake))


def cpu_ids_of(metadata: Json) -> list[int]:
    """The CPU ids that were allotted to a pod or Job of ours."""
    text = (metadata.get("annotations") or {}).get(CPU_IDS, "")
    return [int(part) for part in text.split(",") if part.strip().isdigit()]


def requests(spec: Json) -> tuple[int, int]:
    """The CPU and memory that a pod requests, as the scheduler counts it.

    The sum of its containers and sidecars, or what one of its init containers wants, whichever
    is more, and its overhead
    (https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers).
    """
    cpu = memory = peak_cpu = peak_memory = 0
    for container in spec.get("initContainers") or ():
        wants_cpu, wants_memory = _wants(container)
        if container.get("restartPolicy") == "Always":
            cpu, memory = cpu + wants_cpu, memory + wants_memory
            wants_cpu = wants_memory = 0
        peak_cpu = max(peak_cpu, cpu + wants_cpu)
        peak_memory = max(peak_memory, memory + wants_memory)
    for container in spec.get("containers") or ():
        wants_cpu, wants_memory = _wants(container)
        cpu, memory = cpu + wants_cpu, memory + wants_memory
    cpu, memory = max(cpu, peak_cpu), max(memory, peak_memory)
    # As of Kubernetes 1.32 a pod can say it of itself as a whole.
    whole = (spec.get("resources") or {}).get("requests") or {}
    cpu = millicores(whole["cpu"]) if "cpu" in whole else cpu
    memory = int(quantity(whole["memory"])) if "memory" in whole else memory
    overhead = spec.get("overhead") or {}
    return cpu + millicores(overhead.get("cpu")), memory + int(quantity(overhead.get("memory")))


def _wants(container: Json) -> tuple[int, int]:
    resources = container.get("resources") or {}
    # The API server has filled in requests from limits; a Job's own template has not been.
    wants = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
    return millicores(wants.get("cpu")), int(quantity(wants.get("memory")))


def _read_node(node: Json, *, selector: Mapping[str, str], tolerations: Sequence[Json]) -> Node:
    status = node["status"]
    allocatable = status.get("allocatable") or {}
    capacity = status.get("capacity") or allocatable
    cpu = millicores(allocatable.get("cpu"))
    return Node(
        name=node["metadata"]["name"],
        cpus=max(1, millicores(capacity.get("cpu")) // 1000),
        cpu=cpu,
        cpu_free=cpu,
        memory_free=int(quantity(allocatable.get("memory"))),
        pods_free=int(quantity(allocatable.get("pods", 110))),
        refusal=_refusal(node, selector, tolerations),
    )


def not_ready(node: Json) -> str:
    """Why a node is not ready, in Kubernetes' words; "" where it is."""
    for condition in node["status"].get("conditions") or ():
        if condition["type"] == "Ready":
            if condition["status"] == "True":
                return ""
            return f"is not ready ({condition.get('message') or condition.get('reason')})"
    return "is not ready (it has never reported)"


def _refusal(node: Json, selector: Mapping[str, str], tolerations: Sequence[Json]) -> str:
    spec = node.get("spec") or {}
    reason = not_ready(node)
    if reason:
        return reason
    if spec.get("unschedulable"):
        return "is cordoned (unschedulable)"
    labels = node["metadata"].get("labels") or {}
    for key, value in selector.items():
        if labels.get(key) != value:
            return f"does not have the label {key}={value} of node_selector"
    for taint in spec.get("taints") or ():
        if taint.get("effect") in {"NoSchedule", "NoExecute"} and not any(
            _tolerates(toleration, taint) for toleration in tolerations
        ):
            value = f"={taint['value']}" if taint.get("value") else ""
            return f"has the taint {taint['key']}{value}:{taint['effect']}, which is not tolerated"
    return ""


def _tolerates(toleration: Json, taint: Json) -> bool:
    """As the scheduler decides it (k8s.io/api/core/v1, Toleration.ToleratesTaint)."""
    if toleration.get("effect") not in {None, "", taint["effect"]}:
        return False
    if toleration.get("key") not in {None, "", taint["key"]}:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (
        taint.get("value") or ""
    )
