"""Pods that fail as they start, while another one works."""

from __future__ import annotations

import threading
import time
from typing import Any

from k8sfutures import testing
from k8sfutures.pods import PodEnded
from k8sfutures.testing import MemoryCluster


def test_they_are_not_started_again_and_again(monkeypatch):
    """A second one would end as the first did, and each costs the node a start."""
    started = []

    class Failing(testing._MemoryPods):
        """The first pod is there; each one that is asked for later fails."""

        def ensure(self, credentials: Any, need: Any) -> None:
            super().ensure(credentials, need)
            started.append(need)
            pause = 0.5 if len(started) == 1 else 0.05  # the one that answers is there by then
            threading.Timer(pause, self.fail, [f"pod-{len(started)}"]).start()

        def fail(self, name: str) -> None:
            with self._wake:
                self._ended.append(PodEnded(name, "failed with exit code 1", failed=True))
                self._wake.notify_all()

    monkeypatch.setattr(testing, "_MemoryPods", Failing)
    with MemoryCluster([1]) as cluster, cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8
        ex.submit(time.sleep, 2).result(30)
    assert len(started) <= 3
