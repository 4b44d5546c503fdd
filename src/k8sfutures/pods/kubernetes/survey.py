"""A look over the cluster: what is free on its nodes, and what of ours is there already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ...values import dataclass
from .api import KubeApi
from .capacity import Node, cpu_ids_of, read_nodes
from .jobs import Jobs, has_ended
from .labels import NODE, Membership
from .manifests import PodSpec, ordinal_of
from .roster import Ending, Roster

Json = Mapping[str, Any]

AVOID: Final = 120.0
"""Seconds for which no pod is tried again on a node where one has failed at its start."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What there was at one moment.

    Attributes:
        nodes: with what is free there.
        pods: of k8sfutures in the namespace, of every pool.
        jobs: likewise.
        mine: the Jobs of the client's pool that have not ended, at its broker.
    """

    nodes: list[Node]
    pods: list[dict[str, Any]]
    jobs: list[dict[str, Any]]
    mine: list[Json]

    def expect(self, roster: Roster, answered: frozenset[str], now: float) -> int:
        """Have the roster expect pods of all Jobs that may still have one.

        Args:
            roster: of the client's pods.
            answered: pods that have ever answered the client.
            now: the time.

        Returns:
            CPUs of those whose pods have not answered: they may be starting.
        """
        starting = 0
        by_name = {node.name: node for node in self.nodes}
        for one in self.mine:
            name, uid = one["metadata"]["name"], one["metadata"]["uid"]
            if roster.is_dead(uid):
                continue
            where = (one["metadata"].get("annotations") or {}).get(NODE, "?")
            roster.expect(name, uid, where, now)
            if where in by_name:
                by_name[where].ordinals.add(ordinal_of(name))
            if roster.pod_of(name) not in answered:
                starting += len(cpu_ids_of(one["metadata"]))
        return starting


def look_over(
    api: KubeApi,
    spec: PodSpec,
    membership: Membership,
    roster: Roster,
    ours: list[dict[str, Any]],
) -> Survey:
    """Ask for nodes, for Jobs, and for the pods of everybody.

    Args:
        api: the cluster's.
        spec: what the pool's pods have in common.
        membership: which pods can be of use.
        roster: of them; it hears of the Jobs.
        ours: the pods of k8sfutures in the namespace; the roster has heard of them.

    Raises:
        ClusterError: the API does not answer, or refuses.
    """
    jobs = Jobs(api, spec.pool)
    every_job = jobs.all()
    roster.jobs_are(one["metadata"]["name"] for one in every_job)
    # From the API server's memory, not its database: there may be thousands.
    active = "status.phase!=Succeeded,status.phase!=Failed"
    pods, _ = api.list("/api/v1/pods", fieldSelector=active, resourceVersion="0", limit="")
    raw_nodes, _ = api.list("/api/v1/nodes", resourceVersion="0", limit="")
    names = {pod["metadata"]["name"] for pod in ours}
    nodes = read_nodes(
        raw_nodes,
        [pod for pod in pods if pod["metadata"]["name"] not in names] + _alive(ours),
        # One whose pod has ended holds nothing, though its controller has yet to say so.
        [
            one
            for one in every_job
            if not has_ended(one) and not roster.is_dead(one["metadata"]["uid"])
        ],
        selector=spec.every_node_selector,
        tolerations=spec.every_toleration,
        membership=membership,
    )
    mine = [
        one
        for one in jobs.of_pool(every_job)
        if not has_ended(one)
        # Or its pod has answered: the same broker by another name.
        and (membership.includes(one["metadata"]) or roster.pod_of(one["metadata"]["name"]))
    ]
    return Survey(nodes, ours, every_job, mine)


def _alive(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pod for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]


class FailedNodes:
    """Nodes where pods have failed before they ever answered: left out for a while."""

    def __init__(self) -> None:
        self._failures: dict[str, tuple[float, Ending]] = {}  # pod -> when, what

    def note(self, ending: Ending, now: float) -> None:
        """A pod has failed."""
        self._failures[ending.pod] = (now, ending)

    def refuse(self, nodes: list[Node], answered: frozenset[str], now: float) -> None:
        """Mark them.

        Args:
            nodes: the records to mark.
            answered: pods that have answered after all.
            now: the time.
        """
        for pod, (when, ending) in list(self._failures.items()):
            if when < now - AVOID or pod in answered:
                del self._failures[pod]
                continue
            for node in nodes:
                if node.name == ending.node and not node.refusal:
                    node.refusal = f"is avoided for {AVOID:g} s: {ending.words}"
