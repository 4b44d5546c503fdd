"""The executors that are compared, made and warmed up the same way."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from k8sfutures import K8sRabbitExecutor
from k8sfutures.broker import ensure_local_broker
from k8sfutures.config import load_settings

from . import workloads

STANDARD = "standard library"
OURS = "k8sfutures"


def broker_url() -> str:
    """The URL of the broker that local pods use here; it is started if need be."""
    return load_settings({}).amqp_url or ensure_local_broker()


def new_pool() -> str:
    """A pool of this run's own: no warm pods of another version, and nobody else's work."""
    return f"benchmark-{uuid.uuid4().hex[:8]}"


def ours(workers: int, pool: str, warm_for: float = 60.0) -> K8sRabbitExecutor:
    """Our executor over local pods that use at most `workers` CPUs of this machine."""
    return K8sRabbitExecutor(workers, pods="local", pool=pool, warm_for=warm_for)


@dataclass(frozen=True)
class Pair:
    """Both executors, warm."""

    standard: ProcessPoolExecutor
    ours: K8sRabbitExecutor


@contextlib.contextmanager
def both(workers: int, pool: str) -> Iterator[Pair]:
    """Start both with the same number of processes, and end them; our pods stay warm."""
    # The standard library first: where it forks, it should fork a process without our threads.
    with ProcessPoolExecutor(workers) as standard:
        warm_up(standard, workers)
        with ours(workers, pool) as executor:
            warm_up(executor, workers)
            yield Pair(standard, executor)


def warm_up(executor: Executor, workers: int) -> None:
    """Every process is started, has imported what it needs, and knows the functions."""
    for _ in range(2):
        _results([executor.submit(workloads.settle_in, 0.3) for _ in range(workers)])
    _results([executor.submit(workloads.noop) for _ in range(500)])
    _results([executor.submit(workloads.identity, number) for number in range(500)])
    list(executor.map(workloads.identity, range(500)))


def _results(futures: list[Future[Any]]) -> None:
    for future in futures:
        future.result()
