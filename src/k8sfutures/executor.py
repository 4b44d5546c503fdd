"""`K8sRabbitExecutor`: the public face.

What happens to one call, and who owns what::

    caller threads          manager thread        connection thread      RabbitMQ      pods
    ──────────────          ──────────────        ─────────────────      ────────      ────
    submit(): pickle ─► submitted ─► scheduler ─► group ─► outbox ─► publish ─► queue ─► agent
                                        ▲                                                 │
    result() ◄── Future ◄── settle ─────┴── inbox ◄── received ◄── consume ◄── queue ◄── results

* **A caller's thread** pickles its call, so that a failure is on its Future and the manager
  never waits for it, appends it to the submitted calls and wakes the manager, once for however
  many calls come meanwhile.
* **The manager thread** (`manager`) owns the scheduler, the protocol and every Future.
* **The connection thread** (`amqp`) owns pika and runs no user code, so that heartbeats are
  never late.
* **The provisioning thread** (`provisioning`) owns where pods come from, and may block.

The executor object itself is held by none of them: one that is dropped without `shutdown` is
collected, its pending calls are finished, and its threads end.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, Unpack

from . import interrupts, place
from .amqp import AmqpLink
from .arguments import check_arguments, check_future, check_map_arguments, pickled_initializer
from .blobs import Blobs, kept_in_pods
from .client_names import new_name
from .client_surroundings import surroundings_for
from .config import load_settings, pool_name, resolve_pods
from .control import CancelRequest, MapClosed, MapStarted, Plan, Refused, Terminate
from .errors import ExecutorBroken, ForkedExecutorError
from .keywords import Keywords
from .link import ClientLink, LinkEvent
from .manager import Manager
from .maps import Map
from .options import Options
from .outcomes import once_more, stand_alone
from .pods import Credentials, PodSource
from .pods.pool import Pool
from .pods.selection import pod_source
from .shipping import Shipper
from .suggestions import refuse_unknown_options
from .unpicklable import blame

if TYPE_CHECKING:
    from .view import ExecutorView

P = ParamSpec("P")
T = TypeVar("T")

_managers: weakref.WeakSet[Manager] = weakref.WeakSet()
_exiting = False


def _at_exit() -> None:
    """Finish pending work before the interpreter ends, as the standard library's pools do."""
    global _exiting  # noqa: PLW0603
    _exiting = True
    interrupts.wait_at_exit(_managers)


def _in_forked_child() -> None:
    # The threads are not there: nothing to wait for at the child's exit.
    _managers.clear()


# Runs before the interpreter joins threads and before `atexit`, like the standard library's own.
threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # noqa: SLF001
os.register_at_fork(after_in_child=_in_forked_child)


class K8sRabbitExecutor(Executor):
    """Runs calls on the CPUs of a cluster, through RabbitMQ, on pods that stay warm.

    A drop-in for `concurrent.futures.ProcessPoolExecutor`. Calls run at least once where a pod
    is lost (its calls run again elsewhere, up to ``retries`` times), and exactly once otherwise.

    Args:
        max_workers: the most CPUs to use at once; None for all that the pods have.
        mp_context: accepted as None only: pods are not made by `multiprocessing`.
        initializer: called with ``initargs`` in each CPU process before this executor's first
            call there. If it raises or ends the process, the executor is broken
            (`InitializerFailed`).
        initargs: its arguments.
        max_tasks_per_child: calls after which a CPU process is replaced by a fresh one.
        **settings: see the documentation's table; each can also come from the environment
            (``K8SFUTURES_<NAME>``) or from ``k8sfutures.toml``.

    Raises:
        ValueError: an argument or a setting has a value that cannot work.
        TypeError: one has the wrong type.
        PodsUnavailable: for local pods with an ``amqp_url``: the cache folder cannot be used.

    The constructor does not wait: the broker and the pods are found or started while you go
    on, and what goes wrong there is raised by the Futures, and by the next `submit`.
    """

    _options: Options | None = None  # what was chosen for the maps of a view, see `options`

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        **settings: Unpack[Keywords],
    ) -> None:
        max_workers, max_tasks_per_child = check_arguments(
            max_workers, mp_context, initializer, max_tasks_per_child
        )
        resolved = load_settings(settings)
        pods = resolve_pods(resolved, os.environ)
        pool = pool_name(resolved, pods)
        self._begin(
            pool,
            pod_source(resolved, pods, pool),
            _amqp_link,
            shape=resolved.shape(pods),
            max_workers=max_workers,
            max_tasks_per_child=max_tasks_per_child,
            initializer=(initializer, initargs),
            ship=resolved.ship or (),
            retries=resolved.retries,
            startup_timeout=resolved.startup_timeout,
            flush_window=resolved.flush_window,
            output=resolved.output,
            surroundings=surroundings_for(resolved, pods),
        )

    def _begin(
        self,
        pool: str,
        source: PodSource,
        connect: Callable[[Credentials, str, str, Callable[[LinkEvent], None]], ClientLink],
        *,
        initializer: tuple[Callable[..., object] | None, tuple[Any, ...]],
        ship: Sequence[str],
        **plan: Any,
    ) -> None:
        name = new_name()
        self._max_workers = plan["max_workers"]
        self._pid = os.getpid()
        self._pool = pool
        self._owner = object()  # marks our Futures; the executor itself would be kept by them
        self._retries = plan["retries"]
        self._delete_pool = source.delete_pool
        self._alive = weakref.ref(self)
        self._map_ids = itertools.count(1)
        kept = kept_in_pods(plan["shape"].get("memory"))
        self._blobs = blobs = Blobs(kept, Shipper(ship))
        pickled = pickled_initializer(blobs, *initializer)
        plan |= {"name": name, "pool": pool, "source": source, "connect": connect}
        plan["within"] = place.here()
        self._manager = Manager(Plan(blobs=blobs, initializer=pickled, **plan))
        self._call_ids: Iterator[int] = self._manager.call_ids
        self._functions = self._manager.functions
        weakref.finalize(self, _abandon, self._manager, self._pid).atexit = False
        _managers.add(self._manager)
        self._manager.start()

    # --- Executor

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Queue ``fn(*args, **kwargs)``.

        Args:
            fn: any callable; it need not be importable on the pod.
            *args: its arguments.
            **kwargs: its keyword arguments.

        Returns:
            Its Future. An argument that cannot be pickled is an error on this Future alone.

        Raises:
            TypeError: ``fn`` is not callable.
            RuntimeError: after `shutdown`.
            BrokenProcessPool: the executor is broken.
        """
        self._check_usable()
        future: Future[T] = Future()
        future._k8s_owner = self._owner  # type: ignore[attr-defined]  # noqa: SLF001
        try:
            pickled = self._functions.get(fn)
            if pickled is None:
                pickled = self._functions.caller(fn)
                body = self._blobs.dumps_call(fn, args, kwargs)
            else:
                body = self._blobs.dumps((args, kwargs))
        except Exception as error:
            if not callable(fn):
                raise
            blame(error, fn, args, kwargs)
            stand_alone(error)
            taken = self._manager.post(Refused(future, error))
        else:
            call = (next(self._call_ids), pickled.id, 0, body)
            taken = self._manager.submit(future, call, pickled)
        if not taken:
            self._check_usable()
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Like the built-in ``map``, on all CPUs; results come in order.

        Args:
            fn: takes one argument from each iterable.
            *iterables: consumed at once, or as results are taken where ``buffersize`` is given.
            timeout: seconds from this call after which taking a result raises.
            chunksize: items that travel and run together; chosen by measured durations where
                it is not given. Each item keeps an outcome of its own either way.
            buffersize: items to have in hand at most: submitted, and not yet taken.

        Returns:
            An iterator over the results. It raises what an item raised, and goes no further.

        Raises:
            ValueError: ``chunksize`` or ``buffersize`` is below 1, or ``timeout`` is no number.
            RuntimeError: after `shutdown`.
            BrokenProcessPool: the executor is broken.
        """
        chunksize, buffersize = check_map_arguments(fn, chunksize, buffersize, timeout)
        deadline = None if timeout is None else timeout + time.monotonic()
        self._check_usable()
        items: Iterator[tuple[Any, ...]] = zip(*iterables, strict=False)
        try:
            pickled = self._functions.once(fn)
        except Exception as error:
            blame(error, fn, (), {})
            return _failing(items, error)
        map_ = Map(next(self._map_ids), pickled, self._blobs, self._options)
        first = list(items if buffersize is None else itertools.islice(items, buffersize))
        if not first:
            return iter(())
        map_.add(first)
        map_.growing = buffersize is not None
        if not self._manager.post(MapStarted(map_, len(first), chunksize)):
            self._check_usable()
        results = _results(map_, len(first), items, deadline, self._manager, self._alive)
        # Even if it is never started, and so never comes to its own `finally`.
        drop = self._functions.dropped.append
        weakref.finalize(results, drop, pickled.id).atexit = False
        return results

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and let go of the pods when all is done; they stay warm.

        Args:
            wait: return when every Future is done and the executor has let go.
            cancel_futures: cancel what has not been dispatched.
        """
        self._check_process()
        self._manager.close(cancel=cancel_futures)
        if wait and self._manager.thread is not threading.current_thread():
            interrupts.wait_for(self._manager)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt) and os.getpid() == self._pid:
            interrupts.leave(self._manager)
        else:
            self.shutdown(wait=True)

    # --- as of Python 3.14

    def terminate_workers(self) -> None:
        """End the CPU processes that run this executor's calls with SIGTERM, and shut down.

        Every Future that is not done fails with `WorkersTerminated`. Other clients of the pool
        are not affected; the pods stay.
        """
        self._end_workers(signal.SIGTERM, "terminate_workers")

    def kill_workers(self) -> None:
        """Like `terminate_workers`, with SIGKILL."""
        self._end_workers(signal.SIGKILL, "kill_workers")

    def _end_workers(self, number: int, method: str) -> None:
        self._check_process()
        if self._manager.thread.is_alive():
            self._manager.post(Terminate(number, f"{method}()"))
        self.shutdown(wait=True, cancel_futures=True)

    # --- beyond the standard library

    def options(
        self,
        *,
        retries: int | None = None,
        retry_on: type[BaseException] | tuple[type[BaseException], ...] = (),
        timeout: float | None = None,
        **unknown: object,
    ) -> ExecutorView:
        """This executor, with settings for some calls: those that go through what is returned.

        Args:
            retries: how often such a call may run again; None for as often as any.
            retry_on: exceptions for which it does, beside the loss of its pod; `WorkerCrashed`
                and `CallTimeout` may be among them.
            timeout: seconds that it may run each time, from when its function is called. Then its
                CPU process is ended, and its Future has a `CallTimeout`. In a map, of each item.
            **unknown: refused, with the nearest name that there is.

        Returns:
            An `Executor` of the same pods. Its `shutdown`, and its ``with`` block, end it alone.

        Raises:
            TypeError: one has the wrong type, or there is none of that name.
            ValueError: one has a value that cannot work.
        """
        from .view import ExecutorView

        refuse_unknown_options(unknown)
        view = ExecutorView(self, Options.of(retries, retry_on, timeout))
        if view.chosen.is_idle(self._retries):
            warnings.warn(
                "retry_on has no effect with retries=0: no call runs again; give more retries, or "
                "leave retry_on out",
                stacklevel=2,
            )
        return view

    def cancel(self, future: Future[Any], *, running: bool = False) -> bool:
        """Cancel a call, even while it runs.

        Args:
            future: of this executor.
            running: whether to end a call that a pod has, too: one that waits there comes back, and
                the CPU process of one that runs is ended. Its Future then has a `CallCancelled`.

        Returns:
            Whether it has been cancelled, and will not complete.

        Raises:
            TypeError: ``future`` is no Future.
            ValueError: it is one of another executor.
        """
        self._check_process()
        check_future(future, self._owner)
        if future.cancel() or not running:
            return future.cancelled()
        return self._manager.cancel(CancelRequest(future))

    @property
    def pool(self) -> Pool:
        """The warm pool that this executor uses: its name, and a way to remove it."""
        return Pool(self._pool, self._delete_pool)

    @property
    def _broken(self) -> ExecutorBroken | None:
        # The name that the standard library's executors use, and some of its users read.
        return self._manager.broken

    def __repr__(self) -> str:
        state = "broken" if self._broken else "shut down" if self._manager.closed else "open"
        look = self._manager.statistics()
        return (
            f"<{type(self).__name__} on pool {self._pool!r}: {state}, {look.pods} pods, "
            f"{look.slots} CPUs, {look.pending} calls waiting, {look.in_flight} in flight>"
        )

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise ForkedExecutorError(
                f"this executor belongs to process {self._pid} and cannot be used in its forked "
                f"child {os.getpid()}: make a new K8sRabbitExecutor there"
            )

    def _check_usable(self) -> None:
        self._check_process()
        manager = self._manager
        if manager.broken is not None:
            raise once_more(manager.broken)
        if _exiting:
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")
        if manager.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")


def _abandon(manager: Manager, pid: int) -> None:
    """The executor was dropped without `shutdown`."""
    if os.getpid() == pid:
        manager.close()


def _amqp_link(
    found: Credentials, pool: str, name: str, emit: Callable[[LinkEvent], None]
) -> ClientLink:
    return AmqpLink(found.url, pool, name, emit, found.tls)


def _failing(items: Iterator[tuple[Any, ...]], error: BaseException) -> Iterator[Any]:
    """The results of a map whose function cannot be pickled: as many failures as items."""

    def fail(_: object) -> None:
        raise error

    return map(fail, items)


def _results(
    map_: Map,
    added: int,
    items: Iterator[tuple[Any, ...]],
    deadline: float | None,
    manager: Manager,
    executor: weakref.ref[K8sRabbitExecutor],
) -> Iterator[Any]:
    """The results of a map, in order; closing it drops what has not been dispatched."""
    try:
        for index in itertools.count():
            if index == added:
                return
            if map_.growing:
                more = list(itertools.islice(items, 1)) if executor() is not None else []
                if more:
                    if not manager.extend(map_, more):
                        raise RuntimeError("cannot schedule new futures after shutdown")
                    added += 1
                else:
                    map_.growing = False
            yield map_.take(index, deadline)
    finally:
        manager.post(MapClosed(map_))
