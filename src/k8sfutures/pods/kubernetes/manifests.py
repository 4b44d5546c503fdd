"""The objects that we put into a cluster: a Job for each pod, and the Secret that they read.

Pure: settings in, dictionaries out. The fields that the restricted Pod Security Standard wants
(https://kubernetes.io/docs/concepts/security/pod-security-standards/) are all here.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Any, Final

from ...tls import Tls
from ...values import dataclass
from .labels import (
    ACCESS,
    BROKER_VOLUME,
    CONTAINER,
    CPU_IDS,
    NODE,
    POOL_NAME,
    SHAPE,
    WARM_FOR,
    digest,
    labels,
)
from .placement import Placement

USER: Final = 65532
"""Numeric id of the user and the group that a pod runs as: the image's, and nobody's elsewhere."""

BROKER_FOLDER: Final = "/run/k8sfutures"
BROKER_FILE: Final = "broker.json"

CONNECT_WITHIN: Final = 10.0
"""Seconds that a new pod has to reach the broker; then it ends, and its log says why."""

TTL: Final = 60
"""Seconds after which Kubernetes removes a Job that has ended, at most; less for a short-lived
pool. Until then, ``kubectl logs`` still shows what its pod said."""

GRACE: Final = 30
"""Seconds that running calls have to finish when a pod is asked to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSpec:
    """What all pods of a pool have in common.

    Attributes:
        pool: the pool's name.
        shape: all that shapes a pod, as texts by the name of the setting.
        image: the container's.
        pull_policy: of the image, or None for Kubernetes' default.
        memory: a quantity, requested and the limit, or None.
        warm_for: seconds that a pod stays without a client.
        node_selector: labels that the node must have.
        tolerations: as in a pod's manifest.
        template: a part of a pod's manifest, merged over ours; see `merged`.
    """

    pool: str
    shape: Mapping[str, str]
    image: str
    pull_policy: str | None = None
    memory: str | None = None
    warm_for: float
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    template: Mapping[str, Any] = field(default_factory=dict)

    def differences(self, annotations: Mapping[str, str]) -> str:
        """Where the shape of a Job differs from this one, for people; "" where it does not."""
        theirs = _shape_in(annotations)
        return ", ".join(
            f"{name}={theirs.get(name, 'not set')} (here {self.shape.get(name, 'not set')})"
            for name in sorted({*theirs, *self.shape})
            if theirs.get(name) != self.shape.get(name)
        )

    @property
    def every_node_selector(self) -> dict[str, str]:
        """The setting's, and the template's."""
        spec = self.template.get("spec") or {}
        return {**self.node_selector, **(spec.get("nodeSelector") or {})}

    @property
    def every_toleration(self) -> list[Mapping[str, Any]]:
        """The setting's, and the template's."""
        return [*self.tolerations, *((self.template.get("spec") or {}).get("tolerations") or ())]


def _shape_in(annotations: Mapping[str, str]) -> dict[str, str]:
    try:
        shape = json.loads(annotations.get(SHAPE, "{}"))
    except ValueError:
        return {}
    return shape if isinstance(shape, dict) else {}


def job_name(pool: str, placement: Placement, access: str = "") -> str:
    """The Job's name: two clients that want the same pod at once both call it by this.

    Args:
        pool: the pool's name.
        placement: where its pod goes.
        access: the `access_mark`: clients of two brokers do not want the same pod.
    """
    which = digest(f"{pool} {access}" if access else pool)
    return f"k8sfutures-{which}-{digest(placement.node, 8)}-{placement.ordinal}"


def ordinal_of(name: str) -> int:
    """The number of a pod among those of its pool on its node, from its Job's name."""
    return int(name.rpartition("-")[2])


def job(
    spec: PodSpec,
    placement: Placement,
    *,
    secret: str,
    pull_secret: str | None,
    pool_cpus: int,
    access: str = "",
) -> dict[str, Any]:
    """The Job that runs one pod.

    Args:
        spec: what the pool's pods have in common.
        placement: where it goes, and with which CPUs.
        secret: name of the Secret with the broker's URL and the key.
        pull_secret: name of the Secret for the image's registry, or None.
        pool_cpus: CPUs of the whole pool, if this start makes it complete; else 0.
        access: the `access_mark` of the broker and the key.
    """
    pod = _pod(spec, placement, secret, pull_secret, pool_cpus)
    pod["metadata"]["annotations"][ACCESS] = access
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": job_name(spec.pool, placement, access),
            "labels": labels(spec.pool),
            "annotations": dict(pod["metadata"]["annotations"]),
        },
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 0,
            "ttlSecondsAfterFinished": ttl(spec.warm_for),
            "template": pod,
        },
    }


def ttl(warm_for: float) -> int:
    """Seconds after which a Job that has ended is removed."""
    return int(min(TTL, max(1, warm_for)))


def _pod(
    spec: PodSpec, placement: Placement, secret: str, pull_secret: str | None, pool_cpus: int
) -> dict[str, Any]:
    config = {
        "pool": spec.pool,
        "cpu_ids": list(placement.cpu_ids),
        "warm_for": spec.warm_for,
        "connect_within": CONNECT_WITHIN,
        "shape": dict(spec.shape),
        "pool_cpus": pool_cpus,
    }
    resources: dict[str, Any] = {"requests": {"cpu": f"{placement.cpu}m"}}
    if spec.memory is not None:
        resources["requests"]["memory"] = spec.memory
        resources["limits"] = {"memory": spec.memory}
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": spec.image,
        "args": [f"{BROKER_FOLDER}/{BROKER_FILE}"],
        "env": [
            {"name": "K8SFUTURES_POD_CONFIG", "value": json.dumps(config)},
            {
                "name": "K8SFUTURES_POD_NAME",
                "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}},
            },
            {"name": "K8SFUTURES_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "resources": resources,
        # What it said last becomes what the client's error shows.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": BROKER_VOLUME, "mountPath": BROKER_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108  # the pod's own
            {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108  # likewise
        ],
    }
    if spec.pull_policy is not None:
        container["imagePullPolicy"] = spec.pull_policy
    body: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "affinity": {"nodeAffinity": _only_on(placement.node)},
        "containers": [container],
        "volumes": [
            {"name": BROKER_VOLUME, "secret": {"secretName": secret, "defaultMode": 0o440}},
            {"name": "tmp", "emptyDir": {}},
            # Containers get 64 MiB without it, which is soon full of arrays.
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
    }
    if pull_secret is not None:
        body["imagePullSecrets"] = [{"name": pull_secret}]
    if spec.node_selector:
        body["nodeSelector"] = dict(spec.node_selector)
    if spec.tolerations:
        body["tolerations"] = [dict(toleration) for toleration in spec.tolerations]
    pod = {
        "metadata": {
            "labels": labels(spec.pool),
            "annotations": {
                POOL_NAME: spec.pool,
                SHAPE: json.dumps(dict(spec.shape), sort_keys=True),
                NODE: placement.node,
                CPU_IDS: ",".join(map(str, placement.cpu_ids)),
                WARM_FOR: f"{spec.warm_for:g}",
            },
        },
        "spec": body,
    }
    template = {key: spec.template[key] for key in ("metadata", "spec") if key in spec.template}
    manifest: dict[str, Any] = merged(pod, template)
    return manifest


def _only_on(node: str) -> dict[str, Any]:
    # A field, not the label kubernetes.io/hostname, which need not be the node's name.
    by_name = {"key": "metadata.name", "operator": "In", "values": [node]}
    return {
        "requiredDuringSchedulingIgnoredDuringExecution": {
            "nodeSelectorTerms": [{"matchFields": [by_name]}]
        }
    }


_KEYS: Final = {"volumeMounts": "mountPath", "ports": "containerPort"}
"""What tells the items of a list from each other, where it is not their name."""


def merged(base: Any, over: Any, key: str = "name") -> Any:
    """A manifest with another laid over it, as a strategic merge patch would be.

    Args:
        base: ours.
        over: the user's. Mappings are merged, and None takes a field away. Lists of things with
            a name (containers, volumes, variables) are merged by name, mounts by their path; to
            other lists it adds.
        key: what tells the items of lists from each other.

    Returns:
        A new manifest.
    """
    if isinstance(over, Mapping):
        base = base if isinstance(base, Mapping) else {}
        result = {field: value for field, value in base.items() if field not in over}
        for field, value in over.items():
            if value is not None:
                result[field] = merged(base.get(field), value, _KEYS.get(field, "name"))
        return result
    if isinstance(base, list) and isinstance(over, list):
        theirs = {item[key]: item for item in over if _has(item, key)}
        ours = {item[key] for item in base if _has(item, key)}
        return [
            merged(item, theirs[item[key]]) if _has(item, key) and item[key] in theirs else item
            for item in base
        ] + [item for item in over if not (_has(item, key) and item[key] in ours)]
    return over


def _has(item: object, key: str) -> bool:
    return isinstance(item, Mapping) and key in item


# --- secrets


def broker_secret(
    name: str,
    pool: str,
    owner: Mapping[str, Any],
    url: str,
    key: bytes,
    tls: Tls | None = None,
) -> dict[str, Any]:
    """The Secret that a pod reads; it goes with the pod's Job.

    Args:
        name: its name.
        pool: the pool's.
        owner: its Job, as the API returned it.
        url: the broker's, as pods see it.
        key: signs messages.
        tls: for ``amqps://``.
    """
    content = json.dumps(
        {"url": url, "key": key.hex(), **({} if tls is None else {"tls": tls.as_dict()})}
    )
    return _secret(name, pool, owner, "Opaque", {BROKER_FILE: content})


def registry_secret(
    name: str,
    pool: str,
    owner: Mapping[str, Any],
    registry: tuple[str, str, str],
) -> dict[str, Any]:
    """The Secret that a pod's node pulls the image with.

    Args:
        name: its name.
        pool: the pool's.
        owner: its Job, as the API returned it.
        registry: server, user and password.
    """
    server, user, password = registry
    token = base64.b64encode(f"{user}:{password}".encode()).decode()
    entry = {"username": user, "password": password, "auth": token}
    content = json.dumps({"auths": {server: entry}})
    kind = "kubernetes.io/dockerconfigjson"
    return _secret(name, pool, owner, kind, {".dockerconfigjson": content})


def _secret(
    name: str,
    pool: str,
    owner: Mapping[str, Any],
    kind: str,
    content: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "labels": labels(pool),
            "annotations": {POOL_NAME: pool},
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": owner["metadata"]["name"],
                    "uid": owner["metadata"]["uid"],
                }
            ],
        },
        "type": kind,
        "data": {key: base64.b64encode(value.encode()).decode() for key, value in content.items()},
    }
