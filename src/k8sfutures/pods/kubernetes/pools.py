"""Pools on a cluster, for those who look after them: what there is, and how to remove it."""

from __future__ import annotations

from ...config import Settings
from ...values import dataclass
from .api import KubeApi
from .jobs import Jobs
from .labels import CPU_IDS, POOL_NAME, SELECTOR
from .stories import State, story_of


def connect(settings: Settings) -> KubeApi:
    """The cluster that the settings mean.

    Raises:
        ClusterError: there is no configuration, or it cannot be used.
    """
    return KubeApi(settings.kubeconfig, settings.context, settings.namespace)


@dataclass(frozen=True, slots=True)
class ListedPod:
    """A pod on the cluster: its pool, name, node, CPU ids (separated by commas), and phase.

    The phase is how far it has come (`stories.State`), or ``draining``.
    """

    pool: str
    name: str
    node: str
    cpu_ids: str
    phase: str


def list_pods(settings: Settings) -> list[ListedPod]:
    """The pods of every pool in the namespace, by pool.

    Args:
        settings: say which cluster and namespace.

    Raises:
        ClusterError: the API could not be asked.
    """
    api = connect(settings)
    try:
        pods, _ = api.list(f"/api/v1/namespaces/{api.namespace}/pods", labelSelector=SELECTOR)
    finally:
        api.close()
    found = []
    for pod in pods:
        annotations = pod["metadata"].get("annotations") or {}
        story = story_of(pod)
        pool, cpu_ids = annotations.get(POOL_NAME, "?"), annotations.get(CPU_IDS, "?")
        phase = story.state.name.lower()
        if story.state is not State.ENDED and pod["metadata"].get("deletionTimestamp"):
            phase = "draining"
        found.append(ListedPod(pool, story.name, story.node, cpu_ids, phase))
    return sorted(found, key=lambda pod: (pod.pool, pod.name))


def delete_pool(settings: Settings, pool: str | None) -> int:
    """Remove a pool from the cluster now: its Jobs, their pods and Secrets.

    Calls that run have `manifests.GRACE` seconds to finish.

    Args:
        settings: say which cluster and namespace.
        pool: the pool's name; None for every pool in the namespace.

    Returns:
        How many Jobs are gone, each with its pod.

    Raises:
        ClusterError: the API could not be asked.
    """
    api = connect(settings)
    try:
        return Jobs(api, pool or "").delete_all(SELECTOR if pool is None else None)
    finally:
        api.close()
