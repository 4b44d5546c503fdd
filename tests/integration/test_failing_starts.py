"""Pods that fail as they start, while another one works."""

from __future__ import annotations

import time
from typing import Any

from k8sfutures import testing
from k8sfutures.pods import PodEnded
from k8sfutures.testing import MemoryCluster


def test_they_are_not_started_again_and_again(monkeypatch):
    """A second one would end as the first did, and each costs the node a start."""
    sources = []

    class Failing(testing._MemoryPods):
        """The first pod is there; each one that is asked for later fails."""

        started = 0

        def ensure(self, credentials: Any, need: Any) -> None:
            super().ensure(credentials, need)
            self.started += 1
            if self.started == 1:
                sources.append(self)
            else:
                self.fail()

        def fail(self) -> None:
            with self._wake:
                name = f"pod-{self.started}"
                self._ended.append(PodEnded(name, "failed with exit code 1", failed=True))
                self._wake.notify_all()

    monkeypatch.setattr(testing, "_MemoryPods", Failing)
    with MemoryCluster([1]) as cluster, cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result(30) == 8
        (source,) = sources
        busy = ex.submit(time.sleep, 1)
        source.fail()
        busy.result(30)
    assert source.started <= 3
