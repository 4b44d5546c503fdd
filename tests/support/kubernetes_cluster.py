"""A real cluster for tests: a namespace of their own there, a broker, and ways to break things.

Settings, all from the environment: ``K8SFUTURES_TEST_KUBECONFIG`` (which cluster),
``K8SFUTURES_TEST_IMAGE`` (the pods' image, which the nodes have), ``K8SFUTURES_TEST_DATA_IMAGE``
(one that has NumPy, pandas and pyarrow besides, as this Python has them), ``K8SFUTURES_TEST_HOST``
(an address of this machine that pods reach, for what the tests serve: a broker, journals) or
``K8SFUTURES_TEST_AMQP_URL`` (a broker that both sides reach), and ``K8SFUTURES_TEST_CONTAINERD`` (a
pattern with ``{node}`` for the path of a node's containerd socket, where it is on this machine:
only then can a container be killed without a word to Kubernetes).
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from cluster_broker import ClusterBroker
from kubernetes import client, config
from kubernetes.stream import stream

from k8sfutures import K8sRabbitExecutor

SELECTOR = "app.kubernetes.io/name=k8sfutures"


class KubernetesCluster:
    """One for the whole run.

    Args:
        folder: for the broker's files.
    """

    def __init__(self, folder: Path) -> None:
        self.kubeconfig = os.environ["K8SFUTURES_TEST_KUBECONFIG"]
        self.image = os.environ.get("K8SFUTURES_TEST_IMAGE", "localhost/k8sfutures-worker:test")
        api = config.new_client_from_config(self.kubeconfig)
        self.core = client.CoreV1Api(api)
        self.batch = client.BatchV1Api(api)
        self.rbac = client.RbacAuthorizationV1Api(api)
        # `stream` changes the client that it is given for as long as it runs.
        self._streams = client.CoreV1Api(config.new_client_from_config(self.kubeconfig))
        self._streaming = threading.Lock()
        self.namespace = f"k8sfutures-tests-{secrets.token_hex(4)}"
        self.core.create_namespace({"metadata": {"name": self.namespace}})
        self.broker: ClusterBroker | None = None
        self.host = os.environ.get("K8SFUTURES_TEST_HOST") or _primary_address()
        url = os.environ.get("K8SFUTURES_TEST_AMQP_URL")
        if url is None:
            self.broker = ClusterBroker(self.host, folder)
            url = self.broker.url
        self.amqp_url = url

    def close(self) -> None:
        self.core.delete_namespace(self.namespace)
        if self.broker is not None:
            self.broker.stop()

    # --- executors

    def settings(self, **more: Any) -> dict[str, Any]:
        return {
            "pods": "kubernetes",
            "kubeconfig": self.kubeconfig,
            "namespace": self.namespace,
            "amqp_url": self.amqp_url,
            "image": self.image,
            "image_pull_policy": "IfNotPresent",
            "startup_timeout": 60,
            "warm_for": 60,
            **more,
        }

    def executor(self, *args: Any, **more: Any) -> K8sRabbitExecutor:
        return K8sRabbitExecutor(*args, **self.settings(**more))

    # --- the cluster

    def pods(self, pool: str | None = None) -> list[Any]:
        found = self.core.list_namespaced_pod(self.namespace, label_selector=SELECTOR).items
        name = "k8sfutures/pool-name"
        return [pod for pod in found if pool is None or pod.metadata.annotations[name] == pool]

    def running(self, pool: str | None = None) -> list[Any]:
        return [pod for pod in self.pods(pool) if pod.status.phase == "Running"]

    def jobs(self) -> list[Any]:
        return list(self.batch.list_namespaced_job(self.namespace, label_selector=SELECTOR).items)

    def secrets(self) -> list[Any]:
        found = self.core.list_namespaced_secret(self.namespace, label_selector=SELECTOR)
        return list(found.items)

    def nodes(self) -> dict[str, int]:
        """Schedulable nodes that are ready, and the CPUs that can be had there."""
        found = {}
        for node in self.core.list_node().items:
            ready = [c.status for c in node.status.conditions if c.type == "Ready"]
            if ready == ["True"] and not node.spec.unschedulable:
                cpu = node.status.allocatable["cpu"]
                milli = int(cpu[:-1]) if cpu.endswith("m") else int(cpu) * 1000
                found[node.metadata.name] = milli // 1000
        return found

    def clear(self) -> None:
        """Remove every pool of the tests, and wait until its pods are gone."""
        self.batch.delete_collection_namespaced_job(
            self.namespace, label_selector=SELECTOR, propagation_policy="Background"
        )
        # At once: Kubernetes 1.20 takes 20 s to end a pod that has never started.
        self.core.delete_collection_namespaced_pod(
            self.namespace, label_selector=SELECTOR, grace_period_seconds=0
        )
        wait_until(lambda: not self.pods(), 60)

    @contextmanager
    def account(self, name: str, folder: Path, *, role: bool) -> Iterator[str]:
        """A service account, with the rights of worker/role.yaml or none; its kubeconfig."""
        self.core.create_namespaced_service_account(self.namespace, {"metadata": {"name": name}})
        roles = [self._grant(name, one) for one in _role_documents()] if role else []
        try:
            path = folder / f"{name}.kubeconfig"
            path.write_text(json.dumps(self._kubeconfig(self._token(name))))
            yield str(path)
        finally:
            for undo in roles:
                undo()
            self.core.delete_namespaced_service_account(name, self.namespace)

    def _grant(self, account: str, document: dict[str, Any]) -> Callable[[], object]:
        """Apply one object of the file to this account; returns what takes it away."""
        kind, name = document["kind"], f"{self.namespace}-{account}"
        subject = {"kind": "ServiceAccount", "name": account, "namespace": self.namespace}
        document = {**document, "metadata": {"name": name}}
        if "roleRef" in document:
            document["roleRef"] = {**document["roleRef"], "name": name}
            document["subjects"] = [subject]
        if kind in {"Role", "RoleBinding"}:
            make = getattr(self.rbac, f"create_namespaced_{_snake(kind)}")
            undo = getattr(self.rbac, f"delete_namespaced_{_snake(kind)}")
            make(self.namespace, document)
            return lambda: undo(name, self.namespace)
        make = getattr(self.rbac, f"create_{_snake(kind)}")
        undo = getattr(self.rbac, f"delete_{_snake(kind)}")
        make(document)
        return lambda: undo(name)

    def _token(self, account: str) -> str:
        request = {"spec": {"expirationSeconds": 3600}}
        issued = self.core.create_namespaced_service_account_token(account, self.namespace, request)
        return str(issued.status.token)

    def _kubeconfig(self, token: str) -> dict[str, Any]:
        configuration = self.core.api_client.configuration
        authority = Path(configuration.ssl_ca_cert).read_bytes()
        cluster = {
            "server": configuration.host,
            "certificate-authority-data": base64.b64encode(authority).decode(),
        }
        context = {"cluster": "c", "user": "u", "namespace": self.namespace}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": context}],
            "current-context": "x",
        }

    # --- faults

    def kill_container(self, pod: Any) -> None:
        """End a pod's container from outside, as a crash of the agent would."""
        pattern = os.environ.get("K8SFUTURES_TEST_CONTAINERD")
        if pattern is None:
            self.core.delete_namespaced_pod(
                pod.metadata.name, self.namespace, grace_period_seconds=0
            )
            return
        self._signal(pattern, pod, "KILL")

    def signal_agent(self, pod: Any, signal: str) -> None:
        """Send a pod's agent a signal from outside; skips the test where that cannot be."""
        pattern = os.environ.get("K8SFUTURES_TEST_CONTAINERD")
        if pattern is None:
            pytest.skip("needs the nodes' containerd (K8SFUTURES_TEST_CONTAINERD)")
        self._signal(pattern, pod, signal)

    @staticmethod
    def _signal(pattern: str, pod: Any, signal: str) -> None:
        (status,) = pod.status.container_statuses
        container = status.container_id.removeprefix("containerd://")
        subprocess.run(
            [
                *("ctr", "-a", pattern.format(node=pod.spec.node_name), "-n", "k8s.io"),
                *("tasks", "kill", "-s", signal, container),
            ],
            check=True,
            capture_output=True,
        )

    def evict(self, pod: Any) -> None:
        """As ``kubectl drain`` does it."""
        name = pod.metadata.name
        body = {"metadata": {"name": name, "namespace": self.namespace}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}/eviction"
        # The client's own call wants policy/v1, which Kubernetes 1.20 does not know.
        for version in ("policy/v1", "policy/v1beta1"):
            with suppress(client.ApiException):
                request = self.core.api_client.param_serialize(
                    "POST",
                    path,
                    header_params={"Content-Type": "application/json"},
                    body={"apiVersion": version, "kind": "Eviction", **body},
                    auth_settings=["BearerToken"],
                )
                answer = self.core.api_client.call_api(*request)
                answer.read()
                if answer.status < 300:
                    return
        raise AssertionError(f"{name} could not be evicted")

    def run_in(self, pod: str, *command: str) -> str:
        """What a command prints that runs in a pod's container."""
        with self._streaming:
            running = stream(
                self._streams.connect_get_namespaced_pod_exec,
                pod,
                self.namespace,
                command=list(command),
                stdout=True,
                stderr=True,
                stdin=False,
                tty=False,
                _preload_content=False,
            )
            raw = running.sock.sock
            try:
                running.run_forever(timeout=20)
                return str(running.read_all())
            finally:
                running.close()
                raw.close()  # which that leaves to the garbage collector

    @contextmanager
    def filled(self, free: Mapping[str, int]) -> Iterator[None]:
        """Have pods of somebody else's request all CPUs of nodes but so many of each."""
        names = []
        for node, cpus in self.nodes().items():
            take = cpus - free.get(node, 0)
            if take > 0:
                names.append(f"filler-{node}")
                self.core.create_namespaced_pod(self.namespace, filler(names[-1], node, take))
        try:
            wait_until(lambda: all(self._is_placed(name) for name in names), 30)
            yield
        finally:
            for name in names:
                self.core.delete_namespaced_pod(name, self.namespace, grace_period_seconds=0)
            wait_until(lambda: not any(self._is_there(name) for name in names), 30)

    def _is_placed(self, name: str) -> bool:
        pod = self.core.read_namespaced_pod(name, self.namespace)
        return any(
            one.type == "PodScheduled" and one.status == "True"
            for one in pod.status.conditions or ()
        )

    def _is_there(self, name: str) -> bool:
        found = self.core.list_namespaced_pod(
            self.namespace, field_selector=f"metadata.name={name}"
        )
        return bool(found.items)


def filler(name: str, node: str, cpus: int) -> dict[str, Any]:
    """A pod that only requests CPUs; its image need not be there."""
    return {
        "metadata": {"name": name},
        "spec": {
            "nodeName": node,
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "filler",
                    "image": "localhost/pause:1",
                    "imagePullPolicy": "Never",
                    "resources": {"requests": {"cpu": str(cpus)}},
                }
            ],
        },
    }


class OnKubernetes:
    """A pool for the contract tests, on all CPUs of the cluster."""

    def __init__(self, cluster: KubernetesCluster, pool: str) -> None:
        self.cluster = cluster
        self.pool = pool
        self.slots = sum(cluster.nodes().values())
        self.host = cluster.host

    def executor(self, *args: Any, **kwargs: Any) -> K8sRabbitExecutor:
        kwargs.setdefault("pool", self.pool)
        return self.cluster.executor(*args, **kwargs)

    def data_settings(self) -> dict[str, Any]:
        image = os.environ.get("K8SFUTURES_TEST_DATA_IMAGE")
        if image is None:
            pytest.skip("needs an image with NumPy and its like (K8SFUTURES_TEST_DATA_IMAGE)")
        return {"image": image}

    def environment(self) -> dict[str, str]:
        settings = self.cluster.settings(pool=self.pool)
        return {f"K8SFUTURES_{name.upper()}": str(value) for name, value in settings.items()}

    def lose_pod(self, host: str | None = None) -> str:
        found: list[Any] = []

        def is_there() -> bool:  # Kubernetes hears later of it than a client does
            running = self.cluster.running(self.pool)
            found[:] = [pod for pod in running if host in {None, pod.metadata.name}]
            return bool(found)

        wait_until(is_there, 20)
        pod = found[0]
        self.cluster.kill_container(pod)
        return str(pod.metadata.name)

    def drain_pod(self) -> str:
        name = self.cluster.running(self.pool)[0].metadata.name
        self.cluster.core.delete_namespaced_pod(name, self.cluster.namespace)
        return str(name)

    def kill_process(self, where: tuple[str, int]) -> None:
        pod, pid = where
        self.cluster.run_in(pod, "python", "-c", f"import os; os.kill({pid}, 9)")

    def close(self) -> None:
        self.cluster.clear()


def _role_documents() -> list[dict[str, Any]]:
    text = (Path(__file__).parents[2] / "worker/role.yaml").read_text("utf-8")
    return [one for one in yaml.safe_load_all(text) if one["kind"] != "ServiceAccount"]


def _snake(kind: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind).lower()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.1)


def _primary_address() -> str:
    """The address of this machine that packets to others come from; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        return str(probe.getsockname()[0])
