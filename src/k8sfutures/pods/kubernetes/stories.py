"""What Kubernetes says of a pod, in words: pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ...values import dataclass
from .labels import BROKER_VOLUME, CONTAINER, NODE
from .timestamps import between

Json = Mapping[str, Any]

_STUCK: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "ErrImageNeverPull",
        "InvalidImageName",
        "ImageInspectError",
        "RegistryUnavailable",
        "CreateContainerConfigError",
        "CreateContainerError",
        "RunContainerError",
        "CrashLoopBackOff",
    }
)
"""Reasons of a waiting container that time alone does not mend."""

_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})

_DISRUPTED: Final = frozenset({"Evicted", "Preempting", "NodeShutdown", "Shutdown", "Terminated"})
"""Reasons of a pod that its kubelet has ended."""

_IMAGE_HINT: Final = (
    "; the image (setting image) must be built for this version, and be where the nodes can get "
    "it: see k8sfutures image"
)

AT_START: Final = 20.0
"""Seconds; a container that failed sooner than this after its start has failed at its start."""


class State(enum.Enum):
    """How far a pod has come."""

    STARTING = enum.auto()
    STUCK = enum.auto()
    RUNNING = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, slots=True)
class Story:
    """A pod at one moment.

    Attributes:
        name: the pod's.
        node: where it is, or is meant to be.
        job: name of its Job, or "".
        state: how far it has come.
        words: what Kubernetes says, for people.
        failed: of one that has ended: whether it failed.
        at_start: whether that was at its start.
        misplaced: whether its node, and not the pod, is what is wrong: there was no room after all.
        uid: of its Job, or "".
        pod_uid: its own, or "".
        secret: the Secret that was to be made for it, or "".
        lingers: whether it goes on, though its worker has ended; see `lingers`.
    """

    name: str
    node: str
    job: str
    state: State
    words: str
    failed: bool = False
    at_start: bool = False
    misplaced: bool = False
    uid: str = ""
    pod_uid: str = ""
    secret: str = ""
    lingers: bool = False


def story_of(pod: Json, *, deleted: bool = False) -> Story:
    """What there is to say of a pod.

    Args:
        pod: as the API has it.
        deleted: whether it is not there any more.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    name = metadata["name"]
    node = spec.get("nodeName") or (metadata.get("annotations") or {}).get(NODE, "?")
    owner: Json = next(iter(metadata.get("ownerReferences") or ()), {})

    def tell(state: State, words: str, **flags: Any) -> Story:
        said = f"pod {name} on node {node} {words}"
        job, uid = owner.get("name", ""), owner.get("uid", "")
        return Story(
            *(name, node, job, state, said),
            uid=uid,
            pod_uid=metadata.get("uid", ""),
            secret=_secret_of(spec),
            **flags,
        )

    if status.get("phase") == "Failed" and not metadata.get("deletionTimestamp"):
        evicted, never_ran = _why_disrupted(status), not _containers(status)
        if evicted:
            how = f"was evicted: {evicted}"
            return tell(State.ENDED, how, failed=True, at_start=never_ran, misplaced=never_ran)
    ended = _container(status, "terminated")
    if ended is not None:
        words, failed, at_start = _how_it_ended(ended, pod)
        flags = {"failed": failed, "at_start": at_start, "lingers": lingers(pod) and not deleted}
        return tell(State.ENDED, words, **flags)
    if status.get("phase") in {"Failed", "Succeeded"}:
        words = _because(status.get("reason"), status.get("message")) or "without saying why"
        how = f"failed: {words}" if status["phase"] == "Failed" else "has ended"
        failed = status["phase"] == "Failed"
        # The kubelet did not admit it: OutOfcpu, OutOfpods, UnexpectedAdmissionError and others.
        return tell(State.ENDED, how, failed=failed, at_start=True, misplaced=failed)
    if deleted:
        return tell(State.ENDED, f"was deleted{_why_deleted(pod)}", failed=True)
    for container in _containers(status):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in _STUCK:
            words = _because(waiting.get("reason"), waiting.get("message"))
            hint = _IMAGE_HINT if "Image" in waiting["reason"] else ""
            image = container.get("image") or _worker(spec)["image"]
            return tell(State.STUCK, f"cannot start image {image}: {words}{hint}")
    waiting = _container(status, "waiting")
    if waiting is not None:
        words = _because(waiting.get("reason"), waiting.get("message")) or "is waiting"
        return tell(State.STARTING, f"is starting ({words})")
    if _container(status, "running") is not None:
        if metadata.get("deletionTimestamp"):
            return tell(State.RUNNING, f"is being deleted{_why_deleted(pod)}")
        return tell(State.RUNNING, "is running")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            words = _because(condition.get("reason"), condition.get("message"))
            return tell(State.STUCK, f"is not placed by the scheduler: {words}", misplaced=True)
    return tell(State.STARTING, "is waiting to be started")


def lingers(pod: Json) -> bool:
    """Whether a pod goes on, though its worker has ended for good: another container does not.

    Such a pod keeps its CPUs, and Kubernetes waits for it, for ever.
    """
    status = pod.get("status") or {}
    return (
        status.get("phase") == "Running"
        and pod["spec"].get("restartPolicy", "Never") == "Never"
        and _container(status, "terminated") is not None
        and any(
            "terminated" not in (container.get("state") or {})
            for container in status["containerStatuses"]
        )
    )


def _secret_of(spec: Json) -> str:
    """Name of the Secret with the broker's URL and the key that a pod reads."""
    for volume in spec.get("volumes") or ():
        if volume.get("name") == BROKER_VOLUME:
            return str((volume.get("secret") or {}).get("secretName", ""))
    return ""


def _containers(status: Json) -> list[Json]:
    """The states of all containers of a pod, in the order in which they start."""
    return [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]


def _container(status: Json, state: str) -> Json | None:
    for container in status.get("containerStatuses") or ():
        if container["name"] == CONTAINER:
            found: Json | None = (container.get("state") or {}).get(state)
            return found
    return None


def _worker(spec: Json) -> Json:
    for container in spec["containers"]:
        if container["name"] == CONTAINER:
            worker: Json = container
            return worker
    return {"image": "?"}


def _how_it_ended(ended: Json, pod: Json) -> tuple[str, bool, bool]:
    """Words, whether it failed, and whether that was at its start."""
    code, reason = ended.get("exitCode"), ended.get("reason")
    said = (ended.get("message") or "").strip()
    log = f"; its log ends with:\n{_indented(said)}" if said else ""
    if code == 0:
        return f"has ended{log}", False, False
    # One that the runtime could not start has no time of its start, and so 1970.
    at_start = (
        reason in _NOT_STARTED
        or between(ended.get("startedAt"), ended.get("finishedAt")) < AT_START
    )
    if reason == "OOMKilled":
        limit = (_worker(pod["spec"]).get("resources") or {}).get("limits") or {}
        words = f"with the limit {limit['memory']}" if "memory" in limit else "without a limit"
        advice = "give pods more (setting memory), or calls less"
        said = f"ran out of memory: Kubernetes says OOMKilled {words}; {advice}{log}"
        return said, True, at_start
    how = f"was ended by signal {code - 128}" if code and code > 128 else f"exited with code {code}"
    if pod["metadata"].get("deletionTimestamp"):
        return f"was deleted{_why_deleted(pod)} and {how}{log}", True, False
    return f"{how} ({reason}){log}", True, at_start


def _why_deleted(pod: Json) -> str:
    why = _why_disrupted(pod.get("status") or {})
    return f" ({why or 'by a user, an eviction or a drain of its node'})"


def _why_disrupted(status: Json) -> str:
    """Who evicted or preempted a pod, and why; "" where nobody has."""
    # As of Kubernetes 1.26 a condition says so; before, the status of a pod that its kubelet ended.
    for condition in status.get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return _because(condition.get("reason"), condition.get("message"))
    if status.get("reason") in _DISRUPTED:
        return _because(status.get("reason"), status.get("message"))
    return ""


def _because(reason: str | None, message: str | None) -> str:
    return ": ".join(part.strip() for part in (reason, message) if part and part.strip())


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def refused_creations(events: Sequence[Json]) -> dict[str, str]:
    """Why pods of Jobs could not be created, by the Job's uid: quotas, policies, limits.

    Args:
        events: Kubernetes' events, oldest first.
    """
    return {
        event["involvedObject"]["uid"]: str(event.get("message", "")).strip()
        for event in events
        if event.get("reason") == "FailedCreate" and event["involvedObject"].get("kind") == "Job"
    }


_ABSENT: Final = re.compile(r'(?:secret|configmap) "([^"]+)" not found')

_MOUNTED: Final = frozenset({"Pulling", "Pulled", "Created", "Started", "Failed", "BackOff"})
"""Reasons of events that come only after a pod's volumes are there."""


def absent_volumes(events: Sequence[Json]) -> dict[str, tuple[str, str]]:
    """What pods could not mount because it is not there: a Secret, or a ConfigMap.

    Args:
        events: Kubernetes' events, oldest first.

    Returns:
        By the pods' uids: its name, and Kubernetes' words.
    """
    found = {}
    for event in events:
        match = _ABSENT.search(str(event.get("message", "")))
        if event.get("reason") == "FailedMount" and match is not None:
            words = str(event["message"]).strip()
            found[str(event["involvedObject"].get("uid", ""))] = (match[1], words)
    return found


def has_mounted(events: Sequence[Json]) -> bool:
    """Whether a pod's own events say that its volumes have been mounted after all."""
    return any(event.get("reason") in _MOUNTED for event in events)
