"""A soak's world with local pods: processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from k8sfutures.machine import start_time

from .work import usage
from .world import World

MARK = "CHAOS_RUN"
"""A variable in the environment of clients, which pods inherit: so they are found again."""


class LocalWorld(World):
    """See the module's text.

    Args:
        folder: for files.
        seed: of the clients.
        say: prints a line.
    """

    pods = "local"

    def __init__(self, folder: Path, seed: int, say: Callable[[str], None]) -> None:
        super().__init__(folder, seed, say)
        self.environment[MARK] = self.token
        self._spared = ""
        self._killed: set[int] = set()
        self._names: dict[int, str] = {}

    # --- what calls write down

    def ledger(self, client: str) -> str:
        return str(self.folder / f"{client}.ledger")

    def executions(self, client: str) -> Counter[int]:
        path = Path(self.ledger(client))
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(int(line.split(" ", 1)[0]) for line in lines)

    # --- pods

    def agents(self) -> dict[str, int]:
        """Pods that run, and the process ids of their agents."""
        found = {}
        for path in sorted((self.folder / "cache").glob("pods/*/*.json")):
            with contextlib.suppress(OSError, ValueError):
                record = json.loads(path.read_text())
                self._names[record["pid"]] = path.stem
                if start_time(record["pid"]) == record["started"]:
                    found[path.stem] = record["pid"]
        return found

    def names(self) -> list[str]:
        return list(self.agents())

    def spare_one(self) -> None:
        self._spared, pid = next(iter(self.agents().items()))
        self.spare(str(pid))

    def usage_of_spared(self) -> dict[str, int]:
        return usage(self.agents().get(self._spared, 0))

    def poisoned(self) -> set[str]:
        pids = [-number for one in self.clients for number in self.executions(one.name)]
        return {self._names[pid] for pid in pids if pid in self._names}

    def a_pod(self, chosen: random.Random) -> str | None:
        pods = [pod for pod in self.agents() if pod != self._spared]
        return chosen.choice(pods) if pods else None

    def kill_pod(self, pod: str) -> None:
        self.signal_pod(pod, signal.SIGKILL)

    def drain_pod(self, pod: str) -> None:
        self.signal_pod(pod, signal.SIGTERM)

    def signal_pod(self, pod: str, number: int) -> int:
        """Send a signal to an agent; returns its process id."""
        self.struck_pods.add(pod)
        pid = self.agents().get(pod)
        if pid is not None:
            self.signal(pid, number)
        return pid or 0

    def stop_pod(self, pod: str) -> Callable[[], None]:
        pid = self.signal_pod(pod, signal.SIGSTOP)
        return lambda: self.signal(pid, signal.SIGCONT)

    def kill_zygote(self, pod: str) -> None:
        self.struck_pods.add(pod)
        for zygote in _children(self.agents().get(pod, 0)):
            self._killed.update(_children(zygote))
            self.signal(zygote, signal.SIGKILL)

    def was_killed(self, pod: str, pid: int) -> bool:
        return pid in self._killed

    def signal_process(self, process: int, number: int) -> None:
        if number == signal.SIGKILL:
            self._killed.add(process)
        self.signal(process, number)

    def a_process(self, chosen: random.Random) -> int | None:
        found = [pid for agent in self.agents().values() for pid in _processes(agent)]
        return chosen.choice(sorted(found)) if found else None

    # --- the end

    def dump_pods(self) -> None:
        agents = list(self.agents().values())
        for pid in [*(pid for agent in agents for pid in _processes(agent)), *agents]:
            self.signal(pid, signal.SIGCONT)
            self.signal(pid, signal.SIGABRT)
            threading.Event().wait(0.2)  # what a process prints goes through its agent
        for path in (self.folder / "cache").glob("pods/*/*.log"):
            (self.folder / f"{path.stem}.stacks").write_bytes(path.read_bytes())

    def end_pods(self) -> list[str]:
        # Those that drain have no record any more. They wait for clients that are gone, 10 s.
        pods = {
            pid: words for pid, words in self.leftovers().items() if "k8sfutures.worker" in words
        }
        agents = set(pods).difference(*map(_children, pods))
        for pid in agents:
            self.signal(pid, signal.SIGCONT)
            self.signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + 60
        told = []
        for pid in agents:
            if not _ends_within(pid, deadline - time.monotonic()):
                told.append(f"the pod of process {pid} did not end by SIGTERM")
                self.signal(pid, signal.SIGKILL)
        for pid, words in self.leftovers().items():
            if not _ends_within(pid, 10):
                told.append(f"process {pid} was left behind: {words}")
                self.signal(pid, signal.SIGKILL)
        return told

    def leftovers(self) -> dict[int, str]:
        """Processes of this run that are still there."""
        found = {}
        mark = f"{MARK}={self.token}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes():
                    words = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(path.name)] = words.decode(errors="replace")[:120]
        return found


def _processes(agent: int) -> list[int]:
    """Process ids of the CPU processes of an agent."""
    return [pid for zygote in _children(agent) for pid in _children(zygote)]


def _children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def _ends_within(pid: int, seconds: float) -> bool:
    """Wait for the end of a process that need not be our child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))
    finally:
        os.close(descriptor)
