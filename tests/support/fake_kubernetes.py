"""A Kubernetes of the tests' own: an API server over HTTP, with controllers as slow as one likes.

What a real cluster cannot be asked for on demand is what this is for: a Job controller that takes
its time, an answer that fails once, a request that hangs until it is let go. The API's client, and
all of ours, are the real ones; pods are agents in memory with real CPU processes, as those of
`k8sfutures.testing`, which meet their client on a switchboard instead of a broker.
"""

from __future__ import annotations

import copy
import datetime as dt
import itertools
import json
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from k8sfutures import K8sRabbitExecutor
from k8sfutures.client_surroundings import surroundings_for
from k8sfutures.codec import derive_key
from k8sfutures.config import Settings
from k8sfutures.pods.kubernetes.source import KubernetesPods
from k8sfutures.testing import _MemoryLink, _MemoryPod, _Switchboard

Json = dict[str, Any]

CPU_IDS, NODE = "k8sfutures/cpu-ids", "k8sfutures/node"
ENDED = ("Succeeded", "Failed")


def now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class FakeKubernetes:
    """See the module's text.

    Args:
        folder: for the kubeconfig.
        nodes: CPUs of each node, by name.

    Attributes:
        jobs: by name; pods likewise.
        requests: (method, path) of each, oldest first.
        prompt: whether the Job controller says at once that a Job has ended; else it never does.
        obstacle: what keeps the containers of new pods from starting: the state ``waiting``.
    """

    def __init__(self, folder: Path, nodes: dict[str, int]) -> None:
        self.nodes = nodes
        self.changed = threading.Condition(threading.RLock())
        self.jobs: dict[str, Json] = {}
        self.pods: dict[str, Json] = {}
        self.secrets: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        self.prompt = True
        self.obstacle: Json | None = None
        self.switchboard = _Switchboard()
        self._agents: dict[str, _MemoryPod] = {}
        self._log: list[tuple[int, Json]] = []  # of pods, for who watches
        self._version = itertools.count(1)
        self._faults: list[tuple[str, str, int]] = []
        self._gates: list[tuple[str, str, Gate]] = []
        self._closed = False
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.kubeconfig = folder / "kubeconfig"
        url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "fake", "cluster": {"server": url}}],
                    "users": [{"name": "fake", "user": {"token": "t"}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                    "current-context": "fake",
                }
            )
        )

    def close(self) -> None:
        with self.changed:
            self._closed = True
            self.changed.notify_all()
            for _, _, gate in self._gates:
                gate.let_go()
            agents = list(self._agents.values())
        for agent in agents:
            agent.stop(drain=False)
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- clients

    def source(self, pool: str = "p", **settings: Any) -> KubernetesPods:
        """Where an executor's pods come from; it is the real one."""
        given: Json = {
            "amqp_url": "amqp://u:p@broker/",
            "pods": "kubernetes",
            "kubeconfig": str(self.kubeconfig),
            "image": "image:1",
            "startup_timeout": 20.0,
        }
        return KubernetesPods(Settings(**{**given, **settings}, pool=pool), pool)

    def executor(self, max_workers: int | None = None, **settings: Any) -> K8sRabbitExecutor:
        return _FakeExecutor(self, max_workers, self.source(**settings))

    # --- faults

    def fail(self, method: str, path: str, status: int, times: int = 1) -> None:
        """The next requests whose path ends like this are refused."""
        with self.changed:
            self._faults += [(method, path, status)] * times

    def hold(self, method: str, path: str) -> Gate:
        """The next request whose path ends like this is not answered until it is let go."""
        gate = Gate()
        with self.changed:
            self._gates.append((method, path, gate))
        return gate

    def kill(self, pod: str) -> None:
        """End a pod as a crash would."""
        self._agents[pod].stop(drain=False)

    def running(self) -> list[str]:
        with self.changed:
            return [name for name, pod in self.pods.items() if pod["status"]["phase"] == "Running"]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Until something has come about."""
        with self.changed:
            assert self.changed.wait_for(condition, 30), "it did not come about"

    # --- the API

    def serve(self, method: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Json]:
        """Answer one request; (status, object)."""
        with self.changed:
            self.requests.append((method, path))
            self.changed.notify_all()
            for fault in self._faults:
                if fault[0] == method and path.endswith(fault[1]):
                    self._faults.remove(fault)
                    return fault[2], {"message": f"the server is {fault[2]}"}
            kind, _, name = path.partition("/namespaces/default/")[2].partition("/")
            if method == "POST":
                return self._create(kind or path, body)
            if method == "DELETE":
                return self._delete(name, (body.get("preconditions") or {}).get("uid"))
            items = copy.deepcopy(self._items(kind or path.rpartition("/")[2], query))
            return 200, {"items": items, "metadata": {"resourceVersion": str(self._last())}}

    def gate(self, method: str, path: str) -> None:
        """Wait where somebody holds this request."""
        with self.changed:
            found = [one for one in self._gates if one[0] == method and path.endswith(one[1])]
            for one in found[:1]:
                self._gates.remove(one)
        for _, _, gate in found[:1]:
            gate.wait()

    def _last(self) -> int:
        return self._log[-1][0] if self._log else 0

    def _items(self, kind: str, query: dict[str, str]) -> list[Json]:
        fields = dict(part.split("=") for part in query.get("fieldSelector", "").split(",") if part)
        if kind == "nodes":
            found = [_node(name, cpus) for name, cpus in self.nodes.items()]
        elif kind == "pods":
            found = list(self.pods.values())
        elif kind == "events":
            found = [event for event in map(self._unmounted, self.pods.values()) if event]
        else:
            found = list(self.jobs.values())
        if "metadata.name" in fields:
            found = [one for one in found if one["metadata"]["name"] == fields["metadata.name"]]
        if any(name.endswith("!") for name in fields):  # status.phase!=...
            found = [one for one in found if one["status"]["phase"] not in ENDED]
        return found

    def _create(self, kind: str, body: Json) -> tuple[int, Json]:
        name = body["metadata"]["name"]
        if kind == "secrets":
            self.secrets.add(name)
            for pod in list(self.pods.values()):
                self._start(pod)
        elif name in self.jobs:
            return 409, {"message": f'jobs.batch "{name}" already exists'}
        else:
            body["metadata"] |= {"uid": uuid.uuid4().hex, "creationTimestamp": now()}
            body["status"] = {}
            self.jobs[name] = body
            self._make_pod(body)
        self.changed.notify_all()
        return 201, copy.deepcopy(body)

    def _delete(self, name: str, uid: str | None) -> tuple[int, Json]:
        job = self.jobs.get(name)
        if job is None:
            return 404, {"message": f'jobs.batch "{name}" not found'}
        if uid is not None and job["metadata"]["uid"] != uid:
            return 409, {"message": "the UID in the precondition does not match"}
        del self.jobs[name]
        for pod in list(self.pods.values()):
            if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]:
                self._delete_pod(pod)
        self.changed.notify_all()
        return 200, {"status": "Success"}

    # --- controllers, scheduler and kubelets

    def _make_pod(self, job: Json) -> None:
        template = copy.deepcopy(job["spec"]["template"])
        metadata = template["metadata"]
        cpus = len(metadata["annotations"][CPU_IDS].split(","))
        metadata["name"] = f"{job['metadata']['name']}-{uuid.uuid4().hex[:5]}"
        metadata["uid"] = uuid.uuid4().hex
        owner = {"name": job["metadata"]["name"], "uid": job["metadata"]["uid"]}
        metadata["ownerReferences"] = [owner]
        spec = template["spec"] | {"nodeName": metadata["annotations"][NODE]}
        waiting = self.obstacle or {"reason": "ContainerCreating"}
        pod = {"metadata": metadata, "spec": spec, "cpus": cpus}
        self.pods[metadata["name"]] = pod
        self._set(pod, "Pending", {"waiting": waiting}, kind="ADDED")

    def _start(self, pod: Json) -> None:
        """Run the pod, if it has yet to start and its Secret is there."""
        waiting = pod["status"]["containerStatuses"][0]["state"].get("waiting") or {}
        if waiting.get("reason") != "ContainerCreating" or self._unmounted(pod):
            return
        name = pod["metadata"]["name"]
        key = derive_key("p")
        agent = _MemoryPod(self.switchboard, key, pod["cpus"], self._agent_ended, name)
        self._agents[name] = agent
        self._set(pod, "Running", {"running": {"startedAt": now()}})

    def _unmounted(self, pod: Json) -> Json:
        """What the kubelet says while the Secret is not there; else nothing."""
        secret = pod["spec"]["volumes"][0]["secret"]["secretName"]
        if secret in self.secrets:
            return {}
        return {
            "reason": "FailedMount",
            "message": f'MountVolume.SetUp failed for "broker" : secret "{secret}" not found',
            "involvedObject": {"kind": "Pod", "uid": pod["metadata"]["uid"]},
        }

    def _agent_ended(self, name: str, _reason: str) -> None:
        self.switchboard.leave(name)
        with self.changed:
            pod = self.pods.get(name)
            if pod is None:
                return
            code = 0 if pod["metadata"].get("deletionTimestamp") else 137
            state = {
                "exitCode": code,
                "reason": "Completed" if code == 0 else "Error",
                "startedAt": "2020-01-01T00:00:00Z",
                "finishedAt": "2020-01-01T01:00:00Z",
            }
            self._set(pod, ENDED[code != 0], {"terminated": state})
            if pod["metadata"].get("deletionTimestamp"):
                self._tell("DELETED", self.pods.pop(name))
            for job in self.jobs.values():
                if self.prompt and job["metadata"]["uid"] == _owner(pod):
                    kind = "Failed" if code else "Complete"
                    ended = {"type": kind, "status": "True", "lastTransitionTime": now()}
                    job["status"] = {"conditions": [ended]}

    def _delete_pod(self, pod: Json) -> None:
        pod["metadata"]["deletionTimestamp"] = now()
        agent = self._agents.get(pod["metadata"]["name"])
        if agent is not None and agent.running:
            self._tell("MODIFIED", pod)
            agent.loop.add_callback_threadsafe(lambda: agent.agent.drain("received SIGTERM"))
        else:
            del self.pods[pod["metadata"]["name"]]
            self._tell("DELETED", pod)

    def _set(self, pod: Json, phase: str, state: Json, kind: str = "MODIFIED") -> None:
        container = {"name": "worker", "image": "image:1", "state": state}
        pod["status"] = {"phase": phase, "containerStatuses": [container]}
        self._tell(kind, pod)

    def _tell(self, kind: str, pod: Json) -> None:
        version = next(self._version)
        pod["metadata"]["resourceVersion"] = str(version)
        self._log.append((version, {"type": kind, "object": copy.deepcopy(pod)}))
        self.changed.notify_all()

    def since(self, version: int) -> list[tuple[int, Json]] | None:
        """What has happened to pods after a version, once something has; None at the end."""
        with self.changed:
            self.changed.wait_for(lambda: self._closed or self._last() > version)
            return None if self._closed else [one for one in self._log if one[0] > version]


class Gate:
    """Holds one request."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._open = threading.Event()

    def wait(self) -> None:
        self._reached.set()
        self._open.wait(30)

    def wait_until_reached(self) -> None:
        assert self._reached.wait(30), "no such request came"

    def let_go(self) -> None:
        self._open.set()


class _FakeExecutor(K8sRabbitExecutor):
    def __init__(
        self, cluster: FakeKubernetes, max_workers: int | None, source: KubernetesPods
    ) -> None:
        self._begin(
            source._pool,
            source,
            lambda _found, _pool, name, emit: _MemoryLink(cluster.switchboard, name, emit),
            shape={},
            max_workers=max_workers,
            max_tasks_per_child=None,
            initializer=(None, ()),
            retries=3,
            startup_timeout=source._settings.startup_timeout,
            flush_window=0.0,
            output="marked",
            ship=(),
            surroundings=surroundings_for(source._settings, "kubernetes"),
        )


def _owner(pod: Json) -> str:
    return str(pod["metadata"]["ownerReferences"][0]["uid"])


def _node(name: str, cpus: int) -> Json:
    amounts = {"cpu": str(cpus), "memory": "64Gi", "pods": "110"}
    ready = {"type": "Ready", "status": "True"}
    return {
        "metadata": {"name": name},
        "status": {"allocatable": amounts, "capacity": amounts, "conditions": [ready]},
    }


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a watch ends when its client does


def _handler(cluster: FakeKubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self) -> None:
            parts = urlsplit(self.path)
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}")
            if "watch" in query:
                self.stream(int(query["resourceVersion"] or 0))
                return
            early = self.command != "POST"  # what makes something is held after it is made
            if early:
                cluster.gate(self.command, parts.path)
            status, answer = cluster.serve(self.command, parts.path, query, body)
            if not early:
                cluster.gate(self.command, parts.path)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def stream(self, version: int) -> None:
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.close_connection = True
            while (events := cluster.since(version)) is not None:
                for version, event in events:  # noqa: B007
                    data = json.dumps(event).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                    self.wfile.flush()
            self.wfile.write(b"0\r\n\r\n")

        do_GET = do_POST = do_DELETE = answer

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:
                self.close_connection = True  # the client has gone

    return Handler
