"""A soak: random work of every kind under random faults, of which every outcome is checked.

``python -m benchmarks.chaos --minutes N --seed S``; it ends by itself, with 1 where anything was
lost, ran twice, hung, or is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import heapq
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .faults import FAULTS
from .report import Report
from .work import usage
from .world import PATIENCE, World, ends_within


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.chaos")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults strike")
    parser.add_argument("--seed", type=int, default=1, help="of what is done and what strikes")
    parser.add_argument("--pods", choices=["local"], default="local", help="where pods run")
    parser.add_argument("--only", help="only faults whose name has this in it")
    parser.add_argument("--keep", action="store_true", help="keep the files of the run")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="k8sfutures-chaos-"))
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f}  {line}", flush=True)

    report = soak(folder, given.minutes * 60, given.seed, given.only, say)
    print(report.text())
    if given.keep or report.violations:
        print(f"\nThe files of the run are in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(1 if report.violations else 0)


def soak(
    folder: Path, seconds: float, seed: int, only: str | None, say: Callable[[str], None]
) -> Report:
    """Run it; returns what became of it."""
    world = World(folder, seed, seconds, say)
    report = Report(seed, seconds)
    try:
        steady = world.start_client()
        steady.wait_for("quiet", 120)
        world.spare_one()
        report.before = usage(world.agents()[world.spared])
        world.start_client()
        strike_for(world, random.Random(seed), report, only)
        say("the faults are over")
        finish(world, report)
        report.after = usage(world.agents().get(world.spared, 0))
    except Exception as error:
        report.violations.append(f"the soak itself failed: {type(error).__name__}: {error}")
        raise
    finally:
        with contextlib.suppress(Exception):
            world.close()
    report.judge(world)
    left = {pid: words for pid, words in world.leftovers().items() if not ends_within(pid, 5)}
    for pid, words in left.items():
        report.violations.append(f"process {pid} was left behind: {words}")
        world.signal(pid, signal.SIGKILL)
    return report


def strike_for(world: World, chosen: random.Random, report: Report, only: str | None) -> None:
    """Provoke faults, until the time is over; all are undone then."""
    faults = [fault for fault in FAULTS if world.pods in fault.pods]
    faults = [fault for fault in faults if only is None or only in fault.name]
    weights = [fault.weight for fault in faults]
    undone: list[tuple[float, int, Callable[[], None]]] = []
    order = itertools.count()
    while world.seconds_left > 0:
        pause = time.monotonic() + chosen.uniform(0.3, 3.0)
        world.agents()  # remembers their names
        while undone and undone[0][0] <= pause:
            due, _, undo = heapq.heappop(undone)
            wait_until(due)
            undo()
        wait_until(pause)
        # Without a broker, only time can strike.
        fault = chosen.choices(faults, weights)[0]
        if world.node.pid is None:
            continue
        struck = fault.strike(world, chosen)
        if struck is None:
            continue
        world.say(f"{fault.name}: {struck.what}")
        report.faults[fault.name] += 1
        if struck.undo is not None:
            heapq.heappush(undone, (time.monotonic() + struck.undo[0], next(order), struck.undo[1]))
    for _, _, undo in sorted(undone):
        undo()


def wait_until(due: float) -> None:
    """Let time pass."""
    time.sleep(max(0.0, due - time.monotonic()))


def finish(world: World, report: Report) -> None:
    """Let the clients come to the end of their rounds."""
    running = [client for client in world.clients if not client.was_killed]
    for client in running:
        client.ask_to_end()
    deadline = time.monotonic() + PATIENCE
    for client in running:
        if not client.ends_within(deadline - time.monotonic()):
            report.violations.append(f"{client.name} did not come to an end; see {client.log}")
            world.signal(client.process.pid, signal.SIGUSR1)  # its stacks go to its log
            time.sleep(1)
            client.kill()
        elif client.process.returncode:
            report.violations.append(
                f"{client.name} ended with {client.process.returncode}; see {client.log}"
            )


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
