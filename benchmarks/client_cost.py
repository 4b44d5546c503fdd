"""Where the CPU time of one call goes: each of our threads, the broker, the agent, the process.

A burst of no-ops, and a `map` of them; the CPU time of each thread and process over it, divided
by the number of calls. Time spent waiting does not count. The standard library's client and
processes stand beside it, as sums.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path

from k8sfutures.broker import local_broker_status

from . import workloads
from .conditions import conditions
from .contestants import OURS, STANDARD, both, broker_url, new_pool
from .figures import lines_of
from .side_by_side import heading

TICKS = os.sysconf("SC_CLK_TCK")

SUBMITTING = "submit() on the caller's thread"
WAITING = "result() on the caller's thread"
CLIENT = "client, all threads"
PROCESSES = "CPU processes"
AGENT = "agent"
BROKER = "RabbitMQ (where it is the local one)"

Costs = dict[str, float]


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client_cost", description=__doc__)
    parser.add_argument("--workers", type=int, default=2, help="processes of each executor")
    parser.add_argument("--calls", type=int, default=20_000, help="calls in a burst")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if min(arguments.workers, arguments.calls, arguments.rounds) < 1:
        parser.error("each number must be 1 or more")
    url = broker_url()
    print(heading(conditions(url, arguments.workers)), flush=True)
    children = set(children_of(os.getpid()))
    with both(arguments.workers, new_pool()) as pair:
        standard = dict.fromkeys(set(children_of(os.getpid())) - children, PROCESSES)
        agents = {pid: name for pid, name in standard.items() if is_agent(pid)}
        standard = {pid: name for pid, name in standard.items() if pid not in agents}
        ours = pod_processes(list(agents))
        broker = local_broker_status()
        if broker is not None:
            ours[broker.pid] = BROKER
        for title, work in (("submit", submit_all), ("map", map_all)):
            found: dict[str, list[Costs]] = {OURS: [], STANDARD: []}
            for _ in range(arguments.rounds):
                found[STANDARD].append(cost(pair.standard, work, arguments.calls, standard))
                found[OURS].append(cost(pair.ours, work, arguments.calls, ours))
            print(f"{title} of {arguments.calls:,} no-ops, µs of CPU per call, medians\n")
            print(table(found[STANDARD], found[OURS]) + "\n")


# --- what is measured


def submit_all(executor: Executor, count: int, took: Callable[[str], None]) -> None:
    """Submit, then wait."""
    futures = [executor.submit(workloads.noop) for _ in range(count)]
    took(SUBMITTING)
    for future in futures:
        future.result()
    took(WAITING)


def map_all(executor: Executor, count: int, took: Callable[[str], None]) -> None:
    """A map with the default chunk size."""
    for _ in executor.map(workloads.identity, range(count)):
        pass
    took("map() on the caller's thread")


Work = Callable[[Executor, int, Callable[[str], None]], None]


def cost(executor: Executor, work: Work, count: int, processes: dict[int, str]) -> Costs:
    """Microseconds of CPU per call of every thread and process, by what they are."""
    seconds: Costs = defaultdict(float)
    last = time.thread_time()

    def took(what: str) -> None:
        nonlocal last
        now = time.thread_time()
        seconds[what] += now - last
        last = now

    threads = dict(thread_times())
    before = {pid: cpu_time(pid) for pid in processes}
    client = time.process_time()
    start = time.perf_counter()
    last = time.thread_time()
    work(executor, count, took)
    wall = time.perf_counter() - start
    seconds[CLIENT] = time.process_time() - client
    for name, after in thread_times():
        seconds[name] += after - threads.get(name, 0.0)
    time.sleep(0.05)  # what follows the last result belongs to it
    for pid, name in processes.items():
        seconds[name] += cpu_time(pid) - before[pid]
    seconds["wall-clock time"] = wall
    return {name: value / count * 1e6 for name, value in seconds.items()}


def thread_times() -> list[tuple[str, float]]:
    """CPU seconds of our threads in this process, by the kind of thread."""
    found = []
    for thread in threading.enumerate():
        if thread.name.startswith("k8sfutures ") and thread.ident is not None:
            clock = time.pthread_getcpuclockid(thread.ident)
            kind = " ".join(thread.name.split()[1:-1])
            found.append((f"{kind} thread", time.clock_gettime(clock)))
    return found


# --- processes


def cpu_time(pid: int) -> float:
    """CPU seconds of a process so far, all threads; in steps of a clock tick (mostly 10 ms)."""
    fields = stat_of(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat from the third, the state, on."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()


def children_of(parent: int) -> list[int]:
    """The processes that a process has started."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if int(stat_of(int(path.name))[1]) == parent:
                    found.append(int(path.name))
            except OSError:
                continue  # it has just ended
    return found


def is_agent(pid: int) -> bool:
    """Whether a process is a local pod."""
    return b"k8sfutures.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()


def pod_processes(agents: list[int]) -> dict[int, str]:
    """The agents, the processes that fork for them, and the CPU processes."""
    found = {}
    for agent in agents:
        found[agent] = AGENT
        for zygote in children_of(agent):
            found.update(dict.fromkeys(children_of(zygote), PROCESSES))
    return found


# --- the table


def table(standard: list[Costs], ours: list[Costs]) -> str:
    """What each spends, in the order in which a call passes."""
    names = list(dict.fromkeys(name for costs in (*ours, *standard) for name in costs))
    order = {CLIENT: 1, AGENT: 3, PROCESSES: 4, BROKER: 2, "wall-clock time": 5}
    names.sort(key=lambda name: order.get(name, 0))
    rows = [("", STANDARD, OURS)]
    rows += [(name, _middle(standard, name), _middle(ours, name)) for name in names]
    return lines_of(rows)


def _middle(rounds: list[Costs], name: str) -> str:
    values = [costs[name] for costs in rounds if name in costs]
    return f"{statistics.median(values):.1f}" if values else "-"


if __name__ == "__main__":
    main()
