"""The manager thread: owns the scheduler, the client's side of the protocol, and the Futures.

It alone calls ``Future.set_*``. Everything reaches it through one queue; nothing here waits for
anything but that queue and the next deadline::

    caller threads ── submitted calls, maps, shutdown ──┐
    connection thread ── link events ───────────────────┼─► inbox ─► manager ─► link
    provisioning thread ── broker found, pod ended ─────┘              └─► Futures, maps

If this thread fails, every Future fails with the reason; so they do when the link or the
provisioning thread gives up.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

from . import scheduler_events as core
from .attempts import Attempts
from .control import (
    CancelRequest,
    MapClosed,
    MapExtended,
    MapStarted,
    Plan,
    Refused,
    Shutdown,
    Terminate,
    Wake,
)
from .demand import Demand
from .errors import ExecutorBroken, PodLost, ThreadDied, WorkersTerminated
from .intake import Intake, News
from .last_words import last_words
from .link import LinkDown, LinkEvent, LinkFailed, LinkUp, Received
from .losses import Losses
from .map_table import MapTable
from .messages import RESULT, Call, Cancel, Group
from .outages import NEVER, Startup
from .outcomes import broken_by, once_more, outcome_of, thread_died
from .output import Heard, Printer
from .pods import CpusHeld, Credentials, PodEnded, PodsFailed, StartupNews
from .postponed import UNKNOWN, Postponed, Written
from .provisioning import Provisioner
from .scheduler import Scheduler
from .session import Notice, Session

logger = logging.getLogger(__name__)


class Manager(Intake):
    """See the module's text.

    Args:
        plan: what the executor is made of.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan.blobs)
        self._plan = plan
        self._scheduler = Scheduler(max_workers=plan.max_workers, retries=plan.retries)
        self._waiting: dict[int, Future[Any]] = {}
        self._running: dict[int, Future[Any]] = {}
        source = plan.source
        self._demand = Demand(plan.max_workers, source.eager, after_broker=source.after_broker)
        self._losses = Losses(plan.retries, explains=plan.source.explains)
        self._attempts = Attempts(plan.retries, self._losses.attempt, self.call_ids.__next__)
        self._maps = MapTable(self._attempts)
        self._session = Session(plan, self._scheduler, self._demand, self._losses, self.blobs)
        self._printer = Printer(plan.name, plan.output)
        self._postponed = Postponed(self._printer, self._inbox.put)
        self._provisioner = Provisioner(plan.source, self._inbox.put, plan.name)
        self._shutdown = self._finished = False
        self._startup = Startup(plan.startup_timeout)
        self.thread = threading.Thread(
            target=self._run, name=f"k8sfutures manager {plan.name}", daemon=True
        )

    def start(self) -> None:
        """Start the threads; where the interpreter cannot, the executor is broken."""
        try:
            self.thread.start()
            self._provisioner.start()
        except RuntimeError as error:
            self.broken = ThreadDied(f"cannot start the threads of the executor: {error}")
            self.broken.__cause__ = error
            with self._lock:
                self.closed = True
            self._inbox.put(LinkFailed(self.broken))

    # --- for people, on any thread

    def statistics(self) -> core.Statistics:
        """A look at the scheduler, from another thread; consistent enough for people."""
        return self._scheduler.statistics()

    # --- the thread

    def _run(self) -> None:
        try:
            while not self._finished:
                self._wait_and_handle()
        except BaseException as error:
            logger.exception("the manager thread failed")
            self._break(thread_died("manager", error))
        finally:
            try:
                self._leave()
            finally:
                self._fail_the_rest()
                self.ended.set()

    def _wait_and_handle(self) -> None:
        inbox = self._inbox
        deadline = min(
            self._session.renew_at,
            self._flush_at,
            self._startup_deadline(),
            self._demand.deadline(),
            self._losses.deadline(),
            self._postponed.deadline,
        )
        try:
            if deadline == NEVER:
                item = inbox.get()
            else:
                item = inbox.get(timeout=max(0.0, deadline - time.monotonic()))
            while True:
                if isinstance(item, Received):
                    self._act(self._session.received(item.body))
                else:
                    self._handle(item)
                if time.monotonic() >= deadline:
                    break  # a busy inbox must not keep the pods waiting for a sign of life
                item = inbox.get_nowait()
        except queue.Empty:
            pass
        self._take_submitted()
        self._on_time(time.monotonic())
        if self._shutdown and not self._finished and self._is_done():
            self._finished = True

    def _is_done(self) -> bool:
        # The scheduler may have items of a map that nobody waits for.
        return not (self._submitted or self._is_busy()) and self._scheduler.idle

    def _handle(self, item: News) -> None:
        match item:
            case Wake() | Received():
                pass
            case Written():
                self._resolve(self._postponed.written(item.number))
            case MapStarted() | MapExtended() | MapClosed():
                event = self._maps.changed(item)
                if event is not None:
                    self._feed(event)
            case Refused():
                _fail(item.future, item.error)
            case CancelRequest():
                self.cancel(item)
            case core.Cancelled():
                self._feed(item)
            case Shutdown():
                self._shutdown = True
                if item.cancel:
                    self._cancel_pending()
            case Terminate():
                self._terminate(item)
            case Credentials():
                self._session.connect(item, self._inbox.put)
            case PodEnded():
                self._act(self._session.ended(item))
            case StartupNews() | CpusHeld():
                self._session.starting(item)
            case PodsFailed():
                self._break(item.error)
            case _:
                self._link_changed(item)

    def _link_changed(self, event: LinkEvent) -> None:
        match event:
            case LinkUp():
                self._session.up(time.monotonic())
            case LinkDown():
                self._session.down(event.error)
                self._provisioner.want_broker()  # each time: one that was started may end again
            case LinkFailed():
                self._break(broken_by("connection", event.error))
            case _:
                self._session.noticed(event, time.monotonic())

    def _act(self, notices: Iterator[Notice]) -> None:
        """Do what follows from what the session has noticed."""
        for notice in notices:
            match notice:
                case Heard():
                    self._printer.hear(notice, self._scheduler.place_of, self._name_of)
                case ExecutorBroken():
                    self._break(notice)
                case core.Arrived() if self._printer.unsaid:
                    ready, late = self._postponed.divide(notice)
                    self._feed(ready)
                    self._feed(late, postponed=True)
                case _:
                    self._feed(notice)

    def _startup_deadline(self) -> float:
        is_alone = not (self._session.has_pods or self._finished) and self._is_busy()
        return self._startup.deadline(time.monotonic(), is_alone=is_alone)

    def _is_busy(self) -> bool:
        return bool(self._waiting or self._running or self._maps.unsettled)

    def _on_time(self, now: float) -> None:
        for lost, error in self._losses.take(now):
            self._fail_lost(lost, error)
        if now >= self._postponed.deadline:
            self._resolve(self._postponed.expired(now))
        if now >= self._session.renew_at:
            self._act(self._session.on_time(now))
            if self._scheduler.has_backlog:
                self._demand.waiting(now)
        if now >= self._startup_deadline():
            self._break(self._session.nothing_there())
        if not self._finished:
            need = self._demand.take(now, busy=self._is_busy())
            if need is not None:
                self._provisioner.want_pods(need)

    # --- calls out

    def _take_submitted(self) -> None:
        if not self._is_flush(self._plan.flush_window, hurry=self._shutdown):
            return
        # Taken before the calls: whoever was to use these functions has submitted by now.
        dropped = self.functions.take_dropped() + self._attempts.take_dropped()
        submitted = self._submitted
        batch = [submitted.popleft() for _ in range(len(submitted))]
        waiting, chosen = self._waiting, self.chosen
        limits: dict[int, core.Limits] = {}
        for future, call, function in batch:
            waiting[call[0]] = future
            if chosen and call[0] in chosen:
                limits[call[0]] = self._attempts.begin(chosen.pop(call[0]), call, function)
            # It may have been released between its look-up and its call.
            self.functions.bodies.setdefault(call[1], function)
        if batch:
            self._feed(core.Submitted([call for _, call, _ in batch], limits))
        if dropped:
            self._feed(core.FunctionsDropped(dropped))

    def _feed(self, *news: core.Event | None, postponed: bool = False) -> None:
        """Tell the scheduler, and do what it says; what it settles of that, perhaps later."""
        events = [event for event in news if event is not None]
        while events:
            now = time.monotonic()
            for instruction in self._scheduler.handle(events.pop(), now):
                match instruction:
                    case core.Settle() if postponed:
                        self._postponed.add(instruction, now, self._name_of)
                    case core.Settle():
                        events += self._settle(instruction)
                    case core.Dispatch():
                        events += self._dispatch(instruction)
                    case core.Lost():
                        self._losses.lost(instruction, now, self._name_of(instruction.function))
                    case core.Recalled():
                        self._session.send(instruction.pod, Cancel(instruction.calls))

    def _dispatch(self, order: core.Dispatch) -> list[core.Event]:
        """Send a group; returns what the scheduler is to know of it."""
        events: list[core.Event] = []
        withdrawn: list[int] = []
        shares: dict[str, tuple[int, list[Call]]] = {}
        waiting, running = self._waiting, self._running
        for pod, (limit, calls) in order.shares.items():
            kept: list[Call] = []
            for call in calls:
                call_id, function, items, _ = call
                if items:
                    body, measured = self._maps.body_of(order.ranges[call_id])
                    events += measured
                    kept.append((call_id, function, items, body))
                    continue
                future = waiting.pop(call_id, None)
                if future is not None:  # else it is dispatched again
                    if not future.set_running_or_notify_cancel():
                        withdrawn.append(call_id)
                        self._attempts.forget(call_id)
                        continue
                    running[call_id] = future
                kept.append(call)
            shares[pod] = (limit, kept)
        for function in order.released:
            if not self._attempts.hold_back(function):
                self.functions.bodies.pop(function, None)
        functions = {number: self.functions.bodies[number].data for number in order.functions}
        self._session.send_group(
            Group(order.number, functions, order.released, shares, {}, order.limits)
        )
        if withdrawn:
            events.append(core.Withdrawn(withdrawn))
        return events

    # --- outcomes in

    def _resolve(self, settles: list[core.Settle]) -> None:
        """Settle what was postponed."""
        for settle in settles:
            self._feed(*self._settle(settle))

    def _settle(self, settle: core.Settle) -> list[core.Event]:
        """Resolve Futures; returns what is to run again."""
        running, attempts, may_end = self._running, self._attempts, bool(self._attempts)
        retried: list[core.Retried] = []
        for call_id, function, status, body in settle.calls:
            if call_id not in running:
                continue
            # It stays there while code of the user's runs: whatever becomes of that, it has an end.
            result, failure = outcome_of(status, body, self._name_of(function), call_id)
            again = None
            if failure is not None and status != RESULT:
                again = attempts.failed(call_id, failure, settle)
            elif may_end:
                attempts.forget(call_id)
            if (future := running.pop(call_id, None)) is None:
                continue  # that code has cancelled it
            if again is not None and again.call is not None:
                running[again.call[0]] = future
                retried.append(again)
            elif failure is not None:
                future.set_exception(failure)
            else:
                future.set_result(result)
            del future, result, failure
        again_of_maps, events = self._maps.settle(settle)
        retried += again_of_maps
        return [*events, core.Again(retried)] if retried else events

    def _name_of(self, function: int) -> str:
        known = self.functions.bodies.get(function)
        return known.name if known is not None else self._postponed.names.get(function, UNKNOWN)

    def _fail_lost(self, lost: core.Lost, error: PodLost) -> None:
        if lost.call is not None:
            self._attempts.lost(lost.call, error)
            future = self._running.pop(lost.call, None)
            if future is not None:
                future.set_exception(error)
        if lost.map_item is not None:
            self._attempts.lost(lost.map_item, error)
            self._maps.lost(lost.map_item, error)

    # --- the end

    def _cancel_pending(self) -> None:
        self._take_submitted()
        for future in self._waiting.values():
            future.cancel()
            future.set_running_or_notify_cancel()
        self._waiting.clear()
        self._maps.cancel(self._scheduler.position)
        self._feed(core.CancelPending(frozenset(self._running)))

    def cancel(self, request: CancelRequest) -> bool:
        """Cancel a call that has been sent out; on any thread, which waits for the answer."""
        if threading.current_thread() is not self.thread:
            self._inbox.put(request)
            return request.wait(self.thread)
        number = request.find(self._running, unless=self._postponed.has)
        if number is not None:
            self._attempts.forget(number)
            pod = self._scheduler.pod_of(number)
            failure = request.failure(pod, self._name_of(self._scheduler.function_of(number)))
            # Told later: this may be a callback of a Future, in the middle of other instructions.
            self._inbox.put(core.Cancelled([number]))
            self._running.pop(number).set_exception(failure)
        request.answer(cancelled=number is not None)
        return request.cancelled

    def _terminate(self, order: Terminate) -> None:
        self._session.leave(order.signal)
        if order.signal == signal.SIGINT:
            self._act(last_words(self._inbox, self._session))
        self._break(WorkersTerminated(f"{order.method} has ended the processes of this executor"))

    def _break(self, error: ExecutorBroken) -> None:
        """The executor can run nothing any more: everything that it holds fails with `error`."""
        with self._lock:
            self.closed = True
            if self.broken is None:
                self.broken = error
        try:
            for settle in self._postponed.rest():
                self._settle(settle)
        finally:
            while self._submitted:
                future, call, _ = self._submitted.popleft()
                self._waiting[call[0]] = future
            held = *self._waiting.values(), *self._running.values()
            self._waiting.clear()  # before any callback, which may cancel other calls
            self._running.clear()
            for future in held:
                _fail(future, once_more(error))
            self._maps.fail(lambda: once_more(error))
            self._finished = True

    def _leave(self) -> None:
        """Let go of everything: the pods drop our work, and stay warm."""
        # A broken executor's calls are of no use to anyone; else nothing runs any more.
        number = signal.SIGKILL if self.broken is not None else 0
        with contextlib.ExitStack() as stack:  # from the last to the first, whatever fails
            stack.callback(lambda: self._printer.close(self.patience))
            stack.callback(lambda: self._provisioner.join(self.patience))
            stack.callback(lambda: self._session.close(self.patience))
            stack.callback(self._provisioner.close)
            stack.callback(lambda: self._session.leave(number))

    def _fail_the_rest(self) -> None:
        """What slipped into the inbox while we were leaving."""
        for item in self._left_over():
            error = self.broken or ThreadDied("the executor has ended")
            if isinstance(item, MapStarted):
                item.map.fail(once_more(error))
            elif isinstance(item, Refused):
                _fail(item.future, item.error)
            elif isinstance(item, CancelRequest):
                item.answer(cancelled=False)


def _fail(future: Future[Any], error: BaseException) -> None:
    """Fail a Future, whatever its state is and whatever its callbacks do: the next one waits."""
    try:
        if future.running() or future.set_running_or_notify_cancel():
            future.set_exception(error)
    except BaseException:
        logger.exception("a callback of a Future failed")
