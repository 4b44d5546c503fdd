"""A RabbitMQ of a test's own that can be told what to do, with `rabbitmqctl`."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cluster_broker import ClusterBroker, free_port

from k8sfutures.rabbitmq_server import HOST, find_server


class ManagedBroker(ClusterBroker):
    """One node that takes commands; without epmd, which would outlive it.

    Args:
        folder: for its files.
    """

    def __init__(self, folder: Path) -> None:
        self._distribution_port = free_port(HOST)
        super().__init__(HOST, folder)

    def _environment(self, *, listens: bool = True) -> dict[str, str]:
        port = self._distribution_port
        return super()._environment() | {
            "ERL_AFLAGS": f"-start_epmd false -dist_listen {str(listens).lower()} "
            "-kernel inet_dist_use_interface {127,0,0,1} "
            f"-erl_epmd_port {port}",
            "RABBITMQ_DIST_PORT": str(port),
        }

    def control(self, *words: str) -> str:
        """Run `rabbitmqctl`; returns what it prints."""
        done = subprocess.run(
            [find_server().with_name("rabbitmqctl"), "--quiet", *words],
            env=self._environment(listens=False),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def evaluate(self, erlang: str) -> str:
        """Evaluate an Erlang expression in the node."""
        return self.control("eval", erlang)
