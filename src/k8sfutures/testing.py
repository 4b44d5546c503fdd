"""Pods and a broker in memory, for tests: ours, and those of programs that use k8sfutures.

::

    from k8sfutures.testing import MemoryCluster

    with MemoryCluster(pods=[2]) as cluster, cluster.executor() as ex:
        assert ex.submit(pow, 2, 8).result() == 256

Nothing is installed, nothing listens, nothing stays. It is no imitation of the executor: the
manager, the protocol, the agents and their CPU processes are the real ones (so calls run in
other processes, and may crash there); only RabbitMQ is replaced, by a dictionary. That also
makes faults of the network deterministic: see `MemoryCluster.cut` and `MemoryCluster.heal`.
"""

from __future__ import annotations

import os
import secrets
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from .amqp import new_loop
from .arguments import check_arguments
from .client_surroundings import surroundings_for
from .config import Output, Settings
from .errors import BrokerUnreachable
from .executor import K8sRabbitExecutor
from .link import ClientLink, LinkDown, LinkEvent, LinkUp, NobodyThere, Received, Unroutable
from .pods import Credentials, Need, PodEnded, PodEvent
from .worker.agent import Agent
from .worker.configuration import AgentConfig
from .worker.parentage import execute_zygote
from .worker.processes import ZygoteHandle

__all__ = ["MemoryCluster"]


class _Switchboard:
    """What RabbitMQ does for a pool: queues by name, and who is a pod or a client."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.queues: dict[str, Callable[[LinkEvent], None]] = {}
        self.pods: set[str] = set()
        self.cut: set[str] = set()
        self.published = 0

    def join(self, name: str, emit: Callable[[LinkEvent], None], *, is_pod: bool) -> None:
        with self.lock:
            if is_pod:
                self.pods.add(name)
            self.queues[name] = emit
            if name not in self.cut:
                emit(LinkUp())

    def leave(self, name: str) -> None:
        with self.lock:
            self.queues.pop(name, None)
            self.pods.discard(name)

    def send(self, sender: str, peer: str, body: bytes) -> None:
        with self.lock:
            if sender in self.cut or sender not in self.queues:
                return
            self.published += 1
            if peer in self.queues and peer not in self.cut:
                self.queues[peer](Received(body))
            else:
                self.queues[sender](Unroutable(peer))

    def broadcast(self, sender: str, body: bytes, *, from_pod: bool, urgent: bool = False) -> None:
        with self.lock:
            if sender in self.cut or sender not in self.queues:
                return
            self.published += 1
            peers = [
                emit
                for name, emit in self.queues.items()
                if (name in self.pods) != from_pod and name not in self.cut
            ]
            for emit in peers:
                emit(Received(body))
            if urgent and not peers:
                self.queues[sender](NobodyThere())


class _MemoryLink:
    """A `ClientLink`: the manager's inbox takes events from any thread, so it needs no thread."""

    def __init__(
        self, switchboard: _Switchboard, name: str, emit: Callable[[LinkEvent], None]
    ) -> None:
        self._switchboard = switchboard
        self._name = name
        self._emit = emit

    def start(self) -> None:
        self._switchboard.join(self._name, self._emit, is_pod=False)

    def send(self, pod: str, body: bytes) -> None:
        self._switchboard.send(self._name, pod, body)

    def broadcast(self, body: bytes, *, urgent: bool = False) -> None:
        self._switchboard.broadcast(self._name, body, from_pod=False, urgent=urgent)

    def broadcast_to(self, pool: str, body: bytes) -> None:
        """Nobody: there is one pool."""

    def close(self) -> None:
        self._switchboard.leave(self._name)

    def join(self, timeout: float) -> None:
        """Nothing to wait for: `close` has done it."""


class _MemoryEndpoint:
    """An `Endpoint`: events are brought to the agent's loop."""

    def __init__(
        self, switchboard: _Switchboard, name: str, loop: Any, emit: Callable[[LinkEvent], None]
    ) -> None:
        self._switchboard = switchboard
        self._name = name
        self._loop = loop
        self._emit = emit

    def open(self) -> None:
        def on_loop(event: LinkEvent) -> None:
            self._loop.add_callback_threadsafe(lambda: self._emit(event))

        self._switchboard.join(self._name, on_loop, is_pod=True)

    def send(self, peer: str, body: bytes) -> None:
        self._switchboard.send(self._name, peer, body)

    def broadcast(self, body: bytes) -> None:
        self._switchboard.broadcast(self._name, body, from_pod=True)

    def close(self, done: Callable[[], None]) -> None:
        self._switchboard.leave(self._name)
        done()


class _MemoryPod:
    """An agent in a thread of this process, with real CPU processes."""

    def __init__(
        self,
        switchboard: _Switchboard,
        key: bytes,
        size: int,
        ended: Callable[[str, str], None],
        name: str = "",
    ) -> None:
        self.name = name or f"pod-{uuid.uuid4().hex[:12]}"
        cpus = sorted(os.sched_getaffinity(0))
        config = AgentConfig(
            name=self.name,
            node="memory",
            key=key,
            cpu_ids=list(range(size)) if size > len(cpus) else cpus[:size],
            warm_for=3600.0,
        )
        self.loop = new_loop()
        self.agent = Agent(
            config,
            ZygoteHandle(*execute_zygote()),
            self.loop,
            lambda emit: _MemoryEndpoint(switchboard, self.name, self.loop, emit),
        )
        self._ended = ended
        self.running = True
        self.thread = threading.Thread(target=self._run, name=f"memory {self.name}", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        reason = "stopped"
        try:
            self.agent.run()
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise
        finally:
            self.loop.close()
            self.running = False
            self._ended(self.name, reason)

    def stop(self, *, drain: bool) -> None:
        """End the pod: at once with all that it holds, or after what runs."""
        if self.running:
            action = (lambda: self.agent.drain("asked to")) if drain else self.loop.stop
            self.loop.add_callback_threadsafe(action)
        self.thread.join(30)


class _MemoryPods:
    """A `PodSource`: pods of the cluster, started when the first executor wants them."""

    eager = True
    after_broker = False
    explains = False

    def __init__(self, cluster: MemoryCluster) -> None:
        self._cluster = cluster
        self._wake = threading.Condition()
        self._woken = False
        self._ended: list[PodEnded] = []
        cluster.sources.append(self)

    def credentials(self) -> Credentials:
        return Credentials("amqp://memory", self._cluster.key)

    def ensure(self, credentials: Credentials, need: Need) -> None:
        self._cluster.start_pods()

    def watch(self, emit: Callable[[PodEvent], None]) -> None:
        with self._wake:
            while not self._woken and not self._ended:
                self._wake.wait()
            self._woken = False
            ended, self._ended = self._ended, []
        for event in ended:
            emit(event)

    def ended(self, name: str, reason: str) -> None:
        with self._wake:
            self._ended.append(PodEnded(name, reason, failed=False))
            self._wake.notify_all()

    def wake(self) -> None:
        with self._wake:
            self._woken = True
            self._wake.notify_all()

    def retire(self) -> None:
        pass  # its pods are there at once, or not at all

    def close(self) -> None:
        self._cluster.sources.remove(self)

    def delete_pool(self) -> int:
        pods = self._cluster.pods
        for name in pods:
            self._cluster.stop_pod(name, drain=True)
        return len(pods)


class _MemoryExecutor(K8sRabbitExecutor):
    """A `K8sRabbitExecutor` on a `MemoryCluster`."""

    def __init__(
        self,
        cluster: MemoryCluster,
        max_workers: int | None = None,
        mp_context: None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        retries: int = 3,
        startup_timeout: float = 30.0,
        flush_window: float = 0.0,
        output: Output = "marked",
        ship: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        max_workers, max_tasks_per_child = check_arguments(
            max_workers, mp_context, initializer, max_tasks_per_child
        )

        def connect(
            _found: Credentials, _pool: str, name: str, emit: Callable[[LinkEvent], None]
        ) -> ClientLink:
            return _MemoryLink(cluster.switchboard, name, emit)

        self._begin(
            "memory",
            _MemoryPods(cluster),
            connect,
            max_workers=max_workers,
            shape={},
            max_tasks_per_child=max_tasks_per_child,
            initializer=(initializer, initargs),
            ship=ship,
            retries=retries,
            startup_timeout=startup_timeout,
            flush_window=flush_window,
            output=output,
            surroundings=surroundings_for(Settings(environment=environment), "local"),
        )


class MemoryCluster:
    """A pool in this process; a context manager that ends it.

    Args:
        pods: CPU processes of each pod. More than this machine has CPUs is fine for calls
            that sleep.
    """

    def __init__(self, pods: Sequence[int] = (2,)) -> None:
        self.switchboard = _Switchboard()
        self.key = secrets.token_bytes(32)
        self.sources: list[_MemoryPods] = []
        self._sizes = list(pods)
        self._lock = threading.Lock()
        self._pods: list[_MemoryPod] = []
        self._closed = False

    def executor(self, *args: Any, **kwargs: Any) -> K8sRabbitExecutor:
        """A new executor on this cluster.

        Args:
            *args: as for `K8sRabbitExecutor`.
            **kwargs: as for `K8sRabbitExecutor`; of the settings, ``retries``,
                ``startup_timeout``, ``flush_window``, ``output``, ``environment`` and ``ship``
                (names and paths).
        """
        return _MemoryExecutor(self, *args, **kwargs)

    @property
    def pods(self) -> list[str]:
        """Names of the pods that run."""
        with self._lock:
            return [pod.name for pod in self._pods if pod.running]

    def start_pods(self) -> None:
        """Start the pods that are missing."""
        with self._lock:
            if self._closed:
                return
            self._pods = [pod for pod in self._pods if pod.running]
            for size in self._sizes[len(self._pods) :]:
                self._pods.append(_MemoryPod(self.switchboard, self.key, size, self._pod_ended))

    def stop_pod(self, name: str, *, drain: bool = False) -> None:
        """End a pod.

        Args:
            name: which.
            drain: let it finish what runs and return the rest; else all of it is lost.
        """
        with self._lock:
            (pod,) = (pod for pod in self._pods if pod.name == name)
        pod.stop(drain=drain)

    def cut(self, name: str) -> None:
        """Cut a pod or a client off from the broker; what is sent meanwhile is lost."""
        with self.switchboard.lock:
            self.switchboard.cut.add(name)
            self.switchboard.queues[name](LinkDown(BrokerUnreachable("cut off by the test")))

    def heal(self, name: str) -> None:
        """Let a pod or a client that was cut off come back."""
        with self.switchboard.lock:
            self.switchboard.cut.discard(name)
            self.switchboard.queues[name](LinkUp())

    @property
    def clients(self) -> list[str]:
        """Names of the clients that are connected."""
        with self.switchboard.lock:
            return [name for name in self.switchboard.queues if name not in self.switchboard.pods]

    def close(self) -> None:
        """End every pod."""
        with self._lock:
            self._closed = True
            pods = list(self._pods)
        for pod in pods:
            pod.stop(drain=False)

    def _pod_ended(self, name: str, reason: str) -> None:
        self.switchboard.leave(name)
        for source in list(self.sources):
            source.ended(name, reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
