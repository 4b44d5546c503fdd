"""Calls that only sleep, each on a CPU of its own, on a cluster that has enough of them.

What takes longer than one sleep is what it costs to have them all started and back: cold (a pool
that nobody has used), and warm (a new process on the pods of the first). See README.md.

The cluster, the broker and the image are those of the usual settings (``K8SFUTURES_...`` or
k8sfutures.toml).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from .cluster_start import (
    WARM_FOR,
    Cluster,
    cell,
    check_folder,
    heading,
    in_new_process,
    told,
    warned,
)
from .figures import lines_of

Json = dict[str, Any]

ONE_CALL = 20
"""Calls, one after another, of which the median counts."""


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sleepers", description=(__doc__ or "").split("\n\n", 1)[0]
    )
    parser.add_argument("--calls", type=int, default=225, help="at once (default: 225)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of sleep (default: 5)")
    parser.add_argument("--rounds", type=int, default=3, help="cold and warm (default: 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there, too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.calls, arguments.rounds) < 1 or arguments.seconds < 0:
        parser.error("--calls and --rounds must be 1 or more, and --seconds 0 or more")
    if arguments.one:
        kind, pool = arguments.one
        print(json.dumps(measured(pool, arguments.calls, arguments.seconds, more=kind == "warm")))
        return
    check_folder(parser, arguments.json)
    with told(), Cluster() as cluster:
        compare(cluster, arguments)


def compare(cluster: Cluster, arguments: argparse.Namespace) -> None:
    """Cold and warm rounds, each in a new process."""
    from .side_by_side import loads, progress

    refuse_too_few(cluster.offered(), arguments.calls)
    found = cluster.conditions()
    print(heading(found), flush=True)
    colds: list[Json] = []
    warms: list[Json] = []
    size = ("--calls", str(arguments.calls))
    sleeps = (*size, "--seconds", str(arguments.seconds))
    progress("a first start that does not count: nodes may have to pull the image")
    with cluster.pool() as pool:
        in_new_process(__spec__, "cold", pool, *size, "--seconds", "0")
    for number in range(arguments.rounds):
        progress(f"round {number + 1} of {arguments.rounds}")
        with cluster.pool() as pool:
            colds.append(in_new_process(__spec__, "cold", pool, *sleeps))
            warms.append(in_new_process(__spec__, "warm", pool, *sleeps))
            colds[-1]["warnings"] = cluster.warnings(pool)
    progress("")
    print(table(arguments, colds, warms))
    found["load_average_after"] = list(os.getloadavg())
    print(warned(colds))
    print(f"Load average of the client's machine after: {loads(found['load_average_after'])}")
    if arguments.json:
        size_given = {"calls": arguments.calls, "seconds": arguments.seconds}
        report = {"conditions": found, "size": size_given, "cold": colds, "warm": warms}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def refuse_too_few(offered: dict[str, int], calls: int) -> None:
    """Calls that wait for one another's CPU would measure that."""
    if sum(offered.values()) < calls:
        each = ", ".join(f"{count} on {node}" for node, count in offered.items())
        sys.exit(
            f"benchmarks: {calls} calls that sleep at the same time need as many CPUs, and the "
            f"cluster offers {sum(offered.values())} to pods of the settings given "
            f"({each or 'it has no nodes'}); free some, or give a smaller --calls"
        )


# --- what a new process measures


def nap(seconds: float) -> tuple[str, int]:
    """Sleep; returns which CPU process did."""
    time.sleep(seconds)
    return os.environ["K8SFUTURES_POD_NAME"], os.getpid()


def noop(_: object) -> None:
    """Nothing."""


def measured(pool: str, calls: int, seconds: float, *, more: bool) -> Json:
    """From the constructor to the results of all calls; all in seconds.

    Args:
        pool: the pool's name.
        calls: how many.
        seconds: that each sleeps.
        more: whether to go on with calls that do nothing, now that all is there.
    """
    from k8sfutures import K8sRabbitExecutor

    cpu = time.process_time()
    start = time.perf_counter()
    with K8sRabbitExecutor(pods="kubernetes", pool=pool, warm_for=WARM_FOR) as executor:
        slept = list(executor.map(nap, [seconds] * calls))
        figures: Json = {
            "all": time.perf_counter() - start,
            "cpu_each": (time.process_time() - cpu) / calls,
            "processes": len(set(slept)),
            "pods": sorted({pod for pod, _ in slept}),
        }
        if more:
            figures |= without_work(executor, calls)
    return figures


def without_work(executor: Executor, calls: int) -> Json:
    """As many calls that do nothing, and then one at a time."""
    cpu = time.process_time()
    start = time.perf_counter()
    results = list(executor.map(noop, range(calls)))
    figures: Json = {
        "noops": time.perf_counter() - start,
        "noops_cpu_each": (time.process_time() - cpu) / calls,
    }
    if results != [None] * calls:
        sys.exit("benchmarks: map lost or changed results: no figure of this run counts")
    times = []
    for _ in range(ONE_CALL):
        start = time.perf_counter()
        executor.submit(noop, None).result()
        times.append(time.perf_counter() - start)
    return figures | {"one_call": times}


# --- what is printed


def table(arguments: argparse.Namespace, colds: Sequence[Json], warms: Sequence[Json]) -> str:
    """Each figure, with the least that it can be."""
    calls, floor = arguments.calls, arguments.seconds
    rows = [("median (lowest … highest round)", "", "at least")]
    naps = f"{calls} calls of {floor:g} s"

    def row(name: str, unit: str, values: Sequence[float], least: str = "") -> None:
        scale = {"s": 1.0, "ms": 1e3, "µs": 1e6}[unit]
        rows.append((f"{name}, {unit}", cell([value * scale for value in values]), least))

    row(f"cold: constructor to {naps}", "s", [one["all"] for one in colds], f"{floor:g}")
    row(f"warm: constructor to {naps}", "s", [one["all"] for one in warms], f"{floor:g}")
    row(f"warm: {calls} no-ops", "ms", [one["noops"] for one in warms])
    middles = [statistics.median(one["one_call"]) for one in warms]
    row(f"warm: one call, p50 of {ONE_CALL}", "ms", middles)
    row("client's CPU time for each call, cold", "µs", [one["cpu_each"] for one in colds])
    row("client's CPU time for each call, warm", "µs", [one["cpu_each"] for one in warms])
    row("client's CPU time for each no-op", "µs", [one["noops_cpu_each"] for one in warms])
    return f"{lines_of(rows)}\n\n{spread(calls, (*colds, *warms))}"


def spread(calls: int, rounds: Sequence[Json]) -> str:
    """On how many CPU processes the calls were; the floor is one sleep only where each had one."""
    processes = [one["processes"] for one in rounds]
    pods = sorted({len(one["pods"]) for one in rounds})
    least = min(processes)
    note = "" if least == calls else ": some CPU had to run two of them, one after the other"
    return (
        f"The {calls} calls were on {least} CPU processes at least{note} "
        f"({' or '.join(map(str, pods))} pods)."
    )


if __name__ == "__main__":
    main()
