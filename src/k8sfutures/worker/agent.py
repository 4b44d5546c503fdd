"""The agent: the main process of a pod. One thread, one event loop, no user code.

It owns, on that loop: its endpoint at the broker, the channels to its CPU processes, and the
zygote. What to do is decided by the `Dispatcher`; the agent carries it out.
"""

from __future__ import annotations

import dataclasses
import logging
import secrets
import time
from collections.abc import Callable
from typing import Any, Final

from ..client_names import has_ended
from ..codec import Codec
from ..drops import Drops
from ..errors import ExecutorBroken, MessageError
from ..link import (
    Endpoint,
    LinkBlocked,
    LinkDown,
    LinkEvent,
    LinkFailed,
    LinkFree,
    LinkUp,
    NobodyThere,
    Received,
    Unroutable,
)
from ..messages import (
    Attach,
    Cancel,
    Chunk,
    Credit,
    Detach,
    Goodbye,
    Group,
    Message,
    Occupied,
    Recall,
    Renew,
    Returned,
    Versions,
    Yield,
)
from ..sealing import opened
from .configuration import AgentConfig
from .crew import Crew
from .dispatch import SIGKILL, Dispatcher
from .instructions import Drop, End, Feed, Kill, Retire, Send, Steal
from .memory import MemoryVerdict
from .pipes import PodLog
from .post import Post
from .processes import ZygoteHandle
from .store import Store
from .watchdog import Watchdog

logger = logging.getLogger(__name__)

FLUSH_PAUSE: Final = 0.001
"""Seconds between two result messages under load. The first outcome after a pause goes out at
once, and so does one after which nothing runs; what comes within a millisecond of another shares
the next message, which costs the broker and the client as much as a single outcome would."""

SILENCE: Final = 3.0
"""Seconds without a word from a client after which it is sent one; it comes back if it is gone."""

SUSPENSE: Final = 1.5
"""The same while others wait for its CPUs; it says a word every second."""

GONE: Final = 10.0
"""Seconds that a client whose queue is gone has to come back before its work is dropped."""

TICK: Final = 1.0
"""Seconds between looks at leases and at how long the pod has been unused."""

WORK_KEPT: Final = 600.0
"""Seconds that a pod stays without a broker, at least, while it has work of a client or outcomes
that one has not got: a broker that comes back gets them."""

UNHEARD: Final = 90.0
"""Seconds without a word from any client after which a pod that is to end waits for none to take
its outcomes: a broker that is away for a minute still gets them. Afterwards their calls run again
elsewhere, should their client be there still."""

CLOSING: Final = 5.0
"""Seconds to leave a broker in peace, which it may not answer while it takes no messages."""

YIELD_AFTER: Final = 1.5
"""Seconds without a client after which a pod ends when another pool wants its CPUs."""


class Agent:
    """See the module's text.

    Args:
        config: who this pod is.
        zygote: what forks the CPU processes; started before anything else was imported.
        loop: the event loop that everything here runs on (pika's, or one like it).
        connect: makes the endpoint, given the function that takes its events.
    """

    def __init__(
        self,
        config: AgentConfig,
        zygote: ZygoteHandle,
        loop: Any,
        connect: Callable[[Callable[[LinkEvent], None]], Endpoint],
    ) -> None:
        self._config = config
        self._loop = loop
        self._versions = Versions.ours()
        self._codec = Codec(config.key, config.name, time.time_ns())
        self._endpoint = connect(self._link_event)
        memory = MemoryVerdict()
        self._dispatcher = Dispatcher(config.cpu_ids, config.name, memory.limit)
        self._post = Post(self._codec, self._endpoint)
        self._store, self._drops = Store(), Drops()
        self._crew = Crew(
            *(config, zygote, loop, self._dispatcher, self._store, memory),
            carry_out=self._carry_out,
            fail=self._fail,
        )
        self._watchdog = Watchdog(loop, self._dispatcher, self._carry_out)
        self._log = PodLog()
        self._last_heard: dict[str, float] = {}
        self._heard_at = time.monotonic()  # any client
        self._missing: dict[str, float] = {}  # clients whose queue is gone, and since when
        self._carrying_out = False
        self._flush_due = False
        self._last_flush = 0.0
        self._unused_since = time.monotonic()
        self._down_since: float | None = None
        self._deaf_since: float | None = None  # no client could be heard
        self._connected = False  # ever
        self._ending: str | None = None
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Serve until unused for long enough, told to stop, or unable to go on."""
        self._crew.start()
        self._endpoint.open()
        self._loop.call_later(TICK, self._tick)
        try:
            self._loop.start()
        finally:
            self._crew.close()
        if self.failure is not None:
            raise self.failure

    def drain(self, reason: str) -> None:
        """Finish what runs, give back the rest, then end; on the loop's thread."""
        if self._ending is None:
            logger.info("draining: %s", reason)
            self._ending = reason
            self._dispatcher.drain()
            self._carry_out()
            self._end_if_drained()

    # --- the link

    def _link_event(self, event: LinkEvent) -> None:
        try:
            self._heard(event)
        except Exception as error:
            # Raised into pika it would count as a broken connection, and be tried again for ever.
            logger.exception("the agent failed")
            self._fail(error)

    def _heard(self, event: LinkEvent) -> None:
        match event:
            case Received():
                self._received(event.body)
            case LinkUp():
                if not self._connected:
                    self._connected = True
                    self._unused_since = time.monotonic()  # nobody could have come before
                self._down_since = None
                self._hear_again()
                logger.info("connected to the broker")
                self._endpoint.broadcast(self._codec.encode(self._config.hello(self._versions)))
            case LinkDown():
                if self._down_since is None:
                    self._down_since = time.monotonic()
                    logger.warning("%s", event.error)
                self._deaf_since = self._deaf_since or self._down_since
                self._give_up_if_late(event.error)
            case LinkBlocked():
                # It takes nothing from clients either.
                self._deaf_since = self._deaf_since or time.monotonic()
            case LinkFree():
                self._hear_again()
            case LinkFailed():
                self._fail(event.error)
            case NobodyThere():
                pass  # only clients are told
            case Unroutable():
                # A client that is gone, or has lost its connection and comes back.
                # It may find that out as late as the broker does, so its silence is no measure.
                now = time.monotonic()
                since = self._missing.setdefault(event.peer, now)
                if now - since > GONE or self._has_ended(event.peer):
                    self._dispatcher.drop(event.peer, SIGKILL)
                    # Should it come back, it is told by another address that all is gone.
                    self._forget(event.peer)
                    self._codec.retain(self._dispatcher.clients)
                    self._carry_out()

    def _hear_again(self) -> None:
        """Leases did not run while nobody could renew them."""
        self._last_heard = dict.fromkeys(self._last_heard, time.monotonic())
        self._missing.clear()
        if self._deaf_since is not None:
            self._dispatcher.postpone(time.monotonic() - self._deaf_since)
            self._deaf_since = None

    def _give_up_if_late(self, error: ExecutorBroken) -> None:
        """A pod that never finds the broker is of no use; its end says so, and why."""
        within = self._config.connect_within
        if self._connected or within is None or self._down_since is None:
            return
        if time.monotonic() - self._down_since > within:
            self._fail(error)

    def _received(self, body: bytes) -> None:
        try:
            sender, message = self._codec.decode(body)
        except MessageError as error:
            if error.stranger is not None:
                # Its lease had ended: it attaches again when it hears of us.
                self._post.send(error.stranger, self._config.hello(self._versions))
            elif said := self._drops.note(str(error), time.monotonic()):
                logger.warning("%s", said)
            return
        if type(message) is Yield:
            self._yield(message)
            return
        self._heard_at = self._last_heard[sender] = time.monotonic()
        self._missing.pop(sender, None)
        self._understood(sender, message)
        self._carry_out()

    def _yield(self, message: Yield) -> None:
        """Another pool wants our CPUs; a pod that has just come may have a client any moment."""
        if self._dispatcher.clients:
            return
        wait = self._unused_since + YIELD_AFTER - time.monotonic()
        if wait > 0:
            self._loop.call_later(wait, lambda: self._yield(message))
        else:
            self.drain(f"unused, and pool {message.pool!r} wants its CPUs")

    def _understood(self, sender: str, message: Message) -> None:
        dispatcher = self._dispatcher
        match message:
            case Group():
                share = message.shares.get(self._codec.given(sender), (0, []))
                dispatcher.group(sender, message, share, time.monotonic())
            case Renew():
                dispatcher.renew(sender, message, time.monotonic())
            case Chunk():
                complete = self._store.add(sender, message)
                self._post.taken(sender, len(message.tail), last=complete)
                if complete:
                    dispatcher.arrived(sender, message.subject)
            case Credit():
                self._post.credit(sender, message.size)
            case Attach():
                if tuple(message.versions) != self._versions:
                    logger.warning(
                        "refused client %s: it has %s, this pod has %s",
                        sender,
                        Versions(*message.versions),
                        self._versions,
                    )
                    self._post.send(sender, self._config.hello(self._versions))
                elif self._ending is None or sender in dispatcher.clients:
                    # Part of what was under way may be lost: both sides begin anew.
                    self._post.forget(sender)
                    self._store.begin_anew(sender)
                    surroundings = opened(message.surroundings, self._config.seal)
                    message = dataclasses.replace(message, surroundings=surroundings)
                    dispatcher.attach(sender, message, time.monotonic())
                    address = self._codec.admit(sender, secrets.token_urlsafe(12))
                    dispatcher.hello(sender, self._config.hello(self._versions, address))
            case Recall():
                dispatcher.recall(sender, message)
            case Cancel():
                dispatcher.cancel(sender, message)
            case Detach():
                dispatcher.drop(sender, message.signal)
                self._forget(sender)
                self._codec.retain(dispatcher.clients)
            case _:
                logger.warning("dropped a %s from %s", type(message).__name__, sender)

    def _forget(self, client: str) -> None:
        self._store.forget(client)
        self._post.forget(client)

    # --- carrying out

    def _carry_out(self) -> None:
        """Do what the dispatcher wants, until it wants nothing more."""
        if self._carrying_out:
            return
        self._carrying_out = True
        dispatcher = self._dispatcher
        try:
            while instructions := dispatcher.take():
                for instruction in instructions:
                    match instruction:
                        case Feed():
                            self._crew.feed(instruction)
                        case Send():
                            self._post.send(instruction.client, instruction.message)
                        case Steal():
                            tokens = self._crew.steal(instruction.cpu_id, instruction.count)
                            dispatcher.stolen(instruction.cpu_id, tokens)
                        case Kill():
                            self._crew.kill(instruction)
                        case End():
                            self._crew.end(instruction.cpu_id)
                        case Retire():
                            self._crew.retire(instruction.cpu_id)
                        case Drop():
                            self._store.release(instruction.client, instruction.blobs)
        finally:
            self._carrying_out = False
        if dispatcher.endings.timed:
            self._watchdog.look()
        self._log.write(dispatcher.said.take_log())
        if not self._flush_due and dispatcher.has_outcomes():
            self._flush_due = True
            wait = self._last_flush + FLUSH_PAUSE - time.monotonic()
            if wait <= 0 or not dispatcher.is_at_work():
                self._flush()
            else:
                self._loop.call_later(wait, self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        self._last_flush = time.monotonic()
        self._dispatcher.flush()
        self._carry_out()

    # --- the end

    def _tick(self) -> None:
        now = time.monotonic()
        self._log.renew()
        if self._deaf_since is None:
            ending = self._crew.on_the_way_out(self._dispatcher.said.last_words())
            self._dispatcher.tick(now, ending)
            self._carry_out()
            self._look_after_clients(now)
        if self._dispatcher.clients:
            self._unused_since = now
        elif self._ending is None and now - self._unused_since > self._config.warm_for:
            self.drain(f"unused for {self._config.warm_for:g} s")
        stay = self._config.warm_for
        if self._dispatcher.busy:
            stay = max(stay, WORK_KEPT)
        if self._down_since is not None and now - self._down_since > stay:
            self.drain(f"no broker for {stay:g} s")
            self._stop()
            return
        if not self._end_if_drained():
            self._loop.call_later(TICK, self._tick)

    def _look_after_clients(self, now: float) -> None:
        clients = set(self._dispatcher.clients)
        waiting = self._dispatcher.occupancy.look(now)
        silence = SUSPENSE if self._dispatcher.occupancy.is_scarce else SILENCE
        for name in clients:
            if now - self._last_heard.get(name, now) > silence or self._has_ended(name):
                self._post.now(name, Returned([], draining=False))
        for name, holders in waiting.items():
            rows = [(one, cpus, self._left(one, now)) for one, cpus in holders.items()]
            self._post.now(name, Occupied(rows))
        for name in self._missing.keys() - clients:
            del self._missing[name]
        for name in self._last_heard.keys() - clients:
            del self._last_heard[name]
            self._forget(name)
        self._codec.retain(clients)

    def _has_ended(self, client: str) -> bool:
        """Whether a client is known to have ended, and will not come back."""
        return self._config.is_local and has_ended(client)

    def _left(self, client: str, now: float) -> float:
        """Seconds after which a client is given up unless it is heard; -1 where it is there."""
        until = self._dispatcher.occupancy.deadline(client)
        silence = now - self._last_heard.get(client, now)
        if client in self._missing:
            return max(0.0, min(until, self._missing[client] + GONE) - now)
        return max(0.0, until - now) if silence > SILENCE else -1.0

    def _end_if_drained(self) -> bool:
        if self._ending is None:
            return False
        if self._dispatcher.busy:
            if self._dispatcher.is_at_work() or time.monotonic() - self._heard_at <= UNHEARD:
                return False
            # And so without a word that all is done: to a client that is back, it is lost.
            logger.warning(
                "ending with outcomes that no client has taken: none was heard for %g s", UNHEARD
            )
        else:
            self._endpoint.broadcast(self._codec.encode(Goodbye(self._ending)))
        self._stop()
        return True

    def _stop(self) -> None:
        self._endpoint.close(self._loop.stop)
        self._loop.call_later(CLOSING, self._loop.stop)

    def _fail(self, error: BaseException) -> None:
        logger.error("the pod cannot go on: %s", error)
        self.failure = error
        self._loop.stop()
