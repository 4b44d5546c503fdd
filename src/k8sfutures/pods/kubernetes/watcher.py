"""The watcher: a thread that hears from Kubernetes how pods fare, for as long as a client is there.

It owns the one long-lived connection to the API, and touches nothing else: what it hears goes
through a function that is safe to call from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from ...errors import ClusterError
from ...values import dataclass
from .api import KubeApi, Watch
from .labels import SELECTOR

logger = logging.getLogger(__name__)

FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
"""Seconds between two attempts to reach the API again."""

SHORT: Final = 1.0
"""Seconds; a server that ends a watch sooner than this is not asked again at once."""

GONE: Final = 410
"""Status of a watch whose version is too old: list again."""


@dataclass(frozen=True, slots=True)
class Listed:
    """All of our pods in the namespace, of every pool."""

    pods: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Changed:
    """One pod, as it is now; or was, before it was deleted."""

    pod: dict[str, Any]
    deleted: bool


@dataclass(frozen=True, slots=True)
class WatcherDied:
    """The watcher has failed, which is a bug."""

    error: BaseException


Heard = Listed | Changed | WatcherDied


class Watcher:
    """See the module's text.

    Args:
        api: the cluster's.
        version: where to begin, as the list of pods had it.
        tell: takes what is heard; called on the watcher's thread.
    """

    def __init__(self, api: KubeApi, version: str, tell: Callable[[Heard], None]) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{api.namespace}/pods"
        self._version = version
        self._tell = tell
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._watch: Watch | None = None
        self._thread = threading.Thread(target=self._run, name="k8sfutures watcher", daemon=True)

    def start(self) -> None:
        """Begin.

        Raises:
            RuntimeError: the interpreter can start no thread any more.
        """
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """End the thread, and wait for that."""
        self._stopped.set()
        with self._lock:
            if self._watch is not None:
                self._watch.stop()
        if self._thread.ident is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        pause = FIRST_PAUSE
        try:
            while not self._stopped.is_set():
                try:
                    if not self._version:
                        pods, self._version = self._api.list(self._path, labelSelector=SELECTOR)
                        self._tell(Listed(pods))
                    began = time.monotonic()
                    self._follow()
                    if time.monotonic() - began < SHORT:
                        self._stopped.wait(pause)
                        pause = min(LONGEST_PAUSE, pause * 2)
                    else:
                        pause = FIRST_PAUSE
                except ClusterError as error:
                    if self._stopped.is_set():
                        return
                    if error.status != GONE:
                        logger.warning("cannot watch the pods; trying again: %s", error)
                        self._stopped.wait(pause)
                        pause = min(LONGEST_PAUSE, pause * 2)
                    self._version = ""
        except BaseException as error:
            logger.exception("the watcher failed")
            self._tell(WatcherDied(error))

    def _follow(self) -> None:
        """Tell what changes, until the API server ends the watch."""
        watch = self._api.watch(self._path, self._version, labelSelector=SELECTOR)
        with self._lock:
            self._watch = watch
            if self._stopped.is_set():
                watch.stop()
        for event in watch:
            kind, pod = event["type"], event["object"]
            if kind == "ERROR":
                raise ClusterError(str(pod.get("message")), status=pod.get("code"))
            self._version = pod["metadata"]["resourceVersion"]
            if kind != "BOOKMARK":
                self._tell(Changed(pod, deleted=kind == "DELETED"))
