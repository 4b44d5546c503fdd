"""`ex.options(...)`: an executor with settings for the calls that go through it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from .executor import K8sRabbitExecutor
from .manager import Manager
from .options import Options

P = ParamSpec("P")
T = TypeVar("T")


class _Ids(Iterator[int]):
    """Ids for the calls of a view, whose options are chosen for each that is taken.

    So the executor itself need not ask, for each of its calls, whether any were. This is no
    generator, as several threads may submit at once.
    """

    def __init__(self, options: Options, manager: Manager) -> None:
        self._options = options
        self._ids = manager.call_ids
        self._chosen = manager.chosen

    def __next__(self) -> int:
        call_id = next(self._ids)
        self._chosen[call_id] = self._options
        return call_id


class ExecutorView(K8sRabbitExecutor):
    """The same executor, pods and pool; see `K8sRabbitExecutor.options`.

    Args:
        executor: what it is a view of; kept, so that the calls of a view do not lose it.
        options: for calls that go through it; what is not given is as `executor` has it.
    """

    def __init__(self, executor: K8sRabbitExecutor, options: Options) -> None:
        self.__dict__.update(executor.__dict__)
        # Of a view, too, the executor itself.
        self._executor: K8sRabbitExecutor = self.__dict__.setdefault("_executor", executor)
        self._options: Options = options.over(self.__dict__.get("_options"))
        self._call_ids = _Ids(self._options, self._manager)
        self._closed = False
        self._open: set[Future[object]] = set()

    @property
    def chosen(self) -> Options:
        """What was chosen for the calls that go through this view."""
        return self._options

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the executor does, with these options."""
        future = super().submit(fn, *args, **kwargs)
        self._open.add(future)  # type: ignore[arg-type]
        future.add_done_callback(self._open.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the executor itself stays open.

        Args:
            wait: return when every Future of this view is done. Maps are not waited for.
            cancel_futures: cancel those of its Futures whose calls have not been dispatched.
        """
        self._check_process()
        self._closed = True
        futures = list(self._open)
        if cancel_futures:
            for future in futures:
                future.cancel()
        if wait:
            concurrent.futures.wait(futures)

    def terminate_workers(self) -> None:
        """As the executor does, which is shut down by it."""
        self._executor.terminate_workers()

    def kill_workers(self) -> None:
        """As the executor does, which is shut down by it."""
        self._executor.kill_workers()

    def _check_usable(self) -> None:
        super()._check_usable()
        if self._closed:
            raise RuntimeError("cannot schedule new futures after shutdown of this view")

    def __repr__(self) -> str:
        chosen = ", ".join(
            f"{name}={value!r}"
            for name, value in (
                ("retries", self._options.retries),
                ("retry_on", tuple(one.__name__ for one in self._options.retry_on) or None),
                ("timeout", self._options.timeout),
            )
            if value is not None
        )
        return f"<{type(self).__name__} with {chosen or 'nothing else'} of {self._executor!r}>"
