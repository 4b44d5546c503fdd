"""Which CPUs a local pod begins with, so that pods of several pools do not share one: pure.

A pod that takes every CPU has a CPU process on each, and gives calls to the first that is idle. So
the order of its CPU ids says which CPUs it uses when it has little to do.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def least_used_first(cpu_ids: Iterable[int], others: Collection[Sequence[int]]) -> list[int]:
    """The CPUs for new pods.

    Args:
        cpu_ids: those to choose from.
        others: the CPU ids of each pod that runs, in the order in which it uses them.

    Returns:
        All of them, least used first: those that the fewest pods use first, of these the ones
        that the fewest use second, and so on.
    """
    places = max(map(len, others), default=0)
    used = {cpu_id: [0] * places for cpu_id in cpu_ids}
    for ids in others:
        for place, cpu_id in enumerate(ids):
            if cpu_id in used:
                used[cpu_id][place] += 1
    return sorted(used, key=lambda cpu_id: (used[cpu_id], cpu_id))
