"""The standard library's ProcessPoolExecutor and K8sRabbitExecutor, side by side in one run.

Rounds alternate between the two, so that what else goes on on the machine hits both; the table
shows the median of the rounds, the lowest and the highest. See README.md for what each figure
means and what it does not show.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import measures
from .conditions import conditions
from .contestants import Pair, both, broker_url, new_pool
from .figures import Figure, table


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    submits: int
    round_trips: int
    items: int
    starts: int


FULL = Size(rounds=7, submits=10_000, round_trips=500, items=10_000, starts=5)
QUICK = Size(rounds=3, submits=3_000, round_trips=200, items=3_000, starts=2)


def main() -> None:
    """Measure, print the table, write the JSON."""
    arguments = parsed()
    url = broker_url()
    found = conditions(url, arguments.workers)
    print(heading(found), flush=True)
    size = QUICK if arguments.quick else FULL
    figures: list[Figure] = []
    pool = new_pool()
    with both(arguments.workers, pool) as pair:
        for measure in (submits, idle, mapped, echoed):
            figures += measure(pair, size, arguments.workers)
            progress(f"{measure.__name__}: done")
        # The pods are warm now: what attaches to them starts no process.
        figures += starts(pool, size, arguments.workers)
    progress("")
    print(table(figures))
    found["load_average_after"] = list(os.getloadavg())
    print(f"\nLoad average after: {loads(found['load_average_after'])}")
    if arguments.json:
        report = {
            "conditions": found,
            "size": vars(size),
            "figures": [figure.as_dict() for figure in figures],
        }
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.side_by_side", description=__doc__)
    parser.add_argument(
        "--workers", type=int, default=2, help="processes of each executor (default: 2)"
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there, too")
    arguments = parser.parse_args()
    cpus = len(os.sched_getaffinity(0))
    if not 1 <= arguments.workers <= cpus:
        parser.error(f"--workers must be from 1 to {cpus}, the number of CPUs here")
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {arguments.json.absolute().parent}")
    return arguments


def heading(found: dict[str, Any]) -> str:
    """The conditions, in words."""
    return (
        f"{found['date']}  {found['cpus']} CPUs ({found['cpu_model']}), "
        f"{found['workers']} workers each, load average {loads(found['load_average'])}\n"
        f"Python {found['python']} (start method {found['start_method']}), "
        f"RabbitMQ {found['rabbitmq']}, k8sfutures {found['k8sfutures']}, pika {found['pika']}, "
        f"NumPy {found['numpy'] or 'not installed'}\n"
    )


def loads(averages: list[float]) -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{average:.2f}" for average in averages)


def progress(words: str) -> None:
    """One line that is written over, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{words}", end="", file=sys.stderr, flush=True)


def alternating(rounds: int, *turns: Callable[[], None]) -> None:
    """Give each its turn in every round; every other round goes backwards."""
    for number in range(rounds):
        for turn in turns if number % 2 == 0 else reversed(turns):
            turn()


# --- the figures


def submits(pair: Pair, size: Size, _workers: int) -> Iterator[Figure]:
    """No-op calls per second."""
    figure = Figure("submit, no-op", "calls/s", higher_is_better=True)
    count = size.submits
    alternating(
        size.rounds,
        lambda: figure.standard.append(measures.submits_per_second(pair.standard, count)),
        lambda: figure.ours.append(measures.submits_per_second(pair.ours, count)),
    )
    yield figure


def idle(pair: Pair, size: Size, _workers: int) -> Iterator[Figure]:
    """Round trips of one call at a time."""
    middle = Figure("idle round trip, p50", "ms", higher_is_better=False)
    late = Figure("idle round trip, p99", "ms", higher_is_better=False)

    def standard() -> None:
        times = measures.round_trips(pair.standard, size.round_trips)
        middle.standard.append(measures.percentile(times, 0.50))
        late.standard.append(measures.percentile(times, 0.99))

    def ours() -> None:
        times = measures.round_trips(pair.ours, size.round_trips)
        middle.ours.append(measures.percentile(times, 0.50))
        late.ours.append(measures.percentile(times, 0.99))

    alternating(size.rounds, standard, ours)
    yield from (middle, late)


def mapped(pair: Pair, size: Size, workers: int) -> Iterator[Figure]:
    """Items per second of `map`, and of the standard library's with a chunk size that suits it."""
    count = size.items
    chunksize = max(1, count // (4 * workers))
    figure = Figure("map, no-op, default chunksize", "items/s", higher_is_better=True)
    chunked = Figure(f"map, no-op, chunksize={chunksize}", "items/s", higher_is_better=True)
    alternating(
        size.rounds,
        lambda: figure.standard.append(measures.mapped_per_second(pair.standard, count, None)),
        lambda: figure.ours.append(measures.mapped_per_second(pair.ours, count, None)),
        lambda: chunked.standard.append(
            measures.mapped_per_second(pair.standard, count, chunksize)
        ),
        lambda: chunked.ours.append(measures.mapped_per_second(pair.ours, count, chunksize)),
    )
    yield from (figure, chunked)


def echoed(pair: Pair, size: Size, _workers: int) -> Iterator[Figure]:
    """Megabytes per second of arrays that come back as they went."""
    arrays = measures.new_arrays()
    if arrays is None:
        print("NumPy is not installed: no echo of arrays", file=sys.stderr)
        return
    figure = Figure("echo of 8 arrays of 10 MB", "MB/s", higher_is_better=True)
    for executor in (pair.standard, pair.ours):  # once, so that every buffer has grown
        measures.echoed_megabytes_per_second(executor, arrays)
    alternating(
        size.rounds,
        lambda: figure.standard.append(measures.echoed_megabytes_per_second(pair.standard, arrays)),
        lambda: figure.ours.append(measures.echoed_megabytes_per_second(pair.ours, arrays)),
    )
    yield figure


def starts(pool: str, size: Size, workers: int) -> Iterator[Figure]:
    """From the constructor to the first result, in a new process each time."""
    warm = Figure("start: first result, ours on warm pods", "ms", higher_is_better=False)
    cold = Figure("start: first result, ours on cold pods", "ms", higher_is_better=False)
    load = Figure("start: import of the executor", "ms", higher_is_better=False)

    def standard() -> None:
        measured = started("standard", workers)
        warm.standard.append(measured["first_result"])
        load.standard.append(measured["import"])

    def attached() -> None:
        measured = started("ours", workers, "--pool", pool)
        warm.ours.append(measured["first_result"])
        load.ours.append(measured["import"])

    def provisioned() -> None:
        # A pool that nobody has used: its pods are started, and end when they are not needed.
        options = ("--pool", new_pool(), "--warm-for", "0")
        cold.ours.append(started("ours", workers, *options)["first_result"])

    alternating(size.starts, standard, attached, provisioned)
    yield from (warm, cold, load)


def started(executor: str, workers: int, *options: str) -> dict[str, float]:
    """What `benchmarks.start` measures in a process of its own."""
    command = [sys.executable, "-m", f"{__package__}.start", executor]
    command += ["--workers", str(workers), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


if __name__ == "__main__":
    main()
