"""Which CPUs this pod has, and how many of them it may use at once."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")
_ONLINE: Final = Path("/sys/devices/system/cpu/online")


def available(allotted: Sequence[int] | None = None, count: int | None = None) -> list[int]:
    """The CPU ids to start CPU processes on.

    Args:
        allotted: the ids that whoever started the pod chose, or None for all that it has.
        count: how many to use at most, or None.

    Returns:
        Ids in the order of the allotment, at least one; see `choose` for which. A CPU quota of the
        cgroup (``cpu.max``, Linux's cgroup v2; ``cpu.cfs_quota_us``, v1) lowers their number: with
        a quota of two CPUs on a machine of 64, two CPU processes run, not 64 that are throttled.
    """
    ids = choose(os.sched_getaffinity(0), _online(_ONLINE), allotted)
    quota = _quota(_CGROUP)
    if quota is not None:
        ids = ids[: max(1, math.floor(quota + 1e-6))]
    if count is not None:
        ids = ids[: max(1, count)]
    return ids


def choose(cpuset: set[int], online: set[int] | None, allotted: Sequence[int] | None) -> list[int]:
    """The CPU ids of a pod, from those that it was allotted and those that it really got.

    A CPU process is pinned to its id where the cpuset has it, and else runs wherever the cpuset
    lets it. There is one for each id, and the ids are the processes' names, too.

    Args:
        cpuset: the CPUs that this process may run on.
        online: all CPUs of the machine, or None where that cannot be told.
        allotted: the ids that whoever started the pod chose, or None.

    Returns:
        Ids in the order of the allotment, as many as were allotted: the first are used first.

        - A cpuset of just as many CPUs, and not the whole machine, is the pod's alone, as the
          kubelet's static CPU manager gives one: these CPUs, whichever were allotted.
        - Any other may be shared: under that manager, all pods without CPUs of their own have
          the same cpuset, the rest of the machine. So the allotment stands as it is. Ids in the
          cpuset are pinned, and pods with disjoint allotments are pinned to disjoint CPUs. For ids
          outside of it no CPU is made up, since it might be another pod's: those processes are
          not pinned, and the kernel moves them to CPUs that are idle.
        - The same holds on a whole machine, even for ids that it does not have: then the node
          offers more CPUs than there are.
    """
    ids = list(dict.fromkeys(allotted or ()))
    if not ids or (len(cpuset) == len(ids) and cpuset != online):
        return [*(one for one in ids if one in cpuset), *sorted(cpuset.difference(ids))]
    return ids


def _online(path: Path) -> set[int] | None:
    """The CPUs of the machine: ranges such as ``0-3,8``."""
    try:
        text = path.read_text().strip()
        found: set[int] = set()
        for part in text.split(","):
            first, _, last = part.partition("-")
            found.update(range(int(first), int(last or first) + 1))
    except (OSError, ValueError):
        return None
    return found


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
