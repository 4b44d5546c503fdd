"""The fields that a pod's manifest can have: an API server may drop others without a word.

As of Kubernetes 1.25 a server that is asked to be strict refuses them, at any depth; this list
finds those at the top of a pod's spec and of its containers on every server, and before anything
is made. It is that of version 37 of Kubernetes' client; the installed one is asked for what it does
not have, so that it stands in nobody's way.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from ...errors import SettingValueError

METADATA: Final = "V1ObjectMeta"
SPEC: Final = "V1PodSpec"
CONTAINER: Final = "V1Container"

_FIELDS: Final[Mapping[str, frozenset[str]]] = {
    METADATA: frozenset(
        (
            *("annotations", "creationTimestamp", "deletionGracePeriodSeconds"),
            *("deletionTimestamp", "finalizers", "generateName", "generation", "labels"),
            *("managedFields", "name", "namespace", "ownerReferences", "resourceVersion"),
            *("selfLink", "uid"),
        )
    ),
    SPEC: frozenset(
        (
            *("activeDeadlineSeconds", "affinity", "automountServiceAccountToken", "containers"),
            *("dnsConfig", "dnsPolicy", "enableServiceLinks", "ephemeralContainers"),
            *("evictionResponders", "hostAliases", "hostIPC", "hostNetwork", "hostPID"),
            *("hostUsers", "hostname", "hostnameOverride", "imagePullSecrets", "initContainers"),
            *("nodeName", "nodeSelector", "os", "overhead", "preemptionPolicy", "priority"),
            *("priorityClassName", "readinessGates", "resourceClaims", "resources"),
            *("restartPolicy", "runtimeClassName", "schedulerName", "schedulingGates"),
            *("schedulingGroup", "securityContext", "serviceAccount", "serviceAccountName"),
            *("setHostnameAsFQDN", "shareProcessNamespace", "subdomain"),
            *("terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints"),
            "volumes",
        )
    ),
    CONTAINER: frozenset(
        (
            *("args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle"),
            *("livenessProbe", "name", "ports", "readinessProbe", "resizePolicy", "resources"),
            *("restartPolicy", "restartPolicyRules", "securityContext", "startupProbe", "stdin"),
            *("stdinOnce", "terminationMessagePath", "terminationMessagePolicy", "tty"),
            *("volumeDevices", "volumeMounts", "workingDir"),
        )
    ),
}


def check_fields(template: Mapping[str, Any], more: Callable[[str], Iterable[str]]) -> None:
    """Refuse what is misspelt in ``pod_template``.

    Args:
        template: with ``metadata`` and ``spec``, which are mappings where they are there.
        more: the fields that the installed client knows of a kind; asked only for what is not
            in our own list.

    Raises:
        SettingValueError: a field is known to neither; or containers are not a list of dicts.
    """
    for where, kind, part in _parts(template):
        unknown = set(part) - _FIELDS[kind]
        unknown = unknown and unknown - set(more(kind))
        for name in sorted(map(str, unknown)):
            near = difflib.get_close_matches(name, _FIELDS[kind], 1)
            advice = f"did you mean {near[0]!r}?" if near else "Kubernetes would drop it"
            raise SettingValueError(
                f"{where} of pod_template has {name!r}, which is no field there; {advice}"
            )


def _parts(template: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Yields where each part is, what kind it is of, and the part."""
    yield "metadata", METADATA, template.get("metadata") or {}
    spec = template.get("spec") or {}
    yield "spec", SPEC, spec
    for field in ("initContainers", "containers"):
        containers = spec.get(field) or []
        if not isinstance(containers, list):
            raise SettingValueError(f"spec.{field} of pod_template must be a list of dicts")
        for number, container in enumerate(containers):
            if not isinstance(container, Mapping):
                raise SettingValueError(f"spec.{field} of pod_template must be a list of dicts")
            yield f"spec.{field}[{number}]", CONTAINER, container
