"""The client's side of the protocol: its link to the broker, and the pods that have answered.

The manager thread owns it. It turns link and pod events into notices: events for the scheduler,
what calls said, and the reason why the executor is broken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Final

from . import scheduler_events as core
from .admission import another_protocol, mismatch_of
from .arrivals import Arrivals
from .attached import GRACE, AttachedPod
from .blobs import Blobs
from .cargo import Cargo, group_until, last_number
from .codec import Codec
from .control import Plan
from .demand import Demand
from .drops import Drops
from .errors import ExecutorBroken, MessageError, PodMismatch, PodsUnavailable
from .link import ClientLink, LinkBlocked, LinkEvent, LinkFree, NobodyThere, Unroutable
from .losses import Losses
from .messages import (
    Attach,
    Chunk,
    Credit,
    Detach,
    Goodbye,
    Group,
    Held,
    Hello,
    Left,
    Message,
    NotInitialized,
    Occupied,
    Printed,
    Recall,
    Renew,
    Results,
    Returned,
    Versions,
    Yield,
)
from .nesting import Nesting
from .outages import NEVER, RETURN, Outages
from .outcomes import initializer_failure
from .output import Heard
from .pods import CpusHeld, Credentials, PodEnded, StartupNews
from .queueing import Queueing
from .records import packed_filters, reporting
from .scheduler import Scheduler

logger = logging.getLogger(__name__)

LEASE: Final = 60.0
"""Seconds that a pod keeps our work without hearing from us. Longer than any callback of the
user's should keep the manager thread; a client that is gone is noticed sooner, as its queue is."""

RENEW_EVERY: Final = 1.0
"""Seconds between signs of life to each pod. They come back where a pod is gone, so this is
also how soon a loss is noticed that nobody reports."""

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
        self._demand, self._losses = demand, losses
        self._blobs = blobs
        self._cargo = Cargo(blobs, plan.initializer)
        self._versions = Versions.ours()
        self._codec: Codec | None = None
        self._link: ClientLink | None = None
        self._pods: dict[str, AttachedPod] = {}
        self._queueing = Queueing()
        self.leavers: set[str] = set()  # pods that end calls of ours, which we have left
        self._outages = Outages(plan.startup_timeout)
        self._filters = packed_filters()  # those of the thread that made the executor
        self._drops, self._nesting = Drops(), Nesting(plan.within, plan.pool)
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
        self._codec = Codec(found.key, self._plan.name, time.time_ns())
        self._link = self._plan.connect(found, self._plan.pool, self._plan.name, emit)
        self._link.start()
        now = time.monotonic()
        self._outages.connecting(found.address, now)
        self.renew_at = now + RENEW_EVERY

    def up(self, now: float) -> None:
        """The broker is there, or there again: ask every pod what it holds of ours."""
        for pod in self._pods.values():
            # Until it says hello again. Pods lost the broker when we did, and some back off.
            pod.missing_since, pod.grace = now, RETURN
            pod.begin_anew()
        self._outages.up(now)
        self._demand.called(now)
        self._broadcast(self._attach(), urgent=True)

    def down(self, error: ExecutorBroken) -> None:
        """The broker is gone, or not there yet."""
        self._outages.down(error, time.monotonic())

    def noticed(self, event: LinkEvent, now: float) -> None:
        """Something is as it should not be at the broker, or is so no more."""
        match event:
            case NobodyThere():
                self._demand.nobody()
            case Unroutable():
                # The pod's queue does not exist: it has ended, or has lost its connection.
                pod = self._pods.get(event.peer)
                if pod is not None and pod.missing_since is None:
                    pod.missing_since, pod.grace = now, GRACE
            case LinkBlocked():
                self._outages.blocked = event.reason  # neither do pods hear us, nor we them
            case LinkFree():
                self._outages.blocked = None
                for pod in self._pods.values():
                    if pod.missing_since is not None:
                        pod.missing_since = now  # it has the whole time to come back

    def on_time(self, now: float) -> Iterator[Notice]:
        """Tell every pod that we are alive; give up those that have been missing for too long."""
        self.renew_at = now + RENEW_EVERY
        gone, hears = self._blobs.take_gone(), self._outages.hears
        for name in self._demand.listen() if hears else ():
            self.send(name, self._attach())  # in case that what it said was lost
        for pod in list(self._pods.values()):
            self.send(pod.name, self._renew(pod, pod.freight.release(gone)))
            if hears and pod.missing_since is not None and now - pod.missing_since > pod.grace:
                yield from self._gone(
                    pod.name,
                    "its queue at the broker is gone, and so it does not answer any more",
                    explained=False,
                )

    def nothing_there(self) -> ExecutorBroken:
        """Why no pod is there, as far as is known."""
        if self._outages.error is not None:
            return self._outages.error
        hint = f"; messages were dropped: {self._drops.last}" if self._drops.last else ""
        hint += self._outages.blocked_in_words
        hint += f"; {self.news}" if self.news else ""
        hint = hint or "; where they only take longer to start, raise it"
        return PodsUnavailable(
            f"no pod of pool {self._plan.pool!r} has answered within startup_timeout="
            f"{self._plan.startup_timeout:g} s{hint}"
        )

    def send(self, pod: str, message: Message) -> None:
        """Send to one pod."""
        if self._link is not None and self._codec is not None:
            self._link.send(pod, self._codec.encode(message, pod))

    def send_group(self, group: Group) -> None:
        """Send a group: to one pod what is its own, to all the rest; blobs to who needs them."""
        self.groups += 1
        parts, needed = self._cargo.load(group)
        for name, blobs in needed.items():
            if name in self._pods:
                self._pods[name].freight.add(blobs)
        for part in parts:
            if len(part.shares) == 1 and not part.released:
                (pod,) = part.shares
                self.send(pod, part)
            else:
                self._broadcast(part)
        for name in group.shares:
            self._pump(name)

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
        there = () if self._outages.error is not None else self._pods
        self.leavers = {pod for pod in there if self._scheduler.in_flight(pod)}
        self._broadcast(Detach(signal))

    def last_words(self, body: bytes) -> Heard | None:
        """What calls say as they end, after `leave`; every other message is dropped."""
        assert self._codec is not None
        try:
            sender, message = self._codec.decode(body)
        except MessageError:
            return None
        if isinstance(message, Left):
            self.leavers.discard(sender)
        elif isinstance(message, Printed) and (pod := self._pods.get(sender)):
            # What is missing before it was not for us any more, and does not come again.
            new = pod.arrivals.printed(message.number) is not False
            return Heard(sender, message.lines) if new else None
        return None

    def close(self, timeout: float) -> None:
        """Send what is under way, and close the link; nothing bulky is kept for calls to come."""
        self._blobs.forget_recent()
        if self._link is not None:
            self._link.close()
            self._link.join(timeout)

    def _broadcast(self, message: Message, *, urgent: bool = False) -> None:
        if self._link is not None and self._codec is not None:
            self._link.broadcast(self._codec.encode(message), urgent=urgent)

    def _renew(self, pod: AttachedPod, released: list[int]) -> Renew:
        return Renew(
            last_number(self._scheduler.group), pod.arrivals.number, released, self._reporting()
        )

    def _reporting(self) -> bytes | None:
        """What is to be reported; the levels of loggers may have changed since the last time."""
        return None if self._plan.output == "off" else reporting(self._filters)

    def _ask(self, pod: AttachedPod) -> None:
        """Ask one pod what it holds of ours."""
        pod.begin_anew()
        self.send(pod.name, self._attach())

    def _attach(self) -> Attach:
        plan = self._plan
        return Attach(
            self._versions,
            last_number(self._scheduler.group),
            LEASE,
            self._cargo.initializer,
            plan.max_tasks_per_child,
            self._reporting(),
            *(plan.surroundings, self._nesting.within),
        )

    # --- what pods say

    def received(self, body: bytes) -> Iterator[Notice]:
        """Take in a message; one that is not ours is dropped."""
        if self._codec is None:
            return
        try:
            sender, message = self._codec.decode(body)
        except MessageError as error:
            yield from self._unreadable(error)
            return
        match message:
            case Results():
                yield from self._results(sender, message, len(body))
            case Chunk() | Credit() | Held():
                self._of_pod(sender, message)
            case Hello():
                yield from self._hello(sender, message)
            case Returned():
                yield core.GivenBack(sender, message.calls, message.draining)
                if message.draining:
                    self._demand.left(sender, explained=True)
                    self._confirm(sender)
            case Printed():
                yield from self._printed(sender, message)
            case Occupied():
                self._occupied(sender, message)
            case NotInitialized():
                yield initializer_failure(message, sender, self._cargo.initializer_name)
            case Goodbye():
                # What was on its way there as it ended has never started: no retry is counted.
                yield core.GivenBack(sender, self._scheduler.in_flight(sender), draining=True)
                yield from self._gone(sender, f"it ended: {message.reason}")
            case _:
                logger.warning("dropped a %s from %s", type(message).__name__, sender)

    def _unreadable(self, error: MessageError) -> Iterator[Notice]:
        if said := self._drops.note(str(error), time.monotonic()):
            logger.warning("%s", said)
        if error.protocol is not None and not self._pods:
            yield another_protocol(self._plan.pool, error)

    def _results(self, name: str, message: Results, size: int) -> Iterator[Notice]:
        pod = self._pods.get(name)
        if pod is None:
            return  # given up
        told = pod.arrivals.taken(message, size)
        if told:
            self.send(name, Credit(told))
        outcomes = pod.arrivals.results(message, size)
        if outcomes is None and not pod.asked:
            self._ask(pod)
        if outcomes:
            yield core.Arrived(name, outcomes)
        if pod.arrivals.must_confirm() or self._scheduler.is_draining(name):
            self._confirm(name)

    def _printed(self, name: str, message: Printed) -> Iterator[Notice]:
        pod = self._pods.get(name)
        if pod is None:
            return  # given up
        new = pod.arrivals.printed(message.number)
        if new:
            yield Heard(name, message.lines)
            if self._scheduler.is_draining(name) and not self._scheduler.in_flight(name):
                self._confirm(name)
        elif new is None and not pod.asked:
            self._ask(pod)

    def _occupied(self, name: str, message: Occupied) -> None:
        busy = [pod for pod in self._pods if self._scheduler.in_flight(pod)]
        if name in busy:
            told = self._queueing.heard(name, message, busy, time.monotonic())
            if told:
                logger.warning("%s", told)

    def _of_pod(self, name: str, message: Chunk | Credit | Held) -> None:
        pod = self._pods.get(name)
        if pod is None:
            return
        match message:
            case Chunk():
                if told := pod.arrivals.chunk(message):
                    self.send(name, Credit(told))
            case Credit():
                pod.freight.credit(message.size)
                self._pump(name)
            case Held():
                waiting = [one for one in self._pods if self._scheduler.in_flight(one)]
                self._nesting.held(name, waiting, time.monotonic())

    def _confirm(self, name: str) -> None:
        """Tell a pod at once, and not in a second, that we have what it sent."""
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
                self._ask(self._pods[name])
            else:
                self.send(name, self._attach())
            return
        pod = self._pods.get(name)
        another = self._codec is not None and self._codec.learn(name, message.address)
        holding = frozenset(message.holding)
        if pod is None:
            logger.info("pod %s on %s: %d CPUs", name, message.node, len(message.cpu_ids))
            self._losses.joined(name, message.node)
            pod = self._pods[name] = AttachedPod(name, Arrivals(message.results))
            pod.freight.has(message.blobs, self._blobs.is_alive)  # if we had given it up
            self._demand.joined(name, len(message.cpu_ids), message.pool_cpus, time.monotonic())
            yield core.PodJoined(name, len(message.cpu_ids))
        else:
            pod.missing_since = None
            group = group_until(message.group)
            if another:
                # It had let go of us: all that we have sent meanwhile was for who we were before.
                pod.begin_anew()
                group = self._scheduler.group
                gone = set(self._scheduler.in_flight(name)) - holding
                self._outages.forgotten(name, len(gone))
            pod.asked = False
            pod.arrivals.resume(message.results, afresh=another)
            pod.freight.has(message.blobs, self._blobs.is_alive)
            yield core.PodReported(name, group, holding)
        stale = sorted(holding.difference(self._scheduler.in_flight(name)))
        if stale:
            self.send(name, Recall(stale))

    # --- pods that go

    def ended(self, ended: PodEnded) -> Iterator[Notice]:
        """Whoever started a pod says that it has ended."""
        self._losses.gone(ended.pod, ended.reason, explained=True)
        self._demand.explained(ended.pod)
        if ended.pod in self._pods:
            yield from self._gone(ended.pod, ended.reason)
        elif not self._pods:
            answered = self._demand.has_answered(ended.pod)
            if ended.failed and not answered and self._outages.error is None:
                # It never answered: another would end the same way.
                yield PodsUnavailable(
                    f"no pod of pool {self._plan.pool!r} could be started: {ended.reason}"
                )
            else:
                self._demand.ask()
        else:
            logger.info("%s", ended.reason)
            if not ended.failed:  # else the next one would fail alike
                self._demand.freed()

    def _gone(self, name: str, reason: str, *, explained: bool = True) -> Iterator[Notice]:
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
