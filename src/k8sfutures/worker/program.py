"""The worker program, once it has its zygote: reads who it is, connects, and serves.

`configuration` says what the program's argument FILE, or standard input without one, holds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from .. import amqp
from ..errors import ExecutorBroken
from ..link import Endpoint, LinkEvent
from . import configuration
from .agent import Agent
from .processes import ZygoteHandle
from .reports import ZygoteKilled

logger = logging.getLogger("k8sfutures.worker")


def run(zygote: ZygoteHandle) -> None:
    """Run one pod until it ends itself or is told to.

    Args:
        zygote: forks its CPU processes.
    """
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s"
    )
    try:
        text = Path(sys.argv[1]).read_text("utf-8") if sys.argv[1:] else sys.stdin.read()
        given = configuration.read(text, os.environ)
    except (OSError, ValueError) as error:
        sys.exit(f"k8sfutures.worker: {error}")
    config = given.agent
    # Each CPU process has five descriptors here; calls keep the limit that they expect.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    loop = amqp.new_loop()

    def connect(emit: Callable[[LinkEvent], None]) -> Endpoint:
        return amqp.AmqpEndpoint(
            *(given.url, given.pool, config.name), is_pod=True, loop=loop, emit=emit, tls=given.tls
        )

    agent = Agent(config, zygote, loop, connect)

    def stop(number: int, _frame: object) -> None:
        if given.record is not None:  # who looks for pods from now on starts another
            record = Path(given.record)
            with contextlib.suppress(FileNotFoundError):  # it is the second signal
                record.rename(record.with_suffix(".draining"))
        reason = f"received {signal.Signals(number).name}"
        loop.add_callback_threadsafe(lambda: agent.drain(reason))

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    logger.info("pod %s on %s, CPU ids %s", config.name, config.node, config.cpu_ids)
    try:
        agent.run()
    except ExecutorBroken as error:  # it is in the log, and a traceback says nothing more
        sys.exit(f"k8sfutures.worker: {error}")
    except ZygoteKilled:
        sys.exit(os.EX_TEMPFAIL)
    logger.info("pod %s ended", config.name)
