"""The provisioning thread: owns where pods come from, and may block there."""

from __future__ import annotations

import enum
import logging
import queue
import threading
from collections.abc import Callable

from .errors import BrokerUnreachable, ExecutorBroken
from .outcomes import thread_died
from .pods import Credentials, PodEvent, PodsFailed, PodSource

logger = logging.getLogger(__name__)


class Wanted(enum.Enum):
    """What the thread is asked for."""

    PODS = enum.auto()
    BROKER = enum.auto()
    END = enum.auto()


class Provisioner:
    """Finds the broker, then starts pods whenever it is asked to, and tells of their ends.

    Args:
        source: where pods run.
        emit: called with each event, on this thread; must not block.
        name: of the client, for the thread's name.
    """

    def __init__(self, source: PodSource, emit: Callable[[PodEvent], None], name: str) -> None:
        self._source = source
        self._emit = emit
        self._wanted: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, name=f"k8sfutures provisioning {name}", daemon=True
        )

    def start(self) -> None:
        """Begin; the first pods are wanted at once.

        Raises:
            RuntimeError: the interpreter can start no thread any more.
        """
        self._wanted.put(Wanted.PODS)
        self._thread.start()

    def want_pods(self) -> None:
        """Pods are missing: start some; from any thread."""
        self._wanted.put(Wanted.PODS)
        self._source.wake()

    def want_broker(self) -> None:
        """The broker is gone: see to it that it runs, where that is ours to do; any thread."""
        self._wanted.put(Wanted.BROKER)
        self._source.wake()

    def close(self) -> None:
        """End the thread, not the pods; from any thread."""
        self._wanted.put(Wanted.END)
        if self._thread.ident is not None:
            self._source.wake()

    def join(self, timeout: float) -> None:
        """Wait until the thread has ended."""
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            try:
                self._serve()
            finally:
                self._source.close()
        except ExecutorBroken as error:
            self._emit(PodsFailed(error))
        except BaseException as error:
            logger.exception("the provisioning thread failed")
            self._emit(PodsFailed(thread_died("provisioning", error)))

    def _serve(self) -> None:
        credentials: Credentials | None = None
        while True:
            wanted: set[Wanted] = set()
            while not self._wanted.empty():
                wanted.add(self._wanted.get_nowait())
            if Wanted.END in wanted:
                return
            if credentials is None:
                credentials = self._source.credentials()
                self._emit(credentials)
            elif Wanted.BROKER in wanted:
                self._look_for_broker(credentials)
            if Wanted.PODS in wanted:
                self._source.ensure(credentials)
            self._source.watch(self._emit)

    def _look_for_broker(self, known: Credentials) -> None:
        try:
            found = self._source.credentials()
        except ExecutorBroken as error:
            # The link goes on trying: somebody else may bring it back.
            logger.warning("the broker is gone, and cannot be started: %s", error)
            return
        if found != known:
            raise BrokerUnreachable(
                "the broker was ended, and the one that runs now has another address or password; "
                "make a new executor"
            )
