"""Thousands of bulky calls leave nothing behind: not at the client, not in the pod."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

import numpy as np
import pytest

pytestmark = [pytest.mark.broker, pytest.mark.slow]

ITEM = 1_000_000
CALLS = 2000
WARM = 500  # by then everything has what it keeps: 256 MiB of blobs, above all
MOST_FILES = 64  # come and go with what is under way
MOST_BYTES = 64_000_000


def children_of(pid: int) -> list[int]:
    return [*map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


def files_of(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def memory_of(pid: int) -> int:
    """Bytes of its own and, of what it shares, its part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (pss,) = (line.split()[1] for line in lines if line.startswith("Pss:"))
    return int(pss) * 1024


def test_bulky_calls_leave_nothing_behind(rabbitmq):
    def add_one(array):
        return array + 1

    with rabbitmq.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        (agent,) = rabbitmq.pids().values()
        (zygote,) = children_of(agent)
        pids = [os.getpid(), agent, *children_of(zygote)]
        looks: list[tuple[int, list[int], list[int]]] = []
        waiting: deque = deque()
        for call in range(CALLS):
            array = np.full(ITEM // 8, call, float)
            waiting.append((call, ex.submit(add_one, array)))
            if len(waiting) == 16 or call == CALLS - 1:
                number, future = waiting.popleft()
                assert (future.result() == number + 1).all()
                del future, array
            if call % 50 == 49:
                looks.append((call, [*map(files_of, pids)], [*map(memory_of, pids)]))
        for number, future in waiting:
            assert (future.result() == number + 1).all()
    warm = [look for look in looks if WARM <= look[0] < (WARM + CALLS) / 2]
    late = [look for look in looks if look[0] >= (WARM + CALLS) / 2]
    for what, column, most in (("files", 1, MOST_FILES), ("bytes", 2, MOST_BYTES)):
        for at, pid in enumerate(pids):
            before = max(look[column][at] for look in warm)
            after = max(look[column][at] for look in late)
            assert after < before + most, f"{what} of process {pid}, {at} of {pids}"
