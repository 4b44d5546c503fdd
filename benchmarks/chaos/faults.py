"""The faults of the soak: each strikes, and says what undoes it, if anything does, and when."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .world import World

Undo = tuple[float, Callable[[], None]]
"""Seconds after which it is called."""


class Struck(NamedTuple):
    """What a fault has done."""

    what: str
    undo: Undo | None = None


class Fault:
    """One kind of fault; its docstring says which."""

    weight = 1.0

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        """Provoke it; None where there is nothing to hit now."""
        raise NotImplementedError

    @property
    def name(self) -> str:
        """For people."""
        return (self.__doc__ or "").rstrip(".")


class KilledPod(Fault):
    """SIGKILL of an agent."""

    weight = 2

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        pod = world.a_pod(chosen)
        if pod is None:
            return None
        world.kill_pod(pod)
        return Struck(pod)


class DrainedPod(Fault):
    """SIGTERM of an agent."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        pod = world.a_pod(chosen)
        if pod is None:
            return None
        world.drain_pod(pod)
        return Struck(pod)


class StoppedPod(Fault):
    """agent stopped for a while (SIGSTOP, or its container's freezer)."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        pod = world.a_pod(chosen)
        if pod is None:
            return None
        seconds = chosen.choice([1, 3, 6, 35])
        resume = world.stop_pod(pod)
        return None if resume is None else Struck(f"{pod} for {seconds} s", (seconds, resume))


class KilledProcess(Fault):
    """SIGKILL of a CPU process."""

    weight = 3

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        process = world.a_process(chosen)
        if process is None:
            return None
        world.signal_process(process, signal.SIGKILL)
        return Struck(str(process))


class StoppedProcess(Fault):
    """SIGSTOP of a CPU process for a while."""

    weight = 2

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        process = world.a_process(chosen)
        if process is None:
            return None
        seconds = chosen.uniform(0.5, 6)
        world.signal_process(process, signal.SIGSTOP)
        return Struck(
            f"{process} for {seconds:.1f} s",
            (seconds, lambda: world.signal_process(process, signal.SIGCONT)),
        )


class KilledZygote(Fault):
    """SIGKILL of the process that forks a pod's CPU processes."""

    weight = 0.7

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        pod = world.a_pod(chosen)
        if pod is None:
            return None
        world.kill_zygote(pod)
        return Struck(pod)


class ResetClient(Fault):
    """connection of a client reset."""

    weight = 3
    prefix = "client-"

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        names = [name for name in world.proxy.names() if name.startswith("client-") == self.clients]
        if not names:
            return None
        name = chosen.choice(names)
        world.proxy.reset(name)
        return Struck(name)

    clients = True


class ResetPod(ResetClient):
    """connection of a pod reset."""

    clients = False


class ClosedConnections(Fault):
    """all connections closed by the administrator."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        world.node.control("close_all_connections", "chaos")
        return Struck("")


class SilentConnection(Fault):
    """connection half open: bytes are swallowed."""

    weight = 0.7

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        names = world.proxy.names()
        if not names:
            return None
        name = chosen.choice(names)
        world.struck_pods.add(name)
        world.proxy.silence(name)
        return Struck(name)


class StalledConnection(Fault):
    """connection stalled for a while, then everything comes at once."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        names = world.proxy.names()
        if not names:
            return None
        name = chosen.choice(names)
        seconds = chosen.choice([1, 4, 12, 40])
        world.struck_pods.add(name)
        resume = world.proxy.stall(name)
        return Struck(f"{name} for {seconds} s", (seconds, resume))


class HeldNetwork(Fault):
    """network stalled for a while: nothing flows, and new connections do not come up."""

    weight = 0.7

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        seconds = chosen.choice([2, 8, 25])
        return Struck(f"{seconds} s", (seconds, world.proxy.hold()))


class HeldApi(Fault):
    """Kubernetes API out of the clients' reach for a while."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        seconds = chosen.choice([2, 10, 40])
        resume = world.hold_api()
        return None if resume is None else Struck(f"for {seconds} s", (seconds, resume))


class RestartedBroker(Fault):
    """broker killed, and started again."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        seconds = chosen.choice([0, 0, 2, 8])
        world.node.kill()
        return Struck(f"away for {seconds} s and its start", (seconds, world.start_broker))


class StoppedBroker(Fault):
    """broker stopped, and away for long."""

    weight = 0.4

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        seconds = chosen.choice([s for s in (15, 30, 60) if s < max(20, world.seconds_left)])
        world.node.stop()
        return Struck(f"for {seconds} s", (seconds, world.start_broker))


class DeletedQueue(Fault):
    """queue of a client or pod deleted by hand."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        queues = [
            line.split("\t")[0]
            for line in world.node.control("list_queues", "name").splitlines()
            if line.startswith("k8sfutures.")
        ]
        if not queues:
            return None
        queue = chosen.choice(sorted(queues))
        world.node.delete_queue(queue)
        return Struck(queue.rpartition(".")[2])


class MemoryAlarm(Fault):
    """memory alarm for a moment."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        seconds = chosen.uniform(0.5, 5)
        world.node.set_memory_limit(0.000001)
        return Struck(f"for {seconds:.1f} s", (seconds, world.end_alarm))


class RevokedUser(Fault):
    """credentials of all clients but the first revoked, and given back."""

    weight = 0.5

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        if world.is_revoked:
            return None
        what = chosen.choice(["password", "permissions", "host"])
        seconds = chosen.choice([0, 3, 12])
        world.revoke(what)
        return Struck(f"{what}, for {seconds} s", (seconds, world.give_back))


class JumpedClock(Fault):
    """wall clock set anew."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        seconds = chosen.choice([0, 30, 3600, 86_400, 400 * 86_400]) * chosen.choice([1, -1])
        world.set_clock(seconds)
        return Struck(f"to {seconds:+} s")


class KilledClient(Fault):
    """SIGKILL of a client process."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        client = world.kill_a_client()
        return None if client is None else Struck(client)


class SuspendedClient(Fault):
    """client process suspended for a while."""

    def strike(self, world: World, chosen: random.Random) -> Struck | None:
        choices = [1, 3, 13, 28] + ([70] if world.seconds_left > 150 else [])
        seconds = chosen.choice([c for c in choices if c < world.seconds_left + 30])
        client = world.suspend_a_client(chosen)
        if client is None:
            return None
        return Struck(
            f"{client.name} for {seconds} s",
            (seconds, lambda: world.resume(client)),
        )


FAULTS: list[Fault] = [
    kind()
    for kind in (
        *(KilledPod, DrainedPod, StoppedPod, KilledProcess, StoppedProcess, ResetClient, ResetPod),
        *(KilledZygote, HeldNetwork, HeldApi),
        *(ClosedConnections, SilentConnection, StalledConnection, RestartedBroker, StoppedBroker),
        *(DeletedQueue, MemoryAlarm, RevokedUser, JumpedClock, KilledClient, SuspendedClient),
    )
]
