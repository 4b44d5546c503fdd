"""The restricted Pod Security Standard as a table, for whatever pods we write.

https://kubernetes.io/docs/concepts/security/pod-security-standards/
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

Json = dict[str, Any]


def containers(spec: Json) -> list[Json]:
    kinds = ("initContainers", "containers", "ephemeralContainers")
    return [container for kind in kinds for container in spec.get(kind) or ()]


def contexts(spec: Json) -> list[Json]:
    """The security contexts of the containers."""
    return [container.get("securityContext") or {} for container in containers(spec)]


def all_contexts(spec: Json) -> list[Json]:
    """The security contexts of the pod and the containers."""
    return [spec.get("securityContext") or {}, *contexts(spec)]


def inherited(spec: Json, field: str) -> list[Any]:
    """A field of each container's security context, or what the pod's says instead."""
    pod = (spec.get("securityContext") or {}).get(field)
    return [pod if context.get(field) is None else context[field] for context in contexts(spec)]


def part(mapping: Json, *path: str) -> Any:
    value: Any = mapping
    for key in path:
        value = (value or {}).get(key)
    return value


def hosts(spec: Json) -> list[str | None]:
    """The hosts that probes and hooks name."""
    probes = ("livenessProbe", "readinessProbe", "startupProbe")
    places = [*((probe,) for probe in probes), ("lifecycle", "postStart"), ("lifecycle", "preStop")]
    return [
        part(container, *place, action, "host")
        for container in containers(spec)
        for place in places
        for action in ("httpGet", "tcpSocket")
    ]


SAFE_SYSCTLS: Final = {
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
}
SELINUX_TYPES: Final = {"container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
VOLUMES: Final = {
    *("configMap", "csi", "downwardAPI", "emptyDir"),
    *("ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
APPARMOR: Final = "container.apparmor.security.beta.kubernetes.io/"


@dataclass(frozen=True)
class Control:
    """A row of the standard, for Linux.

    ``holds`` says whether a pod (metadata and spec) meets it. ``broken`` is a part of a pod that
    does not: in the pod's spec, or in its container.
    """

    name: str
    holds: Callable[[Json, Json], bool]
    spec: Json | None = None
    container: Json | None = None

    def __repr__(self) -> str:
        return self.name


def in_context(**fields: Any) -> Json:
    return {"securityContext": fields}


CONTROLS: Final = [
    # In the standard's order; where Baseline and Restricted have the same control, the stricter.
    Control(
        "host-process",
        lambda _, spec: (
            not any(
                part(context, "windowsOptions", "hostProcess") for context in all_contexts(spec)
            )
        ),
        container=in_context(windowsOptions={"hostProcess": True}),
    ),
    Control(
        "host-namespaces",
        lambda _, spec: not any(spec.get(f"host{one}") for one in ("Network", "PID", "IPC")),
        spec={"hostPID": True},
    ),
    Control(
        "privileged-containers",
        lambda _, spec: not any(context.get("privileged") for context in contexts(spec)),
        container=in_context(privileged=True),
    ),
    Control(
        "host-ports",
        lambda _, spec: (
            not any(
                port.get("hostPort")
                for container in containers(spec)
                for port in container.get("ports") or ()
            )
        ),
        container={"ports": [{"containerPort": 5672, "hostPort": 5672}]},
    ),
    Control(
        "host-probes",
        lambda _, spec: not any(hosts(spec)),
        container={"readinessProbe": {"tcpSocket": {"port": 5672, "host": "169.254.169.254"}}},
    ),
    Control(
        "apparmor",
        lambda metadata, spec: (
            all(
                part(context, "appArmorProfile", "type") in {None, "RuntimeDefault", "Localhost"}
                for context in all_contexts(spec)
            )
            and all(
                value == "runtime/default" or value.startswith("localhost/")
                for key, value in (metadata.get("annotations") or {}).items()
                if key.startswith(APPARMOR)
            )
        ),
        container=in_context(appArmorProfile={"type": "Unconfined"}),
    ),
    Control(
        "selinux",
        lambda _, spec: all(
            part(context, "seLinuxOptions", "type") in {None, "", *SELINUX_TYPES}
            and not part(context, "seLinuxOptions", "user")
            and not part(context, "seLinuxOptions", "role")
            for context in all_contexts(spec)
        ),
        container=in_context(seLinuxOptions={"type": "spc_t"}),
    ),
    Control(
        "proc-mount-type",
        lambda _, spec: all(
            context.get("procMount") in {None, "Default"} for context in contexts(spec)
        ),
        container=in_context(procMount="Unmasked"),
    ),
    Control(
        "sysctls",
        lambda _, spec: all(
            sysctl["name"] in SAFE_SYSCTLS
            for sysctl in part(spec, "securityContext", "sysctls") or ()
        ),
        spec=in_context(sysctls=[{"name": "kernel.msgmax", "value": "65536"}]),
    ),
    Control(
        "volume-types",
        lambda _, spec: all(VOLUMES.intersection(volume) for volume in spec.get("volumes") or ()),
        spec={"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
    ),
    Control(
        "privilege-escalation",
        lambda _, spec: all(
            context.get("allowPrivilegeEscalation") is False for context in contexts(spec)
        ),
        container=in_context(allowPrivilegeEscalation=True),
    ),
    Control(
        "running-as-non-root",
        lambda _, spec: all(value is True for value in inherited(spec, "runAsNonRoot")),
        container=in_context(runAsNonRoot=False),
    ),
    Control(
        "running-as-non-root-user",
        lambda _, spec: all(context.get("runAsUser") != 0 for context in all_contexts(spec)),
        container=in_context(runAsUser=0),
    ),
    Control(
        "seccomp",
        lambda _, spec: all(
            part(profile, "type") in {"RuntimeDefault", "Localhost"}
            for profile in inherited(spec, "seccompProfile")
        ),
        container=in_context(seccompProfile={"type": "Unconfined"}),
    ),
    Control(
        "capabilities",
        lambda _, spec: all(
            "ALL" in (part(context, "capabilities", "drop") or ())
            and set(part(context, "capabilities", "add") or ()) <= {"NET_BIND_SERVICE"}
            for context in contexts(spec)
        ),
        container=in_context(capabilities={"drop": ["ALL"], "add": ["CHOWN"]}),
    ),
]
every_control = pytest.mark.parametrize("control", CONTROLS, ids=repr)


def broken(pod: Json, control: Control) -> Json:
    """A copy of a pod that breaks the standard in one way."""
    pod = copy.deepcopy(pod)
    pod["spec"].update(control.spec or {})
    pod["spec"]["containers"][0].update(control.container or {})
    return pod
