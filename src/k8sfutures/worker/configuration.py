"""What a pod is told at its start.

One JSON object with ``url``, ``key`` (hexadecimal), ``pool``, ``name``, ``warm_for`` (seconds),
and optionally ``tls`` (as `Tls.as_dict` makes it), ``cpu_ids`` (a list), ``processes`` (how many
of them), ``node``, ``shape``, ``pool_cpus``, ``connect_within``, ``seal`` (hexadecimal) and
``record`` (a file whose name ends with ``.draining`` when the pod takes no calls any more). It
comes in a file or on standard input, because arguments and environment can be read by others; what
is no secret may come in the environment, as ``K8SFUTURES_POD_CONFIG`` (the same object, without
those fields), ``K8SFUTURES_POD_NAME`` and ``K8SFUTURES_NODE``.
"""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from ..messages import Hello, Versions
from ..tls import Tls
from ..values import dataclass
from . import cpus


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """What an agent needs to know.

    Attributes:
        name: the pod's, unique.
        node: the machine that it runs on, for people.
        key: signs the pool's messages.
        cpu_ids: one CPU process each.
        warm_for: seconds that the pod stays without a client.
        shape: the settings that the pod was made with, as texts; for its clients.
        pool_cpus: CPUs of the whole pool, or 0 where that is not known; for its clients.
        connect_within: seconds that it has to find the broker for the first time, or None for
            as long as it stays.
        seal: the key of what clients of its machine seal (see `sealing`), or None.
        is_local: whether it is a process of a machine on which its clients may be processes, too.
    """

    name: str
    node: str
    key: bytes = field(repr=False)
    cpu_ids: list[int]
    warm_for: float
    shape: dict[str, str] = field(default_factory=dict)
    pool_cpus: int = 0
    connect_within: float | None = None
    seal: bytes | None = field(default=None, repr=False)
    is_local: bool = False

    def hello(self, versions: Versions, address: str = "") -> Hello:
        """What this pod says of itself; what it holds is not in there.

        Args:
            versions: of its software.
            address: what the client is to write on what it sends to this pod.
        """
        return Hello(
            name=self.name,
            node=self.node,
            pid=os.getpid(),
            cpu_ids=self.cpu_ids,
            versions=versions,
            reply=False,
            group=0,
            holding=[],
            results=0,
            shape=self.shape,
            pool_cpus=self.pool_cpus,
            blobs=[],
            address=address,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PodConfig:
    """What the worker program needs to know.

    Attributes:
        url: the broker's.
        tls: for ``amqps://``, or None.
        pool: the pool's name.
        record: a file to rename when the pod takes no calls any more, or None.
        agent: for the agent.
    """

    url: str = field(repr=False)
    tls: Tls | None = field(default=None, repr=False)
    pool: str
    record: str | None
    agent: AgentConfig


def read(text: str, environ: Mapping[str, str]) -> PodConfig:
    """The configuration of this pod.

    Args:
        text: from the file or standard input.
        environ: the environment.

    Raises:
        ValueError: it is not one. The text shows nothing of it, as it has secrets.
    """
    try:
        given: dict[str, Any] = json.loads(environ.get("K8SFUTURES_POD_CONFIG") or "{}")
        given |= json.loads(text)
        within = given.get("connect_within")
        return PodConfig(
            url=str(given["url"]),
            tls=None if given.get("tls") is None else Tls.of_dict(given["tls"]),
            pool=str(given["pool"]),
            record=given.get("record"),
            agent=AgentConfig(
                name=str(given.get("name") or environ["K8SFUTURES_POD_NAME"]),
                node=str(given.get("node") or environ.get("K8SFUTURES_NODE") or platform.node()),
                key=bytes.fromhex(given["key"]),
                cpu_ids=cpus.available(given.get("cpu_ids"), given.get("processes")),
                warm_for=float(given["warm_for"]),
                shape={str(key): str(value) for key, value in given.get("shape", {}).items()},
                pool_cpus=int(given.get("pool_cpus", 0)),
                connect_within=None if within is None else float(within),
                seal=bytes.fromhex(given["seal"]) if given.get("seal") else None,
                is_local=given.get("record") is not None,
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        words = "a field has a value that cannot be"
        if isinstance(error, KeyError):
            words = f"it has no {error}"
        elif isinstance(error, json.JSONDecodeError):
            words = f"it is not JSON: {error.msg} at character {error.pos}"
    # Not in there: such an error may hold the whole text.
    raise ValueError(
        f"this is not the configuration that a client gives its pods (a JSON object): {words}"
    )
