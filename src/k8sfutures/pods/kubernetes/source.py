"""A `PodSource` on Kubernetes; belongs to the provisioning thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ...address import parse_amqp_url
from ...codec import derive_key
from ...config import Settings, is_pool_name
from ...errors import ClusterError, PodMismatch, PodsUnavailable
from ...outcomes import thread_died
from .. import CpusHeld, Credentials, Need, PodEnded, PodEvent, PodsFailed, StartupNews
from .api import KubeApi, passes
from .capacity import Node, cpu_ids_of, not_ready, read_nodes
from .jobs import Access, Jobs, has_ended
from .labels import NODE, SELECTOR
from .manifests import PodSpec, job_name, ordinal_of
from .placement import Size, place, why_not
from .pools import connect, delete_pool
from .roster import NEVER, Ending, Roster
from .shape import broker_urls, pod_spec, registry_of, size_of
from .stories import State, refused_creations
from .watcher import Changed, Heard, Listed, Watcher, WatcherDied

logger = logging.getLogger(__name__)

YIELD_PATIENCE: Final = 6.0
"""Seconds that idle pods of other pools have to end, and Kubernetes to notice, for a client that
has some CPUs and wants more. One that has none waits for ``startup_timeout``."""

LOOK_AGAIN: Final = 3.0
"""Seconds between two looks for room, while pods of ours hold it: unused ones are asked again."""

AVOID: Final = 120.0
"""Seconds for which no pod is tried again on a node where one has failed at its start."""

API_PATIENCE: Final = 3.0
"""Seconds for which an API that does not answer is asked again where no pod is there."""

API_PAUSE: Final = 0.5

EXPLAIN_EVERY: Final = 1.0
"""Seconds between two looks at the nodes of pods that were lost without a word."""

CLOSE_TIMEOUT: Final = 2.0


class _Wake:
    """`wake` was called."""


class KubernetesPods:
    """See the module's text.

    Args:
        settings: the executor's.
        pool: the pool's name.

    Raises:
        SettingValueError: the settings cannot work.
    """

    eager = False
    explains = True

    def __init__(self, settings: Settings, pool: str) -> None:
        self._settings = settings
        self._pool = pool
        self._url, self._pod_url = broker_urls(settings)
        self._spec: PodSpec = pod_spec(settings, pool)
        self._size: Size = size_of(settings)
        self._inbox: queue.SimpleQueue[Heard | _Wake] = queue.SimpleQueue()
        self._events: list[PodEvent] = []
        self._api: KubeApi | None = None
        self._watcher: Watcher | None = None
        self._roster = Roster(pool)
        self._misplaced: set[str] = set()  # nodes that had no room where there seemed to be some
        self._failures: dict[str, tuple[float, Ending]] = {}  # pod -> when, what
        self._need = Need()
        self._credentials: Credentials | None = None
        self._look_again_at = self._wait_until = NEVER
        self._explain_at = NEVER
        self._unexplained: set[str] = set()
        self._news = ""

    # --- PodSource

    def credentials(self) -> Credentials:
        """The configured broker's."""
        secret = self._settings.secret or parse_amqp_url(self._url).password
        return Credentials(self._url, derive_key(secret))

    def ensure(self, credentials: Credentials, need: Need) -> None:
        """Make Jobs for the CPUs that are missing, where nodes have room."""
        self._wait_until = NEVER
        self._ensure(credentials, need)

    def _ensure(self, credentials: Credentials, need: Need) -> None:
        self._need, self._credentials = need, credentials
        self._look_again_at = NEVER
        if need.unexplained - self._unexplained:
            self._unexplained |= need.unexplained
            self._explain_at = time.monotonic()
        deadline = time.monotonic() + API_PATIENCE
        while True:
            try:
                self._provision(self._connected(), credentials, need)
                return
            except ClusterError as error:
                if need.attached or not passes(error):
                    self._cannot(str(error), error)
                    return
                if time.monotonic() > deadline:
                    self._wait_for_api(error)
                    return
                logger.info("%s; trying again", error)
            threading.Event().wait(API_PAUSE)  # for the API, which tells nobody when it is back

    def _wait_for_api(self, error: ClusterError) -> None:
        """It may be back later: too late for who begins, but not for who has calls at work."""
        if not self._need.answered:
            self._cannot(str(error), error)
            return
        logger.warning("pools cannot be filled up; trying again: %s", error)
        self._events.append(StartupNews(str(error)))
        self._look_again_at = time.monotonic() + LOOK_AGAIN

    def _cannot(self, text: str, cause: BaseException | None = None) -> None:
        """No pod can be started; that is the end only where none is there."""
        if self._need.attached or self._roster.on_the_way():
            logger.warning("no more pods for pool %s: %s", self._pool, text)
        elif self._need.answering:
            self._events.append(StartupNews(f"its pods do not answer, and {text}"))
        else:
            raise PodsUnavailable(f"no pod of pool {self._pool!r} is there: {text}") from cause

    def watch(self, emit: Callable[[PodEvent], None]) -> None:
        """Wait until there is something to tell, or to do again."""
        if not self._events:
            self._look()  # at what has been learnt while nobody waited
        if not self._events:
            deadline = min(self._roster.deadline(), self._look_again_at, self._explain_at)
            self._hear(None if deadline == NEVER else max(0.0, deadline - time.monotonic()))
            self._look()
        events, self._events = self._events, []
        for event in events:
            emit(event)

    def wake(self) -> None:
        """Make `watch` return."""
        self._inbox.put(_Wake())

    def close(self) -> None:
        """Stop watching; the pods stay."""
        if self._watcher is not None:
            self._watcher.stop(CLOSE_TIMEOUT)
        if self._api is not None:
            self._api.close()

    def delete_pool(self) -> int:
        """Delete the pool's Jobs; from any thread, so with a connection of its own."""
        return delete_pool(self._settings, self._pool)

    # --- provisioning

    def _connected(self) -> KubeApi:
        if self._api is None:
            self._api = connect(self._settings)
        return self._api

    def _provision(self, api: KubeApi, credentials: Credentials, need: Need) -> None:
        """Make the Jobs; where there is no room, others may be asked to make some."""
        jobs = Jobs(api, self._pool)
        nodes, pods, every_job = self._survey(api, jobs)
        mine = [one for one in jobs.of_pool(every_job) if not has_ended(one)]
        self._refuse_mixture(mine)
        now = time.monotonic()
        starting = 0
        by_name = {node.name: node for node in nodes}
        for one in mine:
            name = one["metadata"]["name"]
            if not self._roster.is_dead(one["metadata"]["uid"]):
                where = one["metadata"]["annotations"].get(NODE, "?")
                self._roster.expect(name, one["metadata"]["uid"], where, now)
                if where in by_name:
                    by_name[where].ordinals.add(ordinal_of(name))
                pod = self._roster.pod_of(name)
                if pod not in need.answered:
                    starting += len(cpu_ids_of(one["metadata"]))
        have = sum(need.attached.values()) + starting
        missing = None if need.cpus is None else max(0, need.cpus - have)
        placements = place(nodes, self._size, missing)
        if placements:
            total = have + sum(len(one.cpu_ids) for one in placements)
            # Where others have CPUs that may become free, what there is now is not all.
            complete = need.cpus is None and not self._others(nodes)
            made = jobs.start(
                self._spec,
                placements,
                Access(self._pod_url, credentials.key, registry_of(self._settings)),
                pool_cpus=total if complete else 0,
                is_dead=self._roster.is_dead,
            )
            nodes_of = {job_name(self._pool, one): one.node for one in placements}
            logger.info("asked for pods of pool %s: %s", self._pool, nodes_of)
            for name, uid in made.items():
                self._roster.expect(name, uid, nodes_of[name], now)
        short = missing is None or missing > sum(len(one.cpu_ids) for one in placements)
        nothing = not have and not placements
        if short:
            self._wait_for_room(nodes, now, nothing=nothing)
        if nothing and self._look_again_at == NEVER:
            self._cannot(self._no_room(nodes))
        jobs.collect(every_job, started=lambda one: self._has_started(one, pods))

    def _survey(
        self, api: KubeApi, jobs: Jobs
    ) -> tuple[list[Node], list[dict[str, Any]], list[dict[str, Any]]]:
        """Nodes with what is free there, all pods of the cluster, all Jobs of ours."""
        path = f"/api/v1/namespaces/{api.namespace}/pods"
        ours, version = api.list(path, labelSelector=SELECTOR)
        self._roster.listed(ours, time.monotonic())
        if self._watcher is None:
            self._watcher = Watcher(api, version, self._inbox.put)
            self._watcher.start()
        every_job = jobs.all()
        self._roster.jobs_are(one["metadata"]["name"] for one in every_job)
        # From the API server's memory, not its database: there may be thousands.
        active = "status.phase!=Succeeded,status.phase!=Failed"
        pods, _ = api.list("/api/v1/pods", fieldSelector=active, resourceVersion="0", limit="")
        raw_nodes, _ = api.list("/api/v1/nodes", resourceVersion="0", limit="")
        names = {pod["metadata"]["name"] for pod in ours}
        nodes = read_nodes(
            raw_nodes,
            [pod for pod in pods if pod["metadata"]["name"] not in names] + _alive(ours),
            # One whose pod has ended holds nothing, though its controller has yet to say so.
            [
                one
                for one in every_job
                if not has_ended(one) and not self._roster.is_dead(one["metadata"]["uid"])
            ],
            selector=self._spec.every_node_selector,
            tolerations=self._spec.every_toleration,
        )
        self._avoid(nodes)
        return nodes, pods, every_job

    def _avoid(self, nodes: list[Node]) -> None:
        """Leave out for a while the nodes where pods have failed before they ever answered."""
        since = time.monotonic() - AVOID
        for pod, (when, ending) in list(self._failures.items()):
            if when < since or pod in self._need.answered:
                del self._failures[pod]
                continue
            for node in nodes:
                if node.name == ending.node and not node.refusal:
                    node.refusal = f"is avoided for {AVOID:g} s: {ending.words}"

    def _refuse_mixture(self, mine: list[Any]) -> None:
        """Pods of one pool are all alike."""
        for one in mine:
            differences = self._spec.differences(one["metadata"].get("annotations") or {})
            if differences:
                text = (
                    f"the Job {one['metadata']['name']} of pool {self._pool!r} was made with other "
                    f"settings than this client has: {differences}; use the same ones, or another "
                    "pool (setting pool), or remove that one (k8sfutures pool delete)"
                )
                raise ClusterError(text) if self._need.attached else PodMismatch(text)

    def _others(self, nodes: list[Node]) -> set[str]:
        """Other pools that have CPUs which we could use."""
        return {
            holding.pool
            for node in nodes
            if not node.refusal
            for holding in node.holdings
            if holding.pool != self._pool and is_pool_name(holding.pool)
        }

    def _wait_for_room(self, nodes: list[Node], now: float, *, nothing: bool) -> None:
        """Pods of ours hold CPUs: unused ones are asked to end, others may by themselves."""
        others = self._others(nodes)
        # Our own pool's may be ending still; who has some pods does not wait for those.
        ours_too = nothing and any(node.holdings for node in nodes if not node.refusal)
        if not others and not ours_too:
            return
        if self._wait_until == NEVER:
            patience = self._settings.startup_timeout if nothing else YIELD_PATIENCE
            self._wait_until = now + patience
            if nothing:
                logger.warning("waiting up to %g s: %s", patience, self._no_room(nodes))
        if now >= self._wait_until:
            return
        self._look_again_at = min(now + LOOK_AGAIN, self._wait_until)
        if others:
            self._events.append(CpusHeld(tuple(sorted(others))))
        if nothing:
            self._events.append(StartupNews(self._no_room(nodes)))

    def _no_room(self, nodes: list[Node]) -> str:
        text = f"no node has room for a pod: {why_not(nodes, self._size)}"
        if any(node.holdings for node in nodes):
            text += "; a pool that is not needed ends by k8sfutures pool delete NAME"
        return text

    @staticmethod
    def _has_started(one: Any, pods: list[dict[str, Any]]) -> bool:
        uid = one["metadata"]["uid"]
        return any(
            owner["uid"] == uid and pod["status"].get("phase") == "Running"
            for pod in pods
            for owner in pod["metadata"].get("ownerReferences") or ()
        )

    # --- watching

    def _hear(self, timeout: float | None) -> None:
        """Take in what has been heard, after waiting for it."""
        try:
            heard = self._inbox.get(timeout=timeout)
            while True:
                self._take(heard)
                heard = self._inbox.get_nowait()
        except queue.Empty:
            pass

    def _take(self, heard: Heard | _Wake) -> None:
        now = time.monotonic()
        match heard:
            case Listed():
                self._roster.listed(heard.pods, now)
            case Changed():
                self._roster.changed(heard.pod, now, deleted=heard.deleted)
            case WatcherDied():
                self._events.append(PodsFailed(thread_died("watcher", heard.error)))
                return
            case _Wake():
                return
        if self._look_again_at != NEVER and _has_ended_pod(heard):
            self._look_again_at = now

    def _look(self) -> None:
        now = time.monotonic()
        try:
            late = self._roster.without_pod(now)
            if late:
                self._ask_about_jobs(now)
            for ending in self._roster.endings(now):
                self._tell(ending)
            if now >= self._explain_at:
                self._explain(now)
            if now >= self._look_again_at and self._credentials is not None:
                self._ensure(self._credentials, self._need)
        except ClusterError as error:
            logger.warning("cannot ask Kubernetes about the pods: %s", error)
            self._explain_at = now + EXPLAIN_EVERY if self._unexplained else NEVER
        news = self._roster.news()
        if news != self._news:
            self._news = news
            self._events.append(StartupNews(news))

    def _ask_about_jobs(self, now: float) -> None:
        """Some should have a pod by now: are they there, and what hinders them?"""
        api = self._connected()
        jobs = Jobs(api, self._pool).all()
        self._roster.jobs_are(one["metadata"]["name"] for one in jobs if not has_ended(one))
        events, _ = api.list(
            f"/api/v1/namespaces/{api.namespace}/events",
            fieldSelector="involvedObject.kind=Job,reason=FailedCreate",
        )
        self._roster.refused(refused_creations(events), now)

    def _tell(self, ending: Ending) -> None:
        failed = ending.failed
        if failed and ending.misplaced and ending.node not in self._misplaced:
            # Others may have been quicker, or an old pod slow to end: once more.
            self._misplaced.add(ending.node)
            failed = False
        if failed:
            logger.warning("%s", ending.words)
            self._failures[ending.pod] = (time.monotonic(), ending)
        self._unexplained.discard(ending.pod)
        alone = failed and not self._roster.on_the_way()
        self._events.append(PodEnded(ending.pod, ending.words, failed=alone))
        if ending.stuck:
            # It would be there for ever, or start when nobody waits any more.
            try:
                Jobs(self._connected(), self._pool).delete(ending.job, ending.uid)
            except ClusterError as error:
                logger.warning("cannot remove the Job %s: %s", ending.job, error)

    def _explain(self, now: float) -> None:
        """Say why pods were lost that Kubernetes still believes in."""
        for name in list(self._unexplained):
            story = self._roster.story(name)
            if story is None:
                words = f"pod {name} is not known to Kubernetes any more: it was deleted"
            elif story.state is State.ENDED:
                words = story.words
            else:
                words = self._node_trouble(story.node)
            if words:
                self._unexplained.discard(name)
                self._events.append(PodEnded(name, words, failed=False))
        self._explain_at = now + EXPLAIN_EVERY if self._unexplained else NEVER

    def _node_trouble(self, name: str) -> str:
        nodes, _ = self._connected().list("/api/v1/nodes", fieldSelector=f"metadata.name={name}")
        if not nodes:
            return f"its node {name} is not in the cluster any more"
        trouble = not_ready(nodes[0])
        return f"its node {name} {trouble}" if trouble else ""


def _alive(pods: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [pod for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]


def _has_ended_pod(heard: Heard | _Wake) -> bool:
    if isinstance(heard, Listed):
        return True
    if not isinstance(heard, Changed):
        return False
    return heard.deleted or heard.pod["status"].get("phase") in {"Succeeded", "Failed"}
