"""How long one executor takes from its constructor to its first result, as JSON.

A program of its own, since only a new process starts from nothing: `side_by_side` runs it.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import Executor


def main() -> None:
    """Measure once and print the figures, in milliseconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("executor", choices=["standard", "ours"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--pool", help="ours: the pool to attach to")
    parser.add_argument("--warm-for", type=float, default=60.0)
    arguments = parser.parse_args()

    from . import workloads

    executor: Executor
    start = time.perf_counter()
    if arguments.executor == "standard":
        from concurrent.futures.process import ProcessPoolExecutor

        imported = time.perf_counter()
        executor = ProcessPoolExecutor(arguments.workers)
    else:
        from k8sfutures import K8sRabbitExecutor

        imported = time.perf_counter()
        executor = K8sRabbitExecutor(
            arguments.workers,
            pods="local",
            pool=arguments.pool,
            warm_for=arguments.warm_for,
        )
    with executor:
        executor.submit(workloads.noop).result()
        first = time.perf_counter()
    left = time.perf_counter()
    figures = {
        "import": (imported - start) * 1e3,
        "first_result": (first - imported) * 1e3,
        "shutdown": (left - first) * 1e3,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
