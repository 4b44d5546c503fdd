"""Which pods to start, and on which nodes: pure decisions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...values import dataclass
from .capacity import Node


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a pod of the pool is.

    Attributes:
        processes: its CPU processes, or None for as many as its node has CPUs left.
        cpu: thousandths of a CPU that it requests, or None for a whole one for each process.
        memory: bytes that it requests, 0 where that was not said.
        extra_cpu: thousandths of a CPU that it requests besides, for containers of the user's.
        extra_memory: bytes likewise.
    """

    processes: int | None = None
    cpu: int | None = None
    memory: int = 0
    extra_cpu: int = 0
    extra_memory: int = 0

    @property
    def fixed(self) -> tuple[int, int] | None:
        """CPU processes and thousandths of a CPU of each pod; None where pods fill their node."""
        if self.processes is None and self.cpu is None:
            return None
        if self.processes is None:
            return max(1, (self.cpu or 0) // 1000), self.cpu or 0
        return self.processes, self.processes * 1000 if self.cpu is None else self.cpu


@dataclass(frozen=True, slots=True)
class Placement:
    """One pod to start.

    Attributes:
        node: where.
        cpu_ids: one for each of its CPU processes.
        cpu: thousandths of a CPU that it requests.
        ordinal: its number among the pods of its pool on that node.
    """

    node: str
    cpu_ids: tuple[int, ...]
    cpu: int
    ordinal: int


def place(nodes: Iterable[Node], size: Size, wanted: int | None) -> list[Placement]:
    """Place pods on what is free; the nodes' records are updated.

    Args:
        nodes: with what is free there.
        size: of the pods.
        wanted: CPU processes to start at most (rounded up to whole pods), or None for all that
            there is room for.

    Returns:
        The pods to start: as few as will do, the largest nodes first.
    """
    usable = [node for node in nodes if not node.refusal]
    placements: list[Placement] = []
    left = wanted
    while left is None or left > 0:
        rooms = {node.name: room for node in usable if (room := _room(node, size))}
        if not rooms:
            break
        node = _choose([node for node in usable if node.name in rooms], rooms, left)
        processes, cpu = rooms[node.name]
        if size.fixed is None and left is not None and left < processes:
            processes, cpu = left, left * 1000
        ids = node.free_ids(processes)
        node.take(cpu + size.extra_cpu, size.memory + size.extra_memory, ids)
        ordinal = node.new_ordinal(ids[0])
        placements.append(Placement(node.name, tuple(ids), cpu, ordinal))
        if left is not None:
            left -= processes
    return placements


def _room(node: Node, size: Size) -> tuple[int, int] | None:
    """CPU processes and thousandths of a CPU of the next pod on a node; None for no room."""
    if node.pods_free < 1 or node.memory_free < size.memory + size.extra_memory:
        return None
    free = node.cpu_free - size.extra_cpu
    if size.fixed is None:
        processes = min(node.cpus, free // 1000)
        return (processes, processes * 1000) if processes >= 1 else None
    processes, cpu = size.fixed
    return (processes, cpu) if cpu <= free and processes <= node.cpus else None


def _choose(nodes: Sequence[Node], rooms: dict[str, tuple[int, int]], left: int | None) -> Node:
    """The smallest node that has room for all that is left, or else the largest."""
    enough = [node for node in nodes if left is not None and rooms[node.name][0] >= left]
    if enough:
        return min(enough, key=lambda node: (node.cpu_free, node.name))
    return max(nodes, key=lambda node: (node.cpu_free, node.name))


def why_not(nodes: Iterable[Node], size: Size) -> str:
    """Why no pod can be placed anywhere, node by node, for people."""
    lines = [f"{node.name} {_why_not_there(node, size)}" for node in nodes]
    return "; ".join(lines) if lines else "the cluster has no nodes"


def _why_not_there(node: Node, size: Size) -> str:
    if node.refusal:
        return node.refusal
    processes, cpu = size.fixed or (1, 1000)
    cpu += size.extra_cpu
    if cpu > node.cpu:
        return f"has {cpus(node.cpu)} CPUs in all, and a pod wants {cpus(cpu)}"
    if processes > node.cpus:
        return f"has {node.cpus} CPUs, and a pod has {processes} CPU processes"
    if cpu > node.cpu_free:
        return (
            f"has {cpus(max(0, node.cpu_free))} of {cpus(node.cpu)} CPUs free, "
            f"and a pod wants {cpus(cpu)}{_held_by(node)}"
        )
    memory = size.memory + size.extra_memory
    if memory > node.memory_free:
        free, wanted = max(0, node.memory_free) >> 20, -(-memory >> 20)
        return f"has {free} MiB of memory free, and a pod wants {wanted} MiB"
    if node.pods_free < 1:
        return "takes no more pods (it has as many as it may)"
    return "has room"


def _held_by(node: Node) -> str:
    held: dict[str, int] = {}
    for holding in node.holdings:
        of = " of another broker or secret" if holding.namesake else ""
        name = f"{holding.pool}{of}"
        held[name] = held.get(name, 0) + holding.cpu
    words = [f"pool {name} has {cpus(cpu)}" for name, cpu in sorted(held.items())]
    return f" ({', '.join(words)})" if words else ""


def cpus(milli: int) -> str:
    """An amount of CPU, for people."""
    return f"{milli / 1000:g}"
