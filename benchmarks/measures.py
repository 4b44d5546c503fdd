"""One function for each figure: takes an executor that is warm, returns one round's figures.

Each checks what came back, outside the time that counts.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

from . import workloads

ECHOED_ARRAYS = 8
ECHOED_BYTES = 10_000_000


def submits_per_second(executor: Executor, count: int) -> float:
    """Submit `count` no-ops, then wait for every result."""
    gc.collect()
    start = time.perf_counter()
    futures = [executor.submit(workloads.noop) for _ in range(count)]
    results = [future.result() for future in futures]
    seconds = time.perf_counter() - start
    _check(results == [None] * count, "submit lost or changed results")
    return count / seconds


def round_trips(executor: Executor, count: int) -> list[float]:
    """Milliseconds of each of `count` calls, the next one submitted when the last is back."""
    gc.collect()
    clock = time.perf_counter
    found = []
    for _ in range(count):
        start = clock()
        executor.submit(workloads.noop).result()
        found.append((clock() - start) * 1e3)
    return found


def mapped_per_second(executor: Executor, count: int, chunksize: int | None) -> float:
    """Items per second of a `map` of no-ops; None leaves the chunk size to the executor."""
    gc.collect()
    options = {} if chunksize is None else {"chunksize": chunksize}
    start = time.perf_counter()
    results = list(executor.map(workloads.identity, range(count), **options))
    seconds = time.perf_counter() - start
    _check(results == list(range(count)), "map lost or changed results")
    return count / seconds


def echoed_megabytes_per_second(executor: Executor, arrays: Sequence[Any]) -> float:
    """Submit every array at once and take each one back; the bytes of one way, per second."""
    gc.collect()
    start = time.perf_counter()
    futures = [executor.submit(workloads.identity, array) for array in arrays]
    results = [future.result() for future in futures]
    seconds = time.perf_counter() - start
    same = all((sent == back).all() for sent, back in zip(arrays, results, strict=True))
    _check(same, "echo lost or changed bytes")
    sent_bytes: int = sum(array.nbytes for array in arrays)
    return sent_bytes / 1e6 / seconds


def new_arrays() -> list[Any] | None:
    """What is echoed: random bytes, none like another; None where NumPy is not installed."""
    try:
        import numpy as np
    except ImportError:
        return None
    random = np.random.default_rng(0)
    return [random.random(ECHOED_BYTES // 8) for _ in range(ECHOED_ARRAYS)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _check(holds: bool, words: str) -> None:
    if not holds:
        raise SystemExit(f"benchmarks: {words}: no figure of this run counts")
