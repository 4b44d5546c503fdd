"""Which CPUs this pod has, and how many of them it may use at once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def available(allotted: Sequence[int] | None = None, count: int | None = None) -> list[int]:
    """The CPU ids to start CPU processes on.

    Args:
        allotted: the ids that whoever started the pod chose; those that the pod did not
            really get are left out. None for all.
        count: how many to use at most, or None.

    Returns:
        Ids in ascending order, at least one. A CPU quota of the cgroup (``cpu.max``, Linux's
        cgroup v2; ``cpu.cfs_quota_us``, v1) lowers their number: with a quota of two CPUs on
        a machine of 64, two CPU processes run, not 64 that are throttled.
    """
    ids = sorted(os.sched_getaffinity(0))
    if allotted is not None:
        ids = [cpu for cpu in ids if cpu in set(allotted)] or ids
    quota = _quota(_CGROUP)
    if quota is not None:
        ids = ids[: max(1, math.floor(quota + 1e-6))]
    if count is not None:
        ids = ids[: max(1, count)]
    return ids


def _quota(root: Path) -> float | None:
    """CPUs that the cgroup at `root` grants, or None for no limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if limit in {"max", "-1"}:
        return None
    return int(limit) / int(period)
