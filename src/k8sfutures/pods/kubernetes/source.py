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
from ...config import Settings
from ...errors import ClusterError, PodMismatch, PodsUnavailable
from ...outcomes import thread_died
from ...tls import tls_of
from .. import CpusHeld, Credentials, Need, PodEnded, PodEvent, PodsFailed, StartupNews
from .api import KubeApi, passes
from .capacity import Node
from .explaining import Explainer
from .jobs import Access, Jobs, has_ended
from .labels import SELECTOR, Membership, access_mark
from .manifests import PodSpec, job_name
from .placement import Size, place
from .pools import connect, delete_pool
from .room import LOOK_AGAIN, Room
from .roster import NEVER, Ending, Roster
from .shape import broker_urls, pod_spec, registry_of, size_of
from .stories import State, absent_volumes, has_mounted, refused_creations
from .survey import FailedNodes, Survey, look_over
from .watcher import Changed, Heard, Listed, Watcher, WatcherDied

logger = logging.getLogger(__name__)

API_PATIENCE: Final = 3.0
"""Seconds for which an API that does not answer is asked again where no pod is there."""

API_PAUSE: Final = 0.5

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
    after_broker = True
    explains = True

    def __init__(self, settings: Settings, pool: str) -> None:
        self._settings = settings
        self._pool = pool
        self._url, self._pod_url = broker_urls(settings)
        self._tls = tls_of(
            *(settings.tls_ca, settings.tls_certificate, settings.tls_key),
            (self._url, self._pod_url),
        )
        self._spec: PodSpec = pod_spec(settings, pool)
        self._size: Size = size_of(settings)
        self._inbox: queue.SimpleQueue[Heard | _Wake] = queue.SimpleQueue()
        self._events: list[PodEvent] = []
        self._api: KubeApi | None = None
        self._watcher: Watcher | None = None
        self._roster = Roster(pool)
        self._room = Room(pool, self._size, settings.startup_timeout)
        self._misplaced: set[str] = set()  # nodes that had no room where there seemed to be some
        self._failed_nodes = FailedNodes()
        self._explainer = Explainer()
        self._need = Need()
        self._credentials: Credentials | None = None
        self._look_again_at = NEVER
        self._news = ""
        self._retired = threading.Event()

    # --- PodSource

    def credentials(self) -> Credentials:
        """The configured broker's."""
        secret = self._settings.secret or parse_amqp_url(self._url).password
        return Credentials(self._url, derive_key(secret), self._tls)

    def ensure(self, credentials: Credentials, need: Need) -> None:
        """Make Jobs for the CPUs that are missing, where nodes have room."""
        self._room.begin()
        self._ensure(credentials, need)

    def _ensure(self, credentials: Credentials, need: Need) -> None:
        self._need, self._credentials = need, credentials
        self._look_again_at = NEVER
        self._explainer.wonder(need.unexplained, time.monotonic())
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
            # For the API, which tells nobody when it is back.
            if self._retired.wait(API_PAUSE):
                return

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
            deadline = min(self._roster.deadline(), self._look_again_at, self._explainer.due)
            self._hear(None if deadline == NEVER else max(0.0, deadline - time.monotonic()))
            self._look()
        events, self._events = self._events, []
        for event in events:
            emit(event)

    def wake(self) -> None:
        """Make `watch` return."""
        self._inbox.put(_Wake())

    def retire(self) -> None:
        """Make no Jobs any more; from any thread."""
        self._retired.set()

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
        mark = access_mark(self._pod_url, credentials.key)
        survey = self._survey(api, Membership(self._pool, mark, need.answered))
        self._refuse_mixture(survey.mine)
        now = time.monotonic()
        jobs = Jobs(api, self._pool)
        self._end_silent(jobs, survey, need.silent)
        have = sum(need.attached.values())
        have += survey.expect(self._roster, need.answered, now)
        missing = None if need.cpus is None else max(0, need.cpus - have)
        nodes = survey.nodes
        placements = place(nodes, self._size, missing)
        if placements:
            total = have + sum(len(one.cpu_ids) for one in placements)
            # Where others have CPUs that may become free, what there is now is not all.
            complete = need.cpus is None and not self._room.may_grow(nodes)
            made = jobs.start(
                self._spec,
                placements,
                Access(
                    *(self._pod_url, credentials.key, registry_of(self._settings)), credentials.tls
                ),
                pool_cpus=total if complete else 0,
                is_dead=self._roster.is_dead,
                wanted=lambda: not self._retired.is_set(),
            )
            nodes_of = {job_name(self._pool, one, mark): one.node for one in placements}
            logger.info("asked for pods of pool %s: %s", self._pool, nodes_of)
            for name, uid in made.items():
                self._roster.expect(name, uid, nodes_of[name], now)
        short = missing is None or missing > sum(len(one.cpu_ids) for one in placements)
        nothing = not have and not placements
        if short:
            self._wait_for_room(nodes, now, nothing=nothing)
        if nothing and self._look_again_at == NEVER:
            self._cannot(self._room.words(nodes))
        jobs.collect(survey.jobs, survey.pods, api.time)

    def _survey(self, api: KubeApi, membership: Membership) -> Survey:
        """Look over the cluster, and watch our pods there from now on."""
        path = f"/api/v1/namespaces/{api.namespace}/pods"
        ours, version = api.list(path, labelSelector=SELECTOR)
        now = time.monotonic()
        self._roster.belongs(membership)
        self._roster.listed(ours, now)
        if self._watcher is None:
            self._watcher = Watcher(api, version, self._inbox.put)
            self._watcher.start()
        survey = look_over(api, self._spec, membership, self._roster, ours)
        self._failed_nodes.refuse(survey.nodes, membership.answered, now)
        return survey

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

    def _end_silent(self, jobs: Jobs, survey: Survey, silent: frozenset[str]) -> None:
        """End pods that do not come back, and that Kubernetes believes to run.

        It sees that a container is there, not that its agent is hung or cannot reach the broker.
        No other client hears such a pod, either; each of them may be the one that ends it.
        """
        for one in survey.mine:
            story = self._roster.story(self._roster.pod_of(one["metadata"]["name"]) or "")
            if (
                story is None
                or story.name not in silent
                or story.state is not State.RUNNING
                or story.uid != one["metadata"]["uid"]
            ):
                continue
            logger.warning(
                "%s, by what Kubernetes says, but does not answer at the broker any more: it is "
                "hung, or cannot reach it, and holds its CPUs; it is ended, with its Job %s",
                *(story.words, story.job),
            )
            jobs.remove(one, "as its pod does not answer")

    def _wait_for_room(self, nodes: list[Node], now: float, *, nothing: bool) -> None:
        """Pods of ours hold CPUs: unused ones are asked to end, others may by themselves."""
        wait = self._room.wait(nodes, now, nothing=nothing)
        if wait is None:
            return
        words = self._room.words(nodes)
        if wait.begins and nothing:
            logger.warning("waiting up to %g s: %s", wait.patience, words)
        self._look_again_at = wait.until
        if wait.ask:
            self._events.append(CpusHeld(wait.ask))
        if nothing:
            self._events.append(StartupNews(words))

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
            if self._roster.without_pod(now):
                self._ask_about_jobs(now)
            if self._roster.slow_to_start(now):
                self._ask_about_volumes(now)
            for ending in self._roster.endings(now):
                self._tell(ending, now)
            if now >= self._explainer.due:
                self._events += self._explainer.explain(self._connected(), self._roster, now)
            if now >= self._look_again_at and self._credentials is not None:
                self._ensure(self._credentials, self._need)
        except ClusterError as error:
            logger.warning("cannot ask Kubernetes about the pods: %s", error)
            self._explainer.later(now)
        news = self._roster.news()
        if news != self._news:
            self._news = news
            self._events.append(StartupNews(news))

    def _ask_about_jobs(self, now: float) -> None:
        """Some should have a pod by now: are they there, and what hinders them?"""
        api = self._connected()
        jobs = Jobs(api, self._pool).all()
        self._roster.jobs_are(one["metadata"]["name"] for one in jobs if not has_ended(one))
        self._roster.refused(
            refused_creations(_events(api, "involvedObject.kind=Job,reason=FailedCreate")), now
        )

    def _ask_about_volumes(self, now: float) -> None:
        """Some should have started by now: do they wait for what is not there?"""
        api = self._connected()
        absent = absent_volumes(_events(api, "involvedObject.kind=Pod,reason=FailedMount"))
        self._roster.lacks(
            {
                uid: what
                for uid, what in absent.items()
                if self._roster.is_starting(uid)
                and not has_mounted(_events(api, f"involvedObject.uid={uid}"))
            },
            now,
        )

    def _tell(self, ending: Ending, now: float) -> None:
        failed = ending.failed
        if failed and ending.misplaced and ending.node not in self._misplaced:
            # Others may have been quicker, or an old pod slow to end: once more.
            self._misplaced.add(ending.node)
            failed = False
        if failed or ending.again:
            logger.warning("%s", ending.words)
        if failed:
            self._failed_nodes.note(ending, now)
        self._explainer.explained(ending.pod)
        alone = failed and not self._roster.on_the_way()
        self._events.append(PodEnded(ending.pod, ending.words, failed=alone))
        if ending.again:
            self._look_again_at = now
        if ending.stuck or ending.lingers:
            # It would be there for ever, or start when nobody waits any more.
            try:
                Jobs(self._connected(), self._pool).delete(ending.job, ending.uid)
            except ClusterError as error:
                logger.warning("cannot remove the Job %s: %s", ending.job, error)


def _events(api: KubeApi, selector: str) -> list[dict[str, Any]]:
    path = f"/api/v1/namespaces/{api.namespace}/events"
    return api.list(path, fieldSelector=selector)[0]


def _has_ended_pod(heard: Heard | _Wake) -> bool:
    if isinstance(heard, Listed):
        return True
    if not isinstance(heard, Changed):
        return False
    return heard.deleted or heard.pod["status"].get("phase") in {"Succeeded", "Failed"}
