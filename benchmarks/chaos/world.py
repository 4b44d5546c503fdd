"""All that a soak has started: broker, proxy and clients; the pods are `local` or on a `cluster`.

Nothing else is ever touched: processes are known by their pid or by a mark in their environment,
pods by the namespace, and connections by the proxy that they go through.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import secrets
import signal
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .clients import Client
from .node import USER, Node
from .proxy import Proxy

SECOND = "second"
"""The broker's user that all clients have but the first."""

CLOCK = Path(__file__).parent / "clock"
"""What has the wall clock jump, on the path of clients and of the pods that inherit it."""

PATIENCE = 300.0
"""Seconds for clients to finish their last round."""


class World(ABC):
    """See the module's text.

    Args:
        folder: for files.
        seed: of the clients.
        say: prints a line.
        host: the address that broker and proxy listen at.
        variables: of the broker's environment.
    """

    pods = ""
    """Where pods run."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        say: Callable[[str], None],
        host: str = "127.0.0.1",
        variables: dict[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.say = say
        self.token = secrets.token_hex(8)
        self.seed = seed
        self.ends_at = float("inf")
        self.struck_pods: set[str] = set()
        self.clients: list[Client] = []
        self.host = host
        self.has_dumped = False
        self.refused: set[str] = set()
        self.is_revoked = False
        self.spare("")
        self.node = Node(folder / "broker", host, variables)
        self.node.start()
        self._password = secrets.token_hex(16)
        self.node.allow(SECOND, self._password)
        self.proxy = Proxy((host, self.node.port), host)
        self._clock = folder / "clock"
        self.set_clock(0)
        path = [str(CLOCK), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("K8SFUTURES_")
        } | {
            "PYTHONFAULTHANDLER": "1",  # SIGABRT shows where a process is
            "K8SFUTURES_CACHE_DIR": str(folder / "cache"),
            # With an arena for each thread, free blocks that nobody gets would hide a leak.
            "MALLOC_ARENA_MAX": "1",
            "PYTHONPATH": os.pathsep.join(path),
            "CHAOS_CLOCK": str(self._clock),
            # The key would be another with another password.
            "K8SFUTURES_SECRET": secrets.token_hex(24),
            "K8SFUTURES_PODS": self.pods,
            "K8SFUTURES_POOL": f"chaos-{self.token}",
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
        arguments = [str(self.seed * 1000 + number), name, self.ledger(name), self.spared_file()]
        environment = self.environment | self.urls(second=number > 0)
        client = Client(name, arguments, environment, self.folder / f"{name}.log")
        self.clients.append(client)
        if self.is_revoked:
            self.refused.add(name)
        return client

    def urls(self, *, second: bool) -> dict[str, str]:
        """Settings that say where the broker is, through the proxy."""
        user, password = (SECOND, self._password) if second else (USER, self.node.password)
        return {"K8SFUTURES_AMQP_URL": f"amqp://{user}:{password}@{self.host}:{self.proxy.port}/"}

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

    @staticmethod
    def signal(pid: int, number: int) -> None:
        """Send a signal to one of our processes."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)

    @property
    def is_hanging(self) -> bool:
        """Whether a client has said that a call has no outcome."""
        return any(client.counts["hang"] for client in self.clients)

    def set_clock(self, seconds: float) -> None:
        """Have the wall clock of clients, and of local pods, go wrong by so much."""
        with self._clock.open("r+b" if self._clock.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))

    # --- what calls write down

    @abstractmethod
    def ledger(self, client: str) -> str:
        """Where the calls of a client write down that they run; see `client.note`."""

    @abstractmethod
    def executions(self, client: str) -> Counter[int]:
        """How often each call of a client has run."""

    def spared_file(self) -> str:
        """Where clients find which pod their calls are not to kill; empty as long as none is."""
        return str(self.folder / "spared")

    def spare(self, what: str) -> None:
        """Say which: the pid of its agent, or its name."""
        Path(self.spared_file()).write_text(what)

    # --- pods

    @abstractmethod
    def names(self) -> list[str]:
        """Pods that run."""

    @abstractmethod
    def spare_one(self) -> None:
        """From now on one of the pods is not killed, drained or stopped: it is measured."""

    @abstractmethod
    def usage_of_spared(self) -> dict[str, int]:
        """What that one uses; see `work.usage`."""

    @abstractmethod
    def a_pod(self, chosen: random.Random) -> str | None:
        """A pod to hit."""

    @abstractmethod
    def kill_pod(self, pod: str) -> None:
        """End a pod without warning."""

    @abstractmethod
    def drain_pod(self, pod: str) -> None:
        """Ask a pod to end."""

    @abstractmethod
    def poisoned(self) -> set[str]:
        """Pods that a call has killed."""

    @abstractmethod
    def a_process(self, chosen: random.Random) -> object:
        """A CPU process to hit, of any pod; None where there is none now."""

    @abstractmethod
    def signal_process(self, process: Any, number: int) -> None:
        """Send it a signal; it may be gone."""

    @abstractmethod
    def kill_zygote(self, pod: str) -> None:
        """Kill the process that forks a pod's CPU processes, which end with it."""

    @abstractmethod
    def stop_pod(self, pod: str) -> Callable[[], None] | None:
        """Have an agent stand still; returns what lets it go on, None where that cannot be done."""

    @abstractmethod
    def was_killed(self, pod: str, pid: int) -> bool:
        """Whether we have killed a CPU process."""

    def hold_api(self) -> Callable[[], None] | None:
        """Let nothing through to the Kubernetes API; returns what ends that, None without one."""
        return None

    # --- broker

    def revoke(self, how: str) -> None:
        """Refuse the second user, whose clients, and whose pods, are sent away."""
        self.is_revoked = True
        self.refused.update(client.name for client in self.clients[1:])
        self.struck_pods.update(self.proxy.names())
        self.node.revoke(SECOND, how)

    def give_back(self) -> None:
        """Let the second user in again."""
        self.start_broker()
        self.node.allow(SECOND, self._password)
        self.is_revoked = False

    def start_broker(self) -> None:
        """Start it again."""
        if self.node.pid is None:
            self.node.start()

    def end_alarm(self) -> None:
        """Let publishers publish."""
        if self.node.pid is not None:
            self.node.set_memory_limit(0.4)

    # --- the end

    def dump_stacks(self) -> None:
        """Something hangs: where all threads are goes to the logs; the pods end by it."""
        if self.has_dumped:
            return
        self.has_dumped = True
        for client in self.clients:
            if client.process.poll() is None:
                self.signal(client.process.pid, signal.SIGCONT)
                self.signal(client.process.pid, signal.SIGUSR1)
        self.dump_pods()
        threading.Event().wait(2)

    @abstractmethod
    def dump_pods(self) -> None:
        """The part of `dump_stacks` that is about pods."""

    @abstractmethod
    def end_pods(self) -> list[str]:
        """Ask all pods to end, and see to it; returns what did not, in words."""

    def close(self) -> list[str]:
        """End all that is still there; returns what did not end by itself, in words."""
        for client in self.clients:
            if client.process.poll() is None:
                client.kill()
            said = "".join(f"{json.dumps(item)}\n" for item in client.said)
            (self.folder / f"{client.name}.said").write_text(said)
        try:
            return self.end_pods()
        finally:
            self.proxy.close()
            self.node.kill()
