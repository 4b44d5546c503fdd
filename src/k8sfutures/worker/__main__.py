"""The worker program: ``python -m k8sfutures.worker``, with its configuration on stdin.

The configuration is one JSON object: ``url``, ``pool``, ``name``, ``key`` (hexadecimal),
``warm_for`` (seconds), and optionally ``cpu_ids`` (a list), ``processes`` (how many of them),
``node``, and ``record`` (a file to remove when the pod takes no calls any more). It comes on
stdin because arguments and environment can be read by others.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..link import Endpoint, LinkEvent
from . import cpus
from .agent import Agent, AgentConfig, node_name
from .processes import ZygoteHandle

logger = logging.getLogger("k8sfutures.worker")


def main() -> None:
    """Run one pod until it ends itself or is told to."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        given: dict[str, Any] = json.load(sys.stdin)
        url, pool = str(given["url"]), str(given["pool"])
        config = AgentConfig(
            name=str(given["name"]),
            node=str(given.get("node") or node_name()),
            key=bytes.fromhex(given["key"]),
            cpu_ids=cpus.available(given.get("cpu_ids"), given.get("processes")),
            warm_for=float(given["warm_for"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        # Not the configuration itself: it has secrets.
        sys.exit(
            "k8sfutures.worker: standard input must be the configuration that a client gives "
            f"its pods (a JSON object): {type(error).__name__}: {error}"
        )
    zygote = ZygoteHandle()  # first, so that it comes up while we import and connect
    from .. import amqp

    loop = amqp.new_loop()

    def connect(emit: Callable[[LinkEvent], None]) -> Endpoint:
        return amqp.AmqpEndpoint(url, pool, config.name, is_pod=True, loop=loop, emit=emit)

    agent = Agent(config, zygote, loop, connect)

    record = given.get("record")

    def stop(number: int, _frame: object) -> None:
        if record is not None:  # who looks for pods from now on starts another
            Path(record).unlink(missing_ok=True)
        reason = f"received {signal.Signals(number).name}"
        loop.add_callback_threadsafe(lambda: agent.drain(reason))

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    logger.info("pod %s on %s, CPU ids %s", config.name, config.node, config.cpu_ids)
    agent.run()
    logger.info("pod %s ended", config.name)


if __name__ == "__main__":
    main()
