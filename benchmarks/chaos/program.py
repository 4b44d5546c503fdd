"""A program that ends without waiting for its calls: ``python -m benchmarks.chaos.program``.

Arguments are the ledger and the first and the last number of its calls. The interpreter finishes
what is pending before it ends, so that every callback is called; the last one prints what came.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import Future
from typing import Any

from k8sfutures import BrokerRefused, K8sRabbitExecutor, WorkerCrashed

from . import client
from .checks import RETRIES, WORKERS


def main() -> None:
    """Submit, and leave."""
    client.LEDGER, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    numbers = range(first, last + 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    told: dict[str, list[Any]] = {"right": [], "crashed": [], "refused": [], "wrong": []}

    def done(number: int, future: Future[int]) -> None:
        note(number, future)
        if sum(map(len, told.values())) == len(numbers):
            print(json.dumps(told), flush=True)

    def note(number: int, future: Future[int]) -> None:
        error = future.exception()
        if isinstance(error, WorkerCrashed):
            told["crashed"].append([number, error.pid, error.signal, error.pod])
        elif isinstance(error, BrokerRefused):
            told["refused"].append(number)
        elif error is None and future.result() == number * number:
            told["right"].append(number)
        else:
            told["wrong"].append([number, repr(error or future.result())])

    executor = K8sRabbitExecutor(WORKERS, retries=RETRIES)
    for number in numbers:
        try:
            future = executor.submit(_square, client.LEDGER, number)
        except BrokerRefused as error:  # as all others are told
            future = Future()
            future.set_exception(error)
        future.add_done_callback(lambda future, number=number: done(number, future))  # type: ignore[misc]


def _square(ledger: str, number: int) -> int:
    client.LEDGER = ledger  # there, the module is imported
    return client.square(number)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
