"""A soak's world with pods on Kubernetes, in a namespace of its own that goes with it.

Cluster, image and its registry are those of the usual settings (``KUBECONFIG``,
``K8SFUTURES_IMAGE``, ...). It makes and deletes a namespace, pods, and runs a command in one.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config
from kubernetes.stream import stream

from .proxy import Proxy
from .world import World

WORKERS = 4
"""CPUs that clients use: one pod for each."""

MEMORY = 512
"""MiB that a pod may have; `kinds.Kinds.greedy` wants more."""

_SELECTOR = "app.kubernetes.io/name=k8sfutures"

_USAGE = """
import json, os
found = dict(line.split(":", 1) for line in open("/proc/1/status") if ":" in line)
print(json.dumps({"memory": int(found["VmRSS"].split()[0]), "files": len(os.listdir("/proc/1/fd")),
    "threads": int(found["Threads"])}))
"""

_PROCESSES = """
import json
children = lambda pid: open(f"/proc/{pid}/task/{pid}/children").read().split()
print(json.dumps({int(zygote): [int(pid) for pid in children(zygote)] for zygote in children(1)}))
"""
"""Process ids of a pod's zygote and of its CPU processes; the agent is process 1 there."""

_SIGNAL = """
import os, sys
os.kill(int(sys.argv[1]), int(sys.argv[2]))
"""


class ClusterWorld(World):
    """See the module's text.

    Args:
        folder: for files.
        seed: of the clients.
        say: prints a line.
        host: an address of this machine that pods reach; None for the one it reaches others from.
        containerd: a pattern for the path of a node's containerd socket; None for no faults of it.
    """

    pods = "kubernetes"

    def __init__(
        self,
        folder: Path,
        seed: int,
        say: Callable[[str], None],
        host: str | None,
        containerd: str | None,
    ) -> None:
        self._containerd = containerd
        self._killed: set[tuple[str, int]] = set()
        kubeconfig = os.environ.get("K8SFUTURES_KUBECONFIG") or os.environ.get("KUBECONFIG")
        api = config.new_client_from_config(kubeconfig)
        self._core = client.CoreV1Api(api)
        super().__init__(folder, seed, say, host or _primary_address())
        self._namespace = f"k8sfutures-chaos-{self.token}"
        try:
            self._core.create_namespace({"metadata": {"name": self._namespace}})  # type: ignore[arg-type]
        except client.ApiException:
            self.proxy.close()
            self.node.kill()
            raise
        # The clients' way to the API, which can be cut; ours is another.
        server = urlsplit(api.configuration.host)
        assert server.hostname is not None
        self._api = Proxy((server.hostname, server.port or 443))
        self._ledgers: dict[str, Ledger] = {}
        self._spared = ""
        given = {name: value for name, value in os.environ.items() if name.startswith("K8SFUTURES")}
        self.environment = (
            given
            | self.environment
            | {
                "K8SFUTURES_KUBECONFIG": str(self._kubeconfig(kubeconfig, server.hostname)),
                "CHAOS_WORKERS": str(WORKERS),
                "K8SFUTURES_NAMESPACE": self._namespace,
                "CHAOS_MEMORY": str(MEMORY << 20),
                "K8SFUTURES_MEMORY": f"{MEMORY}Mi",
                "K8SFUTURES_STARTUP_TIMEOUT": "240",
            }
        )

    def _kubeconfig(self, path: str | None, host: str) -> Path:
        """A copy of ours, by that way."""
        whole = yaml.safe_load(Path(path or config.KUBE_CONFIG_DEFAULT_LOCATION).read_text())
        for cluster in whole["clusters"]:
            cluster["cluster"] |= {
                "server": f"https://127.0.0.1:{self._api.port}",
                "tls-server-name": host,
            }
        copy = self.folder / "kubeconfig"
        copy.touch(mode=0o600)
        copy.write_text(json.dumps(whole))
        return copy

    def hold_api(self) -> Callable[[], None]:
        return self._api.hold()

    # --- what calls write down

    def ledger(self, client: str) -> str:
        ledger = self._ledgers.get(client)
        if ledger is None:
            ledger = self._ledgers[client] = Ledger(self.host)
        return f"{self.host}:{ledger.port}"

    def executions(self, client: str) -> Counter[int]:
        return self._ledgers[client].counted

    def poisoned(self) -> set[str]:
        return {pod for ledger in self._ledgers.values() for pod in ledger.poisoned}

    # --- pods

    def names(self) -> list[str]:
        found: list[Any] = self._core.list_namespaced_pod(
            self._namespace, label_selector=_SELECTOR
        ).items
        return sorted(
            pod.metadata.name
            for pod in found
            if pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None
        )

    def spare_one(self) -> None:
        deadline = time.monotonic() + 60
        while not (names := self.names()) and time.monotonic() < deadline:
            threading.Event().wait(0.5)  # it runs calls, and Kubernetes does not know of it yet
        self._spared = names[0]
        self.spare(self._spared)

    def usage_of_spared(self) -> dict[str, int]:
        return dict(json.loads(self._run_in(self._spared, _USAGE) or "{}"))

    def _run_in(self, pod: str, program: str, *arguments: object) -> str:
        """What a program prints that runs in a pod; nothing where that is gone."""
        try:
            told = stream(
                self._core.connect_get_namespaced_pod_exec,
                pod,
                self._namespace,
                command=["python", "-c", program, *map(str, arguments)],
                stdout=True,
                stderr=False,
                stdin=False,
                tty=False,
                _preload_content=False,
            )
        except client.ApiException:
            return ""
        raw = told.sock.sock
        try:
            told.run_forever(timeout=30)
            return str(told.read_stdout()) if told.peek_stdout() else ""
        finally:
            told.close()
            raw.close()  # which that leaves to the garbage collector

    def a_pod(self, chosen: random.Random) -> str | None:
        pods = [pod for pod in self.names() if pod != self._spared]
        return chosen.choice(pods) if pods else None

    def kill_pod(self, pod: str) -> None:
        self.struck_pods.add(pod)
        if not self._ask_containerd(pod, "kill", "-s", "KILL"):
            self._delete(pod, grace_period_seconds=0)

    def stop_pod(self, pod: str) -> Callable[[], None] | None:
        self.struck_pods.add(pod)
        if not self._ask_containerd(pod, "pause"):
            return None

        def resume() -> None:
            self._ask_containerd(pod, "resume")

        return resume

    def _ask_containerd(self, pod: str, *what: str) -> bool:
        """Do something to a pod's container without a word to Kubernetes; returns whether it is."""
        if self._containerd is None:
            return False
        try:
            found: Any = self._core.read_namespaced_pod(pod, self._namespace)
        except client.ApiException:
            return False
        (status,) = found.status.container_statuses
        container = status.container_id.removeprefix("containerd://")
        socket_ = self._containerd.format(node=found.spec.node_name)
        done = subprocess.run(
            ["ctr", "-a", socket_, "-n", "k8s.io", "tasks", *what, container],
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode == 0

    def processes(self, pod: str) -> dict[int, list[int]]:
        """Process ids of a pod's zygote, and of its CPU processes."""
        found = json.loads(self._run_in(pod, _PROCESSES) or "{}")
        return {int(zygote): children for zygote, children in found.items()}

    def a_process(self, chosen: random.Random) -> tuple[str, int] | None:
        pods = self.names()
        if not pods:
            return None
        pod = chosen.choice(pods)
        pids = [pid for children in self.processes(pod).values() for pid in children]
        return (pod, chosen.choice(pids)) if pids else None

    def signal_process(self, process: tuple[str, int], number: int) -> None:
        if number == signal.SIGKILL:
            self._killed.add(process)
        pod, pid = process
        self._run_in(pod, _SIGNAL, pid, int(number))

    def was_killed(self, pod: str, pid: int) -> bool:
        return (pod, pid) in self._killed

    def kill_zygote(self, pod: str) -> None:
        self.struck_pods.add(pod)
        for zygote, pids in self.processes(pod).items():
            self._killed.update((pod, pid) for pid in pids)
            self._run_in(pod, _SIGNAL, zygote, int(signal.SIGKILL))

    def urls(self, *, second: bool) -> dict[str, str]:
        url = super().urls(second=second)
        return url | {"K8SFUTURES_POD_AMQP_URL": url["K8SFUTURES_AMQP_URL"]}

    def drain_pod(self, pod: str) -> None:
        self._delete(pod)

    def _delete(self, pod: str, **how: Any) -> None:
        self.struck_pods.add(pod)
        with contextlib.suppress(client.ApiException):  # it has gone meanwhile
            self._core.delete_namespaced_pod(pod, self._namespace, **how)

    # --- the end

    def dump_pods(self) -> None:
        for pod in self.names():
            log = self._core.read_namespaced_pod_log(pod, self._namespace)
            (self.folder / f"{pod}.log").write_text(log)

    def end_pods(self) -> list[str]:
        self._api.close()
        self._core.delete_namespace(self._namespace)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline:
            try:
                self._core.read_namespace(self._namespace)
            except client.ApiException as error:
                if error.status == 404:
                    return []
                raise
            threading.Event().wait(1)
        return [f"the namespace {self._namespace} is still there, 180 s after it was deleted"]


class Ledger:
    """Counts what the calls of one client tell it; see `client.note`.

    Args:
        host: the address to listen at.
    """

    def __init__(self, host: str) -> None:
        self.counted: Counter[int] = Counter()
        self.poisoned: set[str] = set()
        self._listener = socket.create_server((host, 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._count, name="ledger", daemon=True).start()

    def _count(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                line = b""
                while not line.endswith(b"\n") and (data := connection.recv(4096)):
                    line += data
                if line.endswith(b"\n"):
                    words = line.decode().split()
                    number = int(words[0])
                    self.counted[number] += 1
                    if number < 0:  # instead of a call's number, that of the agent that it kills
                        self.poisoned.add(words[-1])
                    connection.sendall(b"%d\n" % self.counted[number])


def _primary_address() -> str:
    """The address that this machine reaches others from; nothing is sent for that."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
