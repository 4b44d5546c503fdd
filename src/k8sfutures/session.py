"""The client's side of the protocol: its link to the broker, and the pods that have answered.

The manager thread owns it. It turns link and pod events into notices: events for the scheduler,
what calls said, and the reason why the executor is broken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from . import scheduler_events as core
from .admission import mismatch_of
from .blobs import Blob, Blobs, Bulky, blobs_of
from .bodies import PARTS, with_parts
from .chunks import Assembly
from .codec import Codec
from .control import Plan
from .demand import Demand
from .errors import ExecutorBroken, InitializerFailed, MessageError, PodMismatch, PodsUnavailable
from .freight import Freight
from .lanes import Taken
from .link import ClientLink, LinkEvent
from .losses import Losses
from .messages import (
    CRASHED,
    GROUP_LIMIT,
    Attach,
    Chunk,
    Credit,
    Detach,
    Goodbye,
    Group,
    Hello,
    InitializerRaised,
    Message,
    Outcome,
    Printed,
    Recall,
    Renew,
    Results,
    Returned,
    Versions,
    Yield,
)
from .outcomes import Whole, initializer_failure
from .output import Heard
from .pods import CpusHeld, Credentials, PodEnded, StartupNews
from .records import packed_filters, reporting
from .scheduler import Scheduler

logger = logging.getLogger(__name__)

LEASE: Final = 60.0
"""Seconds that a pod keeps our work without hearing from us. Longer than any callback of the
user's should keep the manager thread; a client that is gone is noticed sooner, as its queue is."""

RENEW_EVERY: Final = 1.0
"""Seconds between signs of life to each pod. They come back where a pod is gone, so this is
also how soon a loss is noticed that nobody reports."""

RETURN: Final = 15.0
"""Seconds that pods have to find the broker again after it was away."""

GRACE: Final = 3.0
"""Seconds that a pod whose queue is gone has to come back, if only its connection was lost."""

NEVER: Final = float("inf")


@dataclass(slots=True)
class _Pod:
    """What is known of a pod that has answered."""

    name: str
    results: int = 0  # number of the last results
    missing_since: float | None = None  # its queue is gone
    grace: float = GRACE
    freight: Freight = field(default_factory=Freight)
    assembly: Assembly = field(default_factory=Assembly)
    taken: Taken = field(default_factory=Taken)

    def begin_anew(self) -> None:
        """What was under way, to it or from it, may be lost."""
        self.freight.begin_anew()
        self.assembly, self.taken = Assembly(), Taken()


Notice = core.Event | Heard | ExecutorBroken
"""For the scheduler; to be shown; or the reason why nothing can go on."""


class Session:
    """See the module's text.

    Args:
        plan: what the executor is made of.
        scheduler: asked for what pods have; never told anything from here.
        demand: told which pods there are.
        losses: told why pods are gone.
        blobs: what is bulky in calls and functions.
    """

    def __init__(
        self, plan: Plan, scheduler: Scheduler, demand: Demand, losses: Losses, blobs: Blobs
    ) -> None:
        self._plan = plan
        self._scheduler = scheduler
        self._demand = demand
        self._losses = losses
        self._blobs = blobs
        self._function_blobs: dict[int, tuple[Blob, ...]] = {}
        self._versions = Versions.ours()
        self._codec: Codec | None = None
        self._link: ClientLink | None = None
        self._pods: dict[str, _Pod] = {}
        self._down: ExecutorBroken | None = None
        self._filters = packed_filters()  # those of the thread that made the executor
        self._dropped = ""  # why the last message was, that was
        self.news = ""
        """How far the pods have come that are starting."""
        self.renew_at = NEVER
        """When `on_time` is due."""
        self.groups = 0
        """How many groups have been sent."""

    @property
    def has_pods(self) -> bool:
        """Whether any pod is there."""
        return bool(self._pods)

    # --- the link

    def connect(self, found: Credentials, emit: Callable[[LinkEvent], None]) -> None:
        """Open the link."""
        self._codec = Codec(found.key, self._plan.name)
        self._link = self._plan.connect(found, self._plan.pool, self._plan.name, emit)
        self._link.start()
        self.renew_at = time.monotonic() + RENEW_EVERY

    def up(self, now: float) -> None:
        """The broker is there, or there again: ask every pod what it holds of ours."""
        for pod in self._pods.values():
            # Until it says hello again. Pods lost the broker when we did, and some back off.
            pod.missing_since, pod.grace = now, RETURN
            pod.begin_anew()
        self._down = None
        self._demand.called(now)
        self._broadcast(self._attach(), urgent=True)

    def nobody(self) -> None:
        """No pod is at the broker."""
        self._demand.nobody()

    def down(self, error: ExecutorBroken) -> bool:
        """The broker is gone, or not there yet; True when that is new."""
        new, self._down = self._down is None, error
        if new:
            logger.warning("%s (trying again)", error)
        return new

    def unroutable(self, name: str, now: float) -> None:
        """A pod's queue does not exist: it has ended, or has lost its connection."""
        pod = self._pods.get(name)
        if pod is not None and pod.missing_since is None:
            pod.missing_since, pod.grace = now, GRACE

    def on_time(self, now: float) -> Iterator[Notice]:
        """Tell every pod that we are alive; give up those that have been missing for too long."""
        self.renew_at = now + RENEW_EVERY
        gone = self._blobs.take_gone()
        for pod in list(self._pods.values()):
            self.send(pod.name, self._renew(pod, pod.freight.release(gone)))
            if pod.missing_since is not None and now - pod.missing_since > pod.grace:
                yield from self._gone(
                    pod.name,
                    "its queue at the broker is gone, and so it does not answer any more",
                    explained=False,
                )

    def nothing_there(self) -> ExecutorBroken:
        """Why no pod is there, as far as is known."""
        if self._down is not None:
            return self._down
        hint = f"; messages were dropped: {self._dropped}" if self._dropped else ""
        hint += f"; {self.news}" if self.news else ""
        return PodsUnavailable(
            f"no pod of pool {self._plan.pool!r} has answered within startup_timeout="
            f"{self._plan.startup_timeout:g} s{hint}"
        )

    def send(self, pod: str, message: Message) -> None:
        """Send to one pod."""
        if self._link is not None and self._codec is not None:
            self._link.send(pod, self._codec.encode(message))

    def send_group(self, group: Group) -> None:
        """Send a group: to its only pod, or once to all; blobs go to those that need them."""
        self.groups += 1
        total = 0
        for number, data in group.functions.items():
            self._function_blobs[number] = blobs_of(data)
            group.functions[number], total = self._within_limit(data, total)
            if blobs_of(group.functions[number]):
                self._function_blobs[number] = blobs = blobs_of(group.functions[number])
                group.needs[-number] = [blob.id for blob in blobs]
        for number in group.released:
            self._function_blobs.pop(number, None)
        for name, (_, calls) in group.shares.items():
            used: list[Blob] = []
            for at, call in enumerate(calls):
                body, total = self._within_limit(call[3] or b"", total)
                calls[at] = (*call[:3], body)
                blobs = blobs_of(body)
                used += self._function_blobs.get(call[1], ())
                if blobs:
                    used += blobs
                    group.needs[call[0]] = [blob.id for blob in blobs]
            if used and name in self._pods:
                self._pods[name].freight.add(used)
        if len(group.shares) == 1 and not group.released:
            (pod,) = group.shares
            self.send(pod, group)
        else:
            self._broadcast(group)
        for name in group.shares:
            self._pump(name)

    def _within_limit(self, body: bytes, total: int) -> tuple[bytes, int]:
        """A body as it can be in a group that has so many bytes already; and their new number."""
        if total + len(body) <= GROUP_LIMIT:
            return body, total + len(body)
        blob = self._blobs.keep(bytes(body))
        apart = Bulky(with_parts([blob.id], []))
        apart.blobs = (blob, *blobs_of(body))
        return apart, total

    def _pump(self, name: str) -> None:
        """Send the chunks that a pod takes."""
        if name in self._pods:
            for message in self._pods[name].freight.take():
                self.send(name, message)

    def starting(self, event: StartupNews | CpusHeld) -> None:
        """Pods are on their way: how far, or which pools' unused pods are to end for them."""
        if isinstance(event, StartupNews):
            self.news = event.text
        elif self._link is not None and self._codec is not None:
            for pool in event.pools:
                logger.info("asking the unused pods of pool %s to make room", pool)
                self._link.broadcast_to(pool, self._codec.encode(Yield(self._plan.pool)))

    def leave(self, signal: int) -> None:
        """Tell the pods to drop our work, and to end what runs with a signal if it is not 0."""
        self._broadcast(Detach(signal))

    def close(self, timeout: float) -> None:
        """Send what is under way, and close the link."""
        if self._link is not None:
            self._link.close()
            self._link.join(timeout)

    def _broadcast(self, message: Message, *, urgent: bool = False) -> None:
        if self._link is not None and self._codec is not None:
            self._link.broadcast(self._codec.encode(message), urgent=urgent)

    def _renew(self, pod: _Pod, released: list[int]) -> Renew:
        return Renew(self._scheduler.group, pod.results, released, self._reporting())

    def _reporting(self) -> bytes | None:
        """What is to be reported; the levels of loggers may have changed since the last time."""
        return None if self._plan.output == "off" else reporting(self._filters)

    def _attach(self) -> Attach:
        plan = self._plan
        return Attach(
            self._versions,
            self._scheduler.group,
            LEASE,
            plan.initializer,
            plan.max_tasks_per_child,
            self._reporting(),
        )

    # --- what pods say

    def received(self, body: bytes) -> Iterator[Notice]:
        """Take in a message; one that is not ours is dropped."""
        if self._codec is None:
            return
        try:
            sender, message = self._codec.decode(body)
        except MessageError as error:
            logger.warning("dropped a message: %s", error)
            self._dropped = str(error)
            if error.protocol is not None and not self._pods:
                yield PodMismatch(
                    f"the pods of pool {self._plan.pool!r} speak {error}: they run another version "
                    "of k8sfutures; build their image again (k8sfutures image build), or use "
                    "another pool (setting pool)"
                )
            return
        match message:
            case Results():
                yield from self._results(sender, message)
            case Chunk():
                self._chunk(sender, message)
            case Credit():
                if sender in self._pods:
                    self._pods[sender].freight.credit(message.size)
                    self._pump(sender)
            case Hello():
                yield from self._hello(sender, message)
            case Returned():
                yield core.GivenBack(sender, message.calls, message.draining)
                if message.draining:
                    self._demand.left(sender, explained=True)
                    self._confirm(sender)
            case Printed():
                yield Heard(sender, message.lines)
            case InitializerRaised():
                yield self._initializer_raised(sender, message)
            case Goodbye():
                yield from self._gone(sender, f"it ended: {message.reason}")
            case _:
                logger.warning("dropped a %s from %s", type(message).__name__, sender)

    def _results(self, name: str, message: Results) -> Iterator[Notice]:
        pod = self._pods.get(name)
        if pod is None or message.number <= pod.results:
            return  # given up, or sent again
        if message.number == pod.results + 1:
            pod.results = message.number
        # Else the one before was lost with a connection, and comes again after the next `Hello`.
        outcomes = [
            _complete(outcome, pod.assembly)
            if outcome[4] and outcome[4][0] == PARTS and outcome[2] != CRASHED
            else outcome
            for outcome in message.outcomes
        ]
        yield core.Arrived(name, outcomes)
        if self._scheduler.is_draining(name):
            self._confirm(name)

    def _chunk(self, name: str, message: Chunk) -> None:
        pod = self._pods.get(name)
        if pod is not None:
            complete = pod.assembly.add(message)
            told = pod.taken.add(len(message.tail), last=complete)
            if told:
                self.send(name, Credit(told))

    def _confirm(self, name: str) -> None:
        """Tell a pod that wants to end, at once, that we have what it sent."""
        pod = self._pods.get(name)
        if pod is not None:
            self.send(name, self._renew(pod, []))

    def _hello(self, name: str, message: Hello) -> Iterator[Notice]:
        mismatch = mismatch_of(self._plan, self._versions, name, message)
        if mismatch:
            if self._pods:
                logger.warning("%s; it is not used", mismatch)
            else:
                yield PodMismatch(mismatch)
            return
        if not message.reply:
            # It has just started, or has found the broker again: it will say what it holds.
            if name in self._pods:
                self._pods[name].begin_anew()
            self.send(name, self._attach())
            return
        pod = self._pods.get(name)
        holding = frozenset(message.holding)
        if pod is None:
            logger.info("pod %s on %s: %d CPUs", name, message.node, len(message.cpu_ids))
            self._losses.joined(name, message.node)
            self._pods[name] = _Pod(name, message.results)
            self._demand.joined(name, len(message.cpu_ids), message.pool_cpus, time.monotonic())
            yield core.PodJoined(name, len(message.cpu_ids))
        else:
            pod.missing_since = None
            pod.results = message.results
            pod.freight.has(message.blobs)
            yield core.PodReported(name, message.group, holding)
        stale = sorted(holding.difference(self._scheduler.in_flight(name)))
        if stale:
            self.send(name, Recall(stale))

    def _initializer_raised(self, name: str, message: InitializerRaised) -> InitializerFailed:
        return initializer_failure(message.error, name, message.cpu_id)

    # --- pods that go

    def ended(self, ended: PodEnded) -> Iterator[Notice]:
        """Whoever started a pod says that it has ended."""
        self._losses.gone(ended.pod, ended.reason, explained=True)
        self._demand.explained(ended.pod)
        if ended.pod in self._pods:
            yield from self._gone(ended.pod, ended.reason)
        elif not self._pods:
            if ended.failed and self._down is None and not self._demand.has_answered(ended.pod):
                # It never answered: another would end the same way.
                yield PodsUnavailable(
                    f"no pod of pool {self._plan.pool!r} could be started: {ended.reason}"
                )
            else:
                self._demand.ask()
        else:
            logger.info("%s", ended.reason)

    def _gone(self, name: str, reason: str, *, explained: bool = True) -> Iterator[Notice]:
        if self._codec is not None:
            self._codec.forget(name)
        if self._pods.pop(name, None) is None:
            return
        self._losses.gone(name, reason, explained=explained)
        self._demand.left(name, explained=explained)
        lost = self._scheduler.in_flight(name)
        if lost:
            logger.warning("pod %s is lost with %d calls: %s", name, len(lost), reason)
        else:
            logger.info("pod %s is gone: %s", name, reason)
        yield core.PodGone(name)


def _complete(outcome: Outcome, assembly: Assembly) -> Outcome:
    """An outcome whose parts came ahead, with them."""
    call, item, status, micros, body = outcome
    memory = assembly.take(call, item)
    whole = Whole(body or b"")
    # Never None, as they come in order; if it were, this would be an error of this call alone.
    whole.memory = memory if memory is not None else bytearray()
    return call, item, status, micros, whole
