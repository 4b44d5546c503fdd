"""Jobs in the cluster: made in parallel, told apart, collected."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from ...errors import ClusterError
from ...tls import Tls
from ...values import dataclass
from .api import KubeApi
from .labels import POOL, SELECTOR, access_mark, digest, selector_of
from .manifests import PodSpec, broker_secret, job, registry_secret
from .placement import Placement
from .stories import lingers
from .timestamps import between

logger = logging.getLogger(__name__)

Json = Mapping[str, Any]

COLLECT_AFTER: Final = 600.0
"""Seconds after which the next client removes what should be gone: Jobs that have ended where
Kubernetes does not remove them by itself, and those whose pod never started."""

THREADS: Final = 16
"""Jobs that are made at the same time; a request takes some milliseconds of waiting."""

CONFLICT: Final = 409


@dataclass(frozen=True, slots=True)
class Access:
    """What pods need to reach the broker, and nodes to reach the image's registry."""

    url: str
    key: bytes
    registry: tuple[str, str, str] | None
    tls: Tls | None = None

    @property
    def mark(self) -> str:
        """Tells pods that are told this from others; gives none of it away."""
        return access_mark(self.url, self.key)

    def __repr__(self) -> str:
        return "Access(...)"


class Jobs:
    """The Jobs of one pool.

    Args:
        api: the cluster's.
        pool: the pool's name.
    """

    def __init__(self, api: KubeApi, pool: str) -> None:
        self._api = api
        self._pool = pool
        self._path = f"/apis/batch/v1/namespaces/{api.namespace}/jobs"

    def all(self) -> list[dict[str, Any]]:
        """Our Jobs in the namespace, of every pool."""
        return self._api.list(self._path, labelSelector=SELECTOR)[0]

    def of_pool(self, jobs: Iterable[Json]) -> list[Json]:
        """Those of them that belong to this pool."""
        return [one for one in jobs if one["metadata"]["labels"].get(POOL) == digest(self._pool)]

    def start(
        self,
        spec: PodSpec,
        placements: Sequence[Placement],
        access: Access,
        *,
        pool_cpus: int,
        is_dead: Callable[[str], bool],
        wanted: Callable[[], bool] = lambda: True,
    ) -> dict[str, str]:
        """Make a Job for each placement, and with each the Secrets that its pod reads.

        Args:
            spec: what the pool's pods have in common.
            placements: where pods go.
            access: what they are told.
            pool_cpus: CPUs of the whole pool, or 0 where that is not known.
            is_dead: whether the pod of a Job with this uid is known to have ended.
            wanted: whether pods are wanted still; from any thread. Once they are not, no more
                Jobs are made, and those that were just made are removed.

        Returns:
            The Jobs' uids by their names: ours, and, with none, those that another client has
            just made in their place. None where they are not wanted any more.

        Raises:
            ClusterError: not one could be made.
        """
        created: list[Json] = []
        problems: list[ClusterError] = []
        others: list[str] = []

        def make(placement: Placement) -> None:
            # A name that nobody can guess is no secret, but keeps two starts from sharing one.
            secret = f"k8sfutures-{digest(self._pool)}-{secrets.token_hex(4)}"
            pull_secret = f"{secret}-registry" if access.registry is not None else None
            body = job(
                *(spec, placement),
                secret=secret,
                pull_secret=pull_secret,
                pool_cpus=pool_cpus,
                access=access.mark,
            )
            if not wanted():
                return
            try:
                one = self._create(body, is_dead)
            except ClusterError as error:
                if error.status == CONFLICT:
                    others.append(body["metadata"]["name"])
                else:
                    problems.append(error)
                return
            try:
                if wanted():
                    self._tell(one, secret, pull_secret, access)
                created.append(one)
            except ClusterError as error:
                problems.append(error)

        _in_parallel(make, placements)
        if not wanted():
            self._undo(created, "for which nobody waits any more")
            return {}
        if problems and not created and not others:
            raise problems[0]
        for problem in problems:
            logger.warning("a pod could not be asked for: %s", problem)
        made = {one["metadata"]["name"]: one["metadata"]["uid"] for one in created}
        return dict.fromkeys(others, "") | made

    def _create(self, body: Json, is_dead: Callable[[str], bool]) -> Json:
        name = body["metadata"]["name"]
        try:
            return self._api.create(self._path, body)
        except ClusterError as error:
            if error.status != CONFLICT:
                raise
            # Of the same pool, node and CPUs: either another client's, or one that has ended.
            for one in self._api.list(self._path, fieldSelector=f"metadata.name={name}")[0]:
                uid = one["metadata"]["uid"]
                if not (has_ended(one) or is_dead(uid)):
                    raise
                self.delete(name, uid)
        return self._api.create(self._path, body)

    def _tell(self, owner: Json, secret: str, pull_secret: str | None, access: Access) -> None:
        """Make the Secrets that a Job's pod reads, which go with the Job.

        After the Job, so that nothing is left behind whatever happens here, and a client need
        not be allowed to read or change any Secret. Right after it: a kubelet that finds none
        looks again half a second later.
        """
        path = f"/api/v1/namespaces/{self._api.namespace}/secrets"
        try:
            # First: a kubelet pulls once it has the other one.
            if pull_secret is not None and access.registry is not None:
                body = registry_secret(pull_secret, self._pool, owner, access.registry)
                self._create_secret(path, body)
            body = broker_secret(secret, self._pool, owner, access.url, access.key, access.tls)
            self._create_secret(path, body)
        except ClusterError:
            self.remove(owner, "since its Secret could not be made")
            raise

    def _create_secret(self, path: str, body: Json) -> None:
        """Make a Secret; quotas refuse several at once with a conflict (kubernetes#67761)."""
        try:
            self._api.create(path, body)
        except ClusterError as error:
            if error.status != CONFLICT:
                raise
            self._api.create(path, body)

    def _undo(self, jobs: Sequence[Json], why: str) -> None:
        """Remove Jobs that were just made; those that stay hinder nobody for long.

        Whoever comes across one whose pod waits for a Secret that was never made removes it.
        """
        _in_parallel(lambda one: self.remove(one, why), jobs)

    def remove(self, one: Json, why: str) -> None:
        """Remove a Job, if it is there still; a failure costs a warning.

        Args:
            one: as the API had it.
            why: for people.
        """
        name, uid = one["metadata"]["name"], one["metadata"]["uid"]
        logger.info("removing the Job %s, %s", name, why)
        try:
            self.delete(name, uid)
        except ClusterError as error:
            if error.status != CONFLICT:  # another has its name now, so it is gone
                logger.warning("cannot remove the Job %s, %s: %s", name, why, error)

    def delete(self, name: str, uid: str = "") -> bool:
        """Remove a Job and its pod.

        Args:
            name: the Job's.
            uid: the Job's, so that no new one of its name is meant; "" for any.

        Returns:
            Whether it was there.

        Raises:
            ClusterError: it could not be; with status 409 where another one has its name now.
        """
        return self._api.delete(f"{self._path}/{name}", uid)

    def delete_all(self, selector: str | None = None) -> int:
        """Remove Jobs, and with them their pods and Secrets.

        Args:
            selector: of labels; the pool's by default.

        Returns:
            How many there were.
        """
        selector = selector or selector_of(self._pool)
        jobs = self._api.list(self._path, labelSelector=selector)[0]
        gone: list[bool] = []
        _in_parallel(lambda one: gone.append(self.delete(one["metadata"]["name"])), jobs)
        return sum(gone)

    def collect(self, jobs: Iterable[Json], pods: Iterable[Json], now: str) -> None:
        """Remove what should be gone; a failure costs a warning.

        Args:
            jobs: ours, of every pool.
            pods: ours, likewise.
            now: the time by the API server's clock, which wrote the other times; "" for unknown.
        """
        states: dict[str, list[Json]] = {}
        for pod in pods:
            for owner in pod["metadata"].get("ownerReferences") or ():
                states.setdefault(owner["uid"], []).append(pod)
        for one in jobs:
            why = _why_in_the_way(one, states.get(one["metadata"]["uid"], []), now)
            if why:
                self.remove(one, why)


def _why_in_the_way(one: Json, pods: Sequence[Json], now: str) -> str:
    """Why a Job with these pods should be gone; "" where it should not."""
    if has_ended(one):
        conditions = (one.get("status") or {}).get("conditions") or ()
        ended = [condition.get("lastTransitionTime") for condition in conditions]
        stale = any(between(time, now) > COLLECT_AFTER for time in ended)
        return "which has ended, and was left behind" if stale else ""
    if any(map(lingers, pods)):
        return "whose worker has ended, while another container of its pod goes on"
    started = any((pod.get("status") or {}).get("phase") == "Running" for pod in pods)
    old = between(one["metadata"]["creationTimestamp"], now) > COLLECT_AFTER
    return "whose pod has never started" if old and not started else ""


def has_ended(one: Json) -> bool:
    """Whether a Job has ended, or is being deleted."""
    if one["metadata"].get("deletionTimestamp"):
        return True
    return any(
        condition["type"] in {"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"}
        and condition["status"] == "True"
        for condition in (one.get("status") or {}).get("conditions") or ()
    )


def _in_parallel(work: Callable[[Any], None], items: Sequence[Any]) -> None:
    """Call a function with each item, on some threads; what it raises is raised here.

    Not a ThreadPoolExecutor: that takes nothing any more when the interpreter ends, which is
    when a program that has only submitted calls may still be waiting for its pods.
    """
    todo = iter(items)
    lock = threading.Lock()
    errors: list[BaseException] = []

    def run() -> None:
        while not errors:
            with lock:
                item = next(todo, _END)
            if item is _END:
                return
            try:
                work(item)
            except BaseException as error:  # raised below, in the caller's thread
                errors.append(error)

    threads = [
        threading.Thread(target=run, name="k8sfutures jobs", daemon=True)
        for _ in range(min(THREADS, len(items)) - 1)
    ]
    for thread in threads:
        thread.start()
    run()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


_END: Final = object()
