"""The provisioning thread: owns where pods come from, and may block there."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from .errors import BrokerUnreachable, ExecutorBroken
from .outcomes import thread_died
from .pods import Credentials, Need, PodEvent, PodsFailed, PodSource

logger = logging.getLogger(__name__)


class _Broker:
    """The broker is to be looked after."""


LOOK_EVERY: Final = 5.0
"""Seconds between two looks for a broker that is away."""


class _End:
    """The thread is to end."""


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
        self._look_again_at = 0.0
        self._told = False  # that the broker cannot be started
        self._wanted: queue.SimpleQueue[Need | _Broker | _End] = queue.SimpleQueue()
        self._thread = threading.Thread(
            target=self._run, name=f"k8sfutures provisioning {name}", daemon=True
        )

    def start(self) -> None:
        """Begin, with the broker.

        Raises:
            RuntimeError: the interpreter can start no thread any more.
        """
        self._thread.start()

    def want_pods(self, need: Need) -> None:
        """Pods are missing: start some; from any thread."""
        self._wanted.put(need)
        self._source.wake()

    def want_broker(self) -> None:
        """The broker is gone: see to it that it runs, where that is ours to do; any thread."""
        self._wanted.put(_Broker())
        self._source.wake()

    def close(self) -> None:
        """End the thread, not the pods; from any thread."""
        self._source.retire()
        self._wanted.put(_End())
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
            look_for_broker, need = False, None
            while not self._wanted.empty():
                match self._wanted.get_nowait():
                    case _End():
                        return
                    case _Broker():
                        look_for_broker = True
                    case Need() as newest:
                        need = newest
            if credentials is None:
                credentials = self._source.credentials()
                self._emit(credentials)
            elif look_for_broker:
                self._look_for_broker(credentials)
            if need is not None:
                self._source.ensure(credentials, need)
            self._source.watch(self._emit)

    def _look_for_broker(self, known: Credentials) -> None:
        if time.monotonic() < self._look_again_at:
            return  # we are asked again as long as it is away
        try:
            found = self._source.credentials()
        except ExecutorBroken as error:
            # The link goes on trying, and so do we: somebody else may bring it back.
            if not self._told:
                logger.warning("the broker is gone, and cannot be started: %s", error)
            self._told = True
            return
        finally:
            self._look_again_at = time.monotonic() + LOOK_EVERY
        self._told = False
        if found != known:
            raise BrokerUnreachable(
                "the broker was ended, and the one that runs now has another address or password; "
                "make a new executor"
            )
