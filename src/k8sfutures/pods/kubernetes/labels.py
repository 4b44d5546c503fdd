"""How the things that we put into a cluster are named and marked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

APP: Final = "app.kubernetes.io/name"
APP_NAME: Final = "k8sfutures"
POOL: Final = "k8sfutures/pool"
"""Label: which pool, as a digest, since a pool's name may be too long for a label."""
POOL_NAME: Final = "k8sfutures/pool-name"
"""Annotation: the pool's name."""
SHAPE: Final = "k8sfutures/shape"
"""Annotation: all that shapes a pod, as a JSON object; pods of one pool have one shape."""
NODE: Final = "k8sfutures/node"
"""Annotation: the node that a pod is meant for."""
CPU_IDS: Final = "k8sfutures/cpu-ids"
"""Annotation: the CPU ids that were allotted to a pod, separated by commas."""
WARM_FOR: Final = "k8sfutures/warm-for"
"""Annotation: seconds that the pod stays without a client."""

CONTAINER: Final = "worker"
"""Name of the pod's container."""

SELECTOR: Final = f"{APP}={APP_NAME}"
"""Selects everything of ours."""


def digest(text: str, length: int = 10) -> str:
    """A short name for a text, of hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def labels(pool: str) -> dict[str, str]:
    """The labels of everything that belongs to a pool."""
    return {APP: APP_NAME, "app.kubernetes.io/managed-by": APP_NAME, POOL: digest(pool)}


def selector_of(pool: str) -> str:
    """Selects everything of a pool."""
    return f"{SELECTOR},{POOL}={digest(pool)}"


def is_ours(metadata: Mapping[str, Any]) -> bool:
    """Whether this is something that k8sfutures has made."""
    return (metadata.get("labels") or {}).get(APP) == APP_NAME
