"""A soak: random work of every kind under random faults, of which every outcome is checked.

``python -m benchmarks.chaos --minutes N --seed S``; it ends by itself, with 1 where anything was
lost, ran twice, hung, or is left behind. Ctrl-C ends it sooner, with the report so far.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .faults import FAULTS
from .local import LocalWorld
from .report import Report
from .world import PATIENCE, World

SETTLE = 90.0
"""Seconds for a pod to forget clients that were killed: their lease is 60."""

LOOK = 20.0
"""Seconds between two looks at what the spared agent uses; on a cluster each starts a program."""


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.chaos")
    parser.add_argument("--minutes", type=float, default=1.0, help="how long faults strike")
    parser.add_argument("--seed", type=int, default=1, help="of what is done and what strikes")
    parser.add_argument(
        "--pods", choices=["local", "kubernetes"], default="local", help="where pods run"
    )
    parser.add_argument("--processes", type=int, default=1, help="CPU processes of each pod")
    parser.add_argument("--host", help="an address of this machine that pods on Kubernetes reach")
    parser.add_argument(
        "--containerd",
        help="path of a node's containerd socket, {node} for its name: containers are killed and "
        "frozen from outside, too",
    )
    parser.add_argument("--only", help="only faults whose name has this in it")
    parser.add_argument("--pause", type=float, default=3.0, help="the most seconds between faults")
    parser.add_argument("--keep", action="store_true", help="keep the files of the run")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="k8sfutures-chaos-"))
    began = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - began:7.1f}  {line}", flush=True)

    report = Report(given.seed)
    world: World
    if given.pods == "local":
        world = LocalWorld(folder, given.seed, say)
    else:
        from .cluster import ClusterWorld

        world = ClusterWorld(folder, given.seed, say, given.host, given.containerd)
    world.environment["K8SFUTURES_WORKER_PROCESSES"] = str(given.processes)
    Soak(world, report, given.only, given.pause).run(given.minutes)
    print(report.text())
    if given.keep or report.violations:
        print(f"\nThe files of the run are in {folder}")
    else:
        shutil.rmtree(folder)
    sys.exit(1 if report.violations else 0)


class Soak:
    """One run.

    Args:
        world: what is hit.
        report: what becomes of it.
        only: part of the names of faults that may strike; None for all.
        pause: the most seconds between two.
    """

    def __init__(self, world: World, report: Report, only: str | None, pause: float) -> None:
        self._world = world
        self._report = report
        self._pause = pause
        self._faults = [fault for fault in FAULTS if only is None or only in fault.name]
        self._undone: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def run(self, minutes: float) -> None:
        """Strike for so long, let the clients come to their end, and judge."""
        world, report = self._world, self._report
        began = time.monotonic()
        try:
            self._begin(minutes)
            try:
                self._strike_for(random.Random(world.seed))
                world.say("the faults are over")
            except KeyboardInterrupt:
                world.say("interrupted: the clients finish what they do (Ctrl-C again kills them)")
            report.seconds = time.monotonic() - began
            for _, _, undo in sorted(self._undone):
                undo()
            self._finish()
            report.after = self._settled()
        except KeyboardInterrupt:
            report.violations.append("interrupted before the end: not all was checked")
        except Exception as error:
            traceback.print_exc()
            report.violations.append(f"the soak itself failed: {type(error).__name__}: {error}")
        finally:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # what is left now is soon done
            report.violations += world.close()
        report.judge(world)

    def _begin(self, minutes: float) -> None:
        world = self._world
        world.start_client().wait_for("quiet", 120)
        world.spare_one()
        self._report.before = self._ready()
        world.start_client()
        world.ends_at = time.monotonic() + minutes * 60

    def _strike_for(self, chosen: random.Random) -> None:
        """Provoke faults, until the time is over."""
        world, weights = self._world, [fault.weight for fault in self._faults]
        looked = time.monotonic()
        while world.seconds_left > 0 and not world.is_hanging:
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                self._report.meanwhile += filter(None, [world.usage_of_spared()])
            pause = time.monotonic() + chosen.uniform(0.3, self._pause)
            world.names()  # they are remembered
            while self._undone and self._undone[0][0] <= pause:
                due, _, undo = self._undone[0]
                _wait_until(due)
                heapq.heappop(self._undone)
                undo()
            _wait_until(pause)
            # Without a broker, only time can strike.
            if world.node.pid is None or not self._faults:
                continue
            fault = chosen.choices(self._faults, weights)[0]
            struck = fault.strike(world, chosen)
            if struck is None:
                continue
            world.say(f"{fault.name}: {struck.what}".rstrip(": "))
            self._report.faults[fault.name] += 1
            if struck.undo is not None:
                after, undo = struck.undo
                heapq.heappush(self._undone, (time.monotonic() + after, next(self._order), undo))

    def _finish(self) -> None:
        """Let the clients come to the end of their rounds."""
        world, report = self._world, self._report
        running = [client for client in world.clients if not client.was_killed]
        for client in running:
            client.ask_to_end()
        deadline = time.monotonic() + PATIENCE
        while not all(client.ends_within(0.2) for client in running):
            if world.is_hanging or time.monotonic() > deadline:
                world.dump_stacks()
                break
        for client in running:
            if not client.ends_within(1):
                report.violations.append(f"{client.name} did not come to an end; see {client.log}")
                client.kill()
            elif client.process.returncode:
                report.violations.append(
                    f"{client.name} ended with {client.process.returncode}; see {client.log}"
                )

    def _ready(self) -> dict[str, int]:
        """What the spared agent uses when it has a process ready for when another ends."""
        usage: dict[str, int] = {}
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            usage, before = self._world.usage_of_spared(), usage
            if usage.get("files") == before.get("files"):
                break
            _wait_until(time.monotonic() + 1)
        return usage

    def _settled(self) -> dict[str, int]:
        """What the spared agent uses when it has no clients any more."""
        deadline = time.monotonic() + SETTLE
        most = self._report.before.get("files", 0)
        while True:
            usage = self._world.usage_of_spared()
            # All of its clients have left, so it has what it had, and a connection to the broker.
            if not usage or usage["files"] <= most or time.monotonic() > deadline:
                return usage
            _wait_until(time.monotonic() + 1)


def _wait_until(due: float) -> None:
    """Let time pass."""
    threading.Event().wait(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
