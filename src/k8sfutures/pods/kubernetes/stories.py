"""What Kubernetes says of a pod, in words: pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .labels import CONTAINER, NODE
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
    """

    name: str
    node: str
    job: str
    state: State
    words: str
    failed: bool = False
    at_start: bool = False


def story_of(pod: Json, *, deleted: bool = False) -> Story:
    """What there is to say of a pod.

    Args:
        pod: as the API has it.
        deleted: whether it is not there any more.
    """
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    name = metadata["name"]
    node = spec.get("nodeName") or (metadata.get("annotations") or {}).get(NODE, "?")
    job = next((one["name"] for one in metadata.get("ownerReferences") or ()), "")

    def tell(state: State, words: str, *, failed: bool = False, at_start: bool = False) -> Story:
        said = f"pod {name} on node {node} {words}"
        return Story(name, node, job, state, said, failed=failed, at_start=at_start)

    ended = _container(status, "terminated")
    if ended is not None:
        words, failed, at_start = _how_it_ended(ended, pod)
        return tell(State.ENDED, words, failed=failed, at_start=at_start)
    if status.get("phase") in {"Failed", "Succeeded"}:
        words = _because(status.get("reason"), status.get("message")) or "without saying why"
        how = "was evicted" if status.get("reason") == "Evicted" else "failed"
        how = f"{how}: {words}" if status["phase"] == "Failed" else "has ended"
        return tell(State.ENDED, how, failed=status["phase"] == "Failed", at_start=True)
    if deleted:
        return tell(State.ENDED, f"was deleted{_why_deleted(pod)}", failed=True)
    waiting = _container(status, "waiting")
    if waiting is not None:
        words = _because(waiting.get("reason"), waiting.get("message")) or "is waiting"
        if waiting.get("reason") in _STUCK:
            image = _worker(spec)["image"]
            hint = _IMAGE_HINT if "Image" in waiting["reason"] else ""
            return tell(State.STUCK, f"cannot start image {image}: {words}{hint}")
        return tell(State.STARTING, f"is starting ({words})")
    if _container(status, "running") is not None:
        if metadata.get("deletionTimestamp"):
            return tell(State.RUNNING, f"is being deleted{_why_deleted(pod)}")
        return tell(State.RUNNING, "is running")
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            words = _because(condition.get("reason"), condition.get("message"))
            return tell(State.STUCK, f"is not placed by the scheduler: {words}")
    return tell(State.STARTING, "is waiting to be started")


def with_deadline(story: Story, cause: str) -> Story:
    """A story that Kubernetes has not finished: a pod that came to nothing in good time."""
    return Story(story.name, story.node, story.job, State.STUCK, f"{story.words} {cause}")


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
    at_start = between(ended.get("startedAt"), ended.get("finishedAt")) < AT_START
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
    # As of Kubernetes 1.26 a condition says who did it: eviction, preemption, a taint.
    for condition in (pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f" ({_because(condition.get('reason'), condition.get('message'))})"
    return " (by a user, an eviction or a drain of its node)"


def _because(reason: str | None, message: str | None) -> str:
    return ": ".join(part.strip() for part in (reason, message) if part and part.strip())


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())


def refused_creations(events: Sequence[Json]) -> dict[str, str]:
    """Why pods of Jobs could not be created, by the Job's name: quotas, policies, limits.

    Args:
        events: Kubernetes' events, oldest first.
    """
    return {
        event["involvedObject"]["name"]: str(event.get("message", "")).strip()
        for event in events
        if event.get("reason") == "FailedCreate" and event["involvedObject"].get("kind") == "Job"
    }
