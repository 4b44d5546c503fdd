"""What a big argument costs that many calls share: bytes through the broker, and time.

On two local pods of one CPU each, or on those of a cluster; by `submit`, `map` and
`functools.partial`, with an array and with ``bytes``. Beside them the standard library, which
sends it with each call, and so gets fewer calls. Pods and client reach the broker through a relay
that counts. See README.md.

``--pods kubernetes`` takes cluster, broker and image (which must have NumPy) from the usual
settings, and wants ``--relay-host``: an address of this machine that pods can reach.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from typing import Any

import numpy as np

from k8sfutures import K8sRabbitExecutor
from k8sfutures.address import parse_amqp_url
from k8sfutures.broker import ensure_local_broker
from k8sfutures.config import load_settings

from . import workloads
from .relay import Relay

Way = Callable[[Executor, Any, int], list[Any]]


def by_submit(executor: Executor, big: Any, calls: int) -> list[Any]:
    """Each call is submitted with it."""
    futures = [executor.submit(workloads.length, big, index) for index in range(calls)]
    return [future.result() for future in futures]


def by_map(executor: Executor, big: Any, calls: int) -> list[Any]:
    """A map repeats it."""
    return list(executor.map(workloads.length, itertools.repeat(big), range(calls)))


def by_partial(executor: Executor, big: Any, calls: int) -> list[Any]:
    """What is called holds it."""
    function = functools.partial(workloads.length, big)
    futures = [executor.submit(function, index) for index in range(calls)]
    return [future.result() for future in futures]


def cases(size: int) -> Iterator[tuple[str, Way, Any]]:
    """What is measured: a name, how calls are made, and what they share."""
    for way in (by_submit, by_map, by_partial):
        yield f"array, {way.__name__}", way, np.random.default_rng().random(size // 8)
    yield "bytes, by_submit", by_submit, os.urandom(size)


def main() -> None:
    """Measure, and print a line for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=500)
    parser.add_argument("--standard-calls", type=int, default=20)
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--pods", choices=("local", "kubernetes"), default="local")
    parser.add_argument("--relay-host", default="127.0.0.1", metavar="ADDRESS")
    arguments = parser.parse_args()
    calls, size = arguments.calls, arguments.megabytes * 1_000_000
    url = load_settings({}).amqp_url or ensure_local_broker()
    address = parse_amqp_url(url)
    relay = Relay((address.host, address.port), arguments.relay_host)
    login, _, rest = url.rpartition("@")
    _, slash, path = rest.partition("/")
    ours = K8sRabbitExecutor(
        pods=arguments.pods,
        amqp_url=f"{login}@{arguments.relay_host}:{relay.port}{slash}{path}",
        worker_processes=1 if arguments.pods == "local" else None,
        pool=f"data-path-{os.getpid()}",
        warm_for=10,
    )
    print(f"{arguments.megabytes} MB shared by {calls} calls on {arguments.pods} pods")
    print("| shared | to the broker, MB | from it, MB | ms a call | standard library, ms a call |")
    print("| --- | --- | --- | --- | --- |")
    with ours, ProcessPoolExecutor(2) as standard:
        for executor in (ours, standard):
            list(executor.map(workloads.noop_with, range(100)))
        for name, way, big in cases(size):
            sent, received = relay.sent, relay.received
            took = _seconds(way, ours, big, calls)
            sent, received = relay.sent - sent, relay.received - received
            theirs = _seconds(way, standard, big, arguments.standard_calls)
            print(
                f"| {name} | {sent / 1e6:.1f} | {received / 1e6:.1f} | {took / calls * 1e3:.1f} | "
                f"{theirs / arguments.standard_calls * 1e3:.1f} |"
            )
    relay.close()


def _seconds(way: Way, executor: Executor, big: Any, calls: int) -> float:
    start = time.perf_counter()
    results = way(executor, big, calls)
    seconds = time.perf_counter() - start
    if results != [len(big)] * calls:
        raise SystemExit(f"{way.__name__} lost or changed something")
    return seconds


if __name__ == "__main__":
    main()
