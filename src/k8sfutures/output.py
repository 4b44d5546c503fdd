"""What calls print, written to the client's own streams by a thread of its own.

A terminal that is stopped, or a pipe that nobody reads, must not hold up Futures.
"""

from __future__ import annotations

import itertools
import logging
import operator
import queue
import sys
import threading
from typing import Final

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 100_000
"""Pieces of text that may wait for a slow terminal; what comes beyond is dropped, and counted.
A piece is what one pod has sent at once, so this is minutes of output that nobody reads."""


class Printer:
    """Writes text to ``sys.stdout`` and ``sys.stderr``; starts its thread with the first one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._queue: queue.Queue[tuple[int, str] | None] = queue.Queue(MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._dropped = 0

    def write(self, lines: list[tuple[int, int, str]]) -> None:
        """Write soon; never blocks.

        Args:
            lines: (call id, 1 for stdout or 2 for stderr, text) in the order of their writing.
        """
        for stream, group in itertools.groupby(lines, operator.itemgetter(1)):
            self._put(stream, "".join(text for _, _, text in group))

    def _put(self, stream: int, text: str) -> None:
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name=f"k8sfutures output {self._name}", daemon=True
            )
            self._thread.start()
        try:
            self._queue.put_nowait((stream, text))
        except queue.Full:
            self._dropped += 1

    def close(self, timeout: float) -> None:
        """Write what waits, for at most this many seconds."""
        if self._thread is not None:
            try:
                self._queue.put(None, timeout=timeout)
            except queue.Full:
                logger.warning("output of calls is lost: nobody reads our stdout or stderr")
                return
            self._thread.join(timeout)

    def _run(self) -> None:
        while (entry := self._queue.get()) is not None:
            stream, text = entry
            out = sys.stdout if stream == 1 else sys.stderr
            try:
                out.write(text)
                out.flush()
                if self._dropped:
                    dropped, self._dropped = self._dropped, 0
                    sys.stderr.write(f"[k8sfutures: {dropped} pieces of output dropped]\n")
            except (OSError, ValueError, AttributeError) as error:
                # A closed pipe, a closed or missing stream: the calls' results matter more.
                logger.warning("cannot write the output of calls: %s", error)
