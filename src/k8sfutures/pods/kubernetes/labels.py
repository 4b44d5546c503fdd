"""How the things that we put into a cluster are named and marked."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any, Final

from ...address import parse_amqp_url
from ...values import dataclass

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
ACCESS: Final = "k8sfutures/access"
"""Annotation: for which broker and secret a pod was made; see `access_mark`."""
WARM_FOR: Final = "k8sfutures/warm-for"
"""Annotation: seconds that the pod stays without a client."""

CONTAINER: Final = "worker"
"""Name of the pod's container."""

BROKER_VOLUME: Final = "broker"
"""Name of the pod's volume with the broker's URL and the key."""

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


def access_mark(url: str, key: bytes) -> str:
    """Tells pods that meet at one broker, with one secret, from others.

    Everybody who may read Jobs can read it, so it gives nothing away: it is keyed with what scrypt
    has made of the secret, and a guess costs as much as one at a signed message does. User and
    password do not count: who logs in otherwise is at the same broker.

    Args:
        url: the broker's, as pods see it.
        key: signs messages.

    Returns:
        16 hexadecimal digits.
    """
    address = parse_amqp_url(url)
    where = f"k8sfutures access {address.host}:{address.port}/{address.virtual_host}"
    return hmac.new(key, where.encode(), hashlib.sha256).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Membership:
    """Whose pods can be of use to a client: those of its pool that it meets at its broker.

    A pool's name says nothing of the broker, so there can be a namesake: a pool of the same name
    that was made for another broker or secret. Its pods hold CPUs, and never answer.

    Attributes:
        pool: the pool's name.
        access: the client's `access_mark`.
        answered: pods that have answered this client, whatever they are marked with: a broker can
            have several names.
    """

    pool: str
    access: str = ""
    answered: frozenset[str] = frozenset()

    def includes(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a pod, or a Job, is the client's."""
        return self._has_name(metadata) and self._meets(metadata)

    def is_namesake(self, metadata: Mapping[str, Any]) -> bool:
        """Whether it belongs to a pool that only has the same name."""
        return self._has_name(metadata) and not self._meets(metadata)

    def _has_name(self, metadata: Mapping[str, Any]) -> bool:
        return (metadata.get("labels") or {}).get(POOL) == digest(self.pool)

    def _meets(self, metadata: Mapping[str, Any]) -> bool:
        mark = (metadata.get("annotations") or {}).get(ACCESS, "")
        return mark == self.access or metadata.get("name") in self.answered
