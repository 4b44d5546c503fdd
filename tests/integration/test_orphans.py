"""Nothing that a pod has started outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.timeout(60), pytest.mark.broker]


def family() -> tuple[int, int, set[int]]:
    """Agent's process group, zygote, and CPU processes, the one that is kept ready included."""
    zygote = os.getppid()
    children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()
    return os.getpgid(zygote), zygote, set(map(int, children))


def test_cpu_processes_end_where_agent_and_zygote_are_killed_at_once(rabbitmq, wait_for_end):
    with rabbitmq.executor(retries=0) as ex:
        futures = [ex.submit(time.sleep, 600) for _ in range(rabbitmq.slots - 1)]
        for future in futures:
            while not future.running():
                threading.Event().wait(0.01)
        group, zygote, processes = ex.submit(family).result(30)
        assert len(processes) >= rabbitmq.slots
        assert group != os.getpgid(0)
        os.killpg(group, signal.SIGKILL)
        assert all(wait_for_end(pid, 10) for pid in (zygote, *processes))
