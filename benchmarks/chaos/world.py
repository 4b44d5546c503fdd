"""All that a soak has started: broker, proxy, clients, and the pods that these start."""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from k8sfutures.machine import start_time

from .node import Node
from .proxy import Proxy

MARK = "K8SFUTURES_CHAOS_RUN"
"""A variable in the environment of clients: it is how its processes are found again."""

PATIENCE = 300.0
"""Seconds for clients to finish their last round."""


class Client:
    """A client process, and what it has said.

    Args:
        name: of it.
        arguments: of its program.
        environment: of it.
        log: its standard error.
    """

    def __init__(
        self, name: str, arguments: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self.said: list[dict[str, Any]] = []
        self.begun: dict[int, dict[str, Any]] = {}
        self.is_suspended = False
        self.was_killed = False
        self.heard = threading.Event()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.chaos.client", *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # it was killed while it spoke
            item = json.loads(line)
            self.said.append(item)
            self.heard.set()

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """What it has said of a kind."""
        return (item for item in list(self.said) if item["kind"] == kind)

    def wait_for(self, kind: str, seconds: float) -> dict[str, Any]:
        """Wait until it says something of a kind."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for item in self.of(kind):
                return item
            self.heard.clear()
            self.heard.wait(0.2)
        raise RuntimeError(f"{self.name} did not say {kind}; see {self.log}")

    def ask_to_end(self) -> None:
        """Let it finish its round."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        self._thread.join(10)
        return True

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._thread.join(10)


class World:
    """See the module's text.

    Args:
        folder: for files.
        seed: of the clients.
        seconds: how long the soak is to be.
        say: prints a line.
    """

    pods = "local"

    def __init__(self, folder: Path, seed: int, seconds: float, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.say = say
        self.token = secrets.token_hex(8)
        self.seed = seed
        self.ends_at = time.monotonic() + seconds
        self.killed: set[int] = set()
        self.struck_pods: set[str] = set()
        self.stubborn: list[int] = []
        self.clients: list[Client] = []
        self.spared = ""
        self._spared_file = folder / "spared"
        self._spared_file.write_text("")
        self._names: dict[int, str] = {}
        self.node = Node(folder / "broker", variables={MARK: self.token})
        self.node.start()
        self.proxy = Proxy((self.node.host, self.node.port))
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("K8SFUTURES_")
        } | {
            MARK: self.token,
            "CHAOS_RUN": self.token,  # pods do not get what is ours
            "K8SFUTURES_CACHE_DIR": str(folder / "cache"),
            "K8SFUTURES_AMQP_URL": self.node.url_at("127.0.0.1", self.proxy.port),
            "K8SFUTURES_PODS": "local",
            "K8SFUTURES_POOL": f"chaos-{self.token}",
            "K8SFUTURES_WORKER_PROCESSES": "1",
            "K8SFUTURES_WARM_FOR": "120",
        }

    @property
    def seconds_left(self) -> float:
        """Until faults end."""
        return self.ends_at - time.monotonic()

    # --- clients

    def start_client(self) -> Client:
        """Start one more."""
        number = len(self.clients)
        name = f"client{number}"
        arguments = [str(self.seed * 1000 + number), name, str(self.ledger(name))]
        arguments.append(str(self._spared_file))
        client = Client(name, arguments, self._environment, self.folder / f"{name}.log")
        self.clients.append(client)
        return client

    def ledger(self, client: str) -> Path:
        """Where the calls of a client write down that they run."""
        return self.folder / f"{client}.ledger"

    def executions(self, client: str) -> Counter[int]:
        """How often each call of a client has run."""
        path = self.ledger(client)
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter(int(line.split(" ", 1)[0]) for line in lines)

    def kill_a_client(self) -> str | None:
        """Kill the newest client, and start another; the first one stays."""
        newest = self.clients[-1]
        if newest is self.clients[0] or newest.is_suspended:
            return None
        newest.was_killed = True
        newest.kill()
        self.start_client()
        return newest.name

    def suspend_a_client(self, chosen: random.Random) -> Client | None:
        """Stop one of the clients."""
        running = [
            one for one in self.clients if one.process.poll() is None and not one.is_suspended
        ]
        if not running:
            return None
        client = chosen.choice(running)
        client.is_suspended = True
        self.signal(client.process.pid, signal.SIGSTOP)
        return client

    def resume(self, client: Client) -> None:
        """Let a client go on that was stopped."""
        self.signal(client.process.pid, signal.SIGCONT)
        client.is_suspended = False

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

    def spare_one(self) -> None:
        """From now on one of the pods is not killed, drained or stopped: it is measured."""
        self.spared, pid = next(iter(self.agents().items()))
        self._spared_file.write_text(str(pid))

    def poisoned(self) -> set[str]:
        """Pods that a call has killed."""
        pids = [-number for one in self.clients for number in self.executions(one.name)]
        return {self._names[pid] for pid in pids if pid in self._names}

    def a_pod(self, chosen: random.Random) -> str | None:
        """A pod to hit."""
        pods = [pod for pod in self.agents() if pod != self.spared]
        return chosen.choice(pods) if pods else None

    def kill_pod(self, pod: str) -> None:
        """End a pod without warning."""
        self.struck_pods.add(pod)
        self.signal(self.agents()[pod], signal.SIGKILL)

    def drain_pod(self, pod: str) -> None:
        """Ask a pod to end."""
        self.struck_pods.add(pod)
        self.signal(self.agents()[pod], signal.SIGTERM)

    def a_process(self, chosen: random.Random) -> int | None:
        """A CPU process to hit, of any pod."""
        found = []
        for agent in self.agents().values():
            for zygote in children(agent):
                found += children(zygote)
        return chosen.choice(sorted(found)) if found else None

    @staticmethod
    def signal(pid: int, number: int) -> None:
        """Send a signal to one of our processes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    # --- broker

    def start_broker(self) -> None:
        """Start it again."""
        if self.node.pid is None:
            self.node.start()

    def end_alarm(self) -> None:
        """Let publishers publish."""
        if self.node.pid is not None:
            self.node.set_memory_limit(0.4)

    # --- the end

    def end_pods(self) -> None:
        """Ask all pods to end, and see to it."""
        # Those that drain have no record any more. They wait for clients that are gone, 10 s.
        running = [pid for pid, words in self.leftovers().items() if "k8sfutures.worker " in words]
        for pid in running:
            self.signal(pid, signal.SIGCONT)
            self.signal(pid, signal.SIGTERM)
        deadline = time.monotonic() + 30
        for pid in running:
            if not ends_within(pid, deadline - time.monotonic()):
                self.stubborn.append(pid)
                self.signal(pid, signal.SIGKILL)

    def leftovers(self) -> dict[int, str]:
        """Processes of this run that are still there."""
        found = {}
        mark = f"CHAOS_RUN={self.token}".encode()
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (path / "environ").read_bytes():
                    words = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                    found[int(path.name)] = words.decode(errors="replace")[:120]
        return found

    def close(self) -> None:
        """End all that is still there."""
        for client in self.clients:
            if client.process.poll() is None:
                client.kill()
            said = "".join(f"{json.dumps(item)}\n" for item in client.said)
            (self.folder / f"{client.name}.said").write_text(said)
        self.end_pods()
        self.proxy.close()
        self.node.kill()


def children(pid: int) -> list[int]:
    """Process ids of the children of a process."""
    with contextlib.suppress(OSError):
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))
    return []


def ends_within(pid: int, seconds: float) -> bool:
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
