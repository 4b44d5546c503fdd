"""The pods of one pool, as Kubernetes tells of them: who starts, who is stuck, who has ended.

Pure: what was heard and the time go in, endings come out, each of them once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ...values import dataclass
from .labels import Membership
from .stories import State, Story, story_of

Json = Mapping[str, Any]

STUCK_PATIENCE: Final = 3.0
"""Seconds that a pod which cannot start has to start after all: an image that could not be
pulled at the first try, a node that is just being freed."""

PULL_PATIENCE: Final = 15.0
"""Likewise, where a node pulls with a password: a kubelet that did not have its Secret in time has
pulled without, and tries again after 10 s."""

START_PATIENCE: Final = 20.0
"""Seconds after which it is asked why a pod is still starting; its image may be large."""

POD_PATIENCE: Final = 1.0
"""Seconds after which a Job without a pod is asked about."""

NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Ending:
    """A pod that has ended, or that will never start.

    Attributes:
        pod: its name; the Job's where there is no pod.
        job: the Job's name.
        node: where it was, or should have been.
        words: why.
        failed: whether it failed at its start, so that the next one would fail alike.
        stuck: whether it is still there, and is of no use.
        misplaced: whether there was no room for it on its node after all.
        uid: of the Job, or "".
        again: whether nothing is wrong with pool or node: another one may be made in its place.
        lingers: whether its worker has ended, and another of its containers keeps it there.
    """

    pod: str
    job: str
    node: str
    words: str
    failed: bool
    stuck: bool
    misplaced: bool = False
    uid: str = ""
    again: bool = False
    lingers: bool = False


class Roster:
    """See the module's text.

    Args:
        pool: the pool's name.
    """

    def __init__(self, pool: str) -> None:
        self._membership = Membership(pool)
        self._stories: dict[str, Story] = {}
        self._stuck_since: dict[str, float] = {}
        self._starting_since: dict[str, float] = {}  # or since it was asked about
        self._unsupplied: set[str] = set()  # pods whose Secret was never made
        self._told: set[str] = set()
        self._vanished: list[str] = []  # Jobs that were deleted before they had a pod
        self._without_pod: dict[str, float] = {}  # Job -> when it was made
        self._refusals: dict[str, str] = {}  # Job -> why its pod cannot be created
        self._nodes: dict[str, str] = {}  # Job -> node
        self._uids: dict[str, str] = {}  # uid -> Job

    # --- what is heard

    def belongs(self, membership: Membership) -> None:
        """Whose pods count from now on."""
        self._membership = membership

    def listed(self, pods: Iterable[Json], now: float) -> None:
        """These are all pods there are."""
        mine = [pod for pod in pods if self._membership.includes(pod["metadata"])]
        names = {pod["metadata"]["name"] for pod in mine}
        for pod in mine:
            self._note(story_of(pod), now)
        for name, story in self._stories.items():
            if name not in names and story.state is not State.ENDED:
                words = f"pod {name} on node {story.node} was deleted"
                self._stories[name] = dataclasses.replace(
                    story, state=State.ENDED, words=words, failed=True
                )
                self._starting_since.pop(name, None)

    def changed(self, pod: Json, now: float, *, deleted: bool) -> None:
        """A pod is new, has changed, or has been deleted."""
        if self._membership.includes(pod["metadata"]):
            story = story_of(pod, deleted=deleted)
            pulls = "imagePullSecrets" in pod.get("spec", {}) and "ImagePull" in story.words
            known = self._stories.get(story.name)
            if pulls and known is not None and "ErrImagePull" in known.words:
                story = dataclasses.replace(story, words=known.words)  # that it backs off says less
            self._note(story, now + PULL_PATIENCE - STUCK_PATIENCE if pulls else now)

    def _note(self, story: Story, now: float) -> None:
        known = self._stories.get(story.name)
        if known is not None and known.state is State.ENDED:
            return  # how it ended is known; that it is deleted afterwards says less
        if story.state is State.STARTING and story.name not in self._told:
            if story.name in self._unsupplied:
                return
            self._starting_since.setdefault(story.name, now)
        else:
            self._starting_since.pop(story.name, None)
        self._stories[story.name] = story
        self._forget_job(story.job)
        if story.state is State.STUCK:
            self._stuck_since.setdefault(story.name, now)
        else:
            self._stuck_since.pop(story.name, None)

    def expect(self, job: str, uid: str, node: str, now: float) -> None:
        """A Job has been made, or was found; it will have a pod."""
        self._nodes[job] = node
        self._uids[uid] = job
        if not any(story.job == job and self._is_there(story) for story in self._stories.values()):
            self._without_pod.setdefault(job, now)

    def refused(self, reasons: Mapping[str, str], now: float) -> None:
        """Kubernetes says why it cannot create the pods of these Jobs, by their uids."""
        for uid, reason in reasons.items():
            job = self._uids.get(uid)
            if job in self._without_pod and job not in self._refusals:
                self._refusals[job] = reason
                self._stuck_since.setdefault(job, now)

    def lacks(self, absent: Mapping[str, tuple[str, str]], now: float) -> None:
        """Pods, by their uids, wait for what is not there: its name, and Kubernetes' words.

        Their own Secret comes right after their Job, from the client that made both. Where it has
        not come, that client was ended in between: nobody is going to make it any more.
        """
        for name, story in self._stories.items():
            if story.state is not State.STARTING or story.pod_uid not in absent:
                continue
            what, words = absent[story.pod_uid]
            told = f"pod {name} on node {story.node} cannot start: {words}"
            if what == story.secret:
                self._unsupplied.add(name)
                told += "; the client that made its Job was ended before it made this Secret"
            self._stories[name] = dataclasses.replace(story, state=State.STUCK, words=told)
            self._stuck_since[name] = now - STUCK_PATIENCE  # it has been patient
            self._starting_since.pop(name, None)

    def jobs_are(self, jobs: Iterable[str]) -> None:
        """These are all Jobs there are; another that has no pod will never have one."""
        self._vanished += sorted(set(self._without_pod).difference(jobs))
        for job in self._vanished:
            self._forget_job(job)

    # --- what follows

    def endings(self, now: float) -> list[Ending]:
        """What has come to an end since the last time."""
        found: list[Ending] = []
        for name, story in self._stories.items():
            if name in self._told:
                continue
            stuck = story.state is State.STUCK and now >= self._stuck_since[name] + STUCK_PATIENCE
            if stuck or story.state is State.ENDED:
                self._told.add(name)
                again = name in self._unsupplied
                failed = (stuck and not again) or (story.failed and story.at_start)
                found.append(
                    Ending(
                        *(name, story.job, story.node, story.words, failed, stuck),
                        misplaced=story.misplaced,
                        uid=story.uid,
                        again=again,
                        lingers=story.lingers,
                    )
                )
        for job, reason in list(self._refusals.items()):
            if now >= self._stuck_since.get(job, now) + STUCK_PATIENCE:
                node = self._nodes.get(job, "?")
                words = f"Kubernetes cannot create a pod for node {node}: {reason}"
                found.append(Ending(job, job, node, words, failed=True, stuck=True))
                self._forget_job(job)
        for job in self._vanished:
            node = self._nodes.get(job, "?")
            words = f"the Job {job} for node {node} was deleted"
            found.append(Ending(job, job, node, words, failed=False, stuck=False))
        self._vanished.clear()
        return found

    def deadline(self) -> float:
        """When `endings` may find more, or Jobs without pods are to be asked about."""
        waiting = [
            since + STUCK_PATIENCE
            for name, since in self._stuck_since.items()
            if name not in self._told
        ]
        waiting += [
            since + POD_PATIENCE
            for job, since in self._without_pod.items()
            if job not in self._refusals
        ]
        waiting += [since + START_PATIENCE for since in self._starting_since.values()]
        return min(waiting, default=NEVER)

    def without_pod(self, now: float) -> list[str]:
        """Jobs that should have a pod by now; they are not named again for a while."""
        late = [
            job
            for job, since in self._without_pod.items()
            if now >= since + POD_PATIENCE and job not in self._refusals
        ]
        for job in late:
            self._without_pod[job] = now
        return late

    def slow_to_start(self, now: float) -> list[Story]:
        """Pods that should have started by now; they are not named again for a while."""
        slow = [
            name for name, since in self._starting_since.items() if now >= since + START_PATIENCE
        ]
        self._starting_since.update(dict.fromkeys(slow, now))
        return [self._stories[name] for name in slow]

    def _forget_job(self, job: str) -> None:
        self._without_pod.pop(job, None)
        self._refusals.pop(job, None)
        self._stuck_since.pop(job, None)

    def _is_there(self, story: Story) -> bool:
        return story.state is not State.ENDED and story.name not in self._told

    # --- what can be asked

    def on_the_way(self) -> bool:
        """Whether any pod may still come to answer, or has."""
        return bool(self._without_pod) or any(map(self._is_there, self._stories.values()))

    def story(self, pod: str) -> Story | None:
        """What is known of a pod."""
        return self._stories.get(pod)

    def is_starting(self, pod_uid: str) -> bool:
        """Whether a pod with this uid has yet to start."""
        return any(
            story.pod_uid == pod_uid and story.state is State.STARTING
            for story in self._stories.values()
        )

    def is_dead(self, uid: str) -> bool:
        """Whether the pods of a Job have ended, all that are known, or are of no use.

        By its uid: another client may have put a new one of the same name in its place.
        """
        pods = [story for story in self._stories.values() if story.uid == uid]
        return bool(pods) and not any(map(self._is_there, pods))

    def pod_of(self, job: str) -> str | None:
        """The pod of a Job that is there."""
        for story in self._stories.values():
            if story.job == job and self._is_there(story):
                return story.name
        return None

    def news(self) -> str:
        """How far the pods have come that are there, for people."""
        words = sorted(
            f"{story.words}, and has not answered through the broker"
            if story.state is State.RUNNING
            else story.words
            for story in self._stories.values()
            if self._is_there(story)
        )
        words += [
            f"the Job {job} for node {self._nodes.get(job, '?')} has no pod yet"
            for job in sorted(self._without_pod)
        ]
        return "; ".join(words)
