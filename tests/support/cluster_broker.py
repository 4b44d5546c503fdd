"""A RabbitMQ of the tests' own that pods can reach, at an address of this machine."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import time
from pathlib import Path

from k8sfutures.rabbitmq_server import CONFIGURATION, environment, find_server


class ClusterBroker:
    """One node; `stop` ends it.

    Args:
        host: the address that it listens at.
        folder: for its files.
        more: lines to add to its configuration.
    """

    def __init__(self, host: str, folder: Path, more: str = "") -> None:
        self._more = more
        self.host = host
        self.folder = folder
        self.port = free_port(host)
        self.password = secrets.token_hex(16)
        self.start()

    @property
    def url(self) -> str:
        return f"amqp://tests:{self.password}@{self.host}:{self.port}/%2F"

    def start(self) -> None:
        """Start it, at the same address as before; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "rabbitmq.conf").write_text(
            CONFIGURATION.format(
                host=self.host, port=self.port, user="tests", password=self.password
            )
            + self._more.format(port=self.port)
        )
        (self.folder / "enabled_plugins").write_text("[].\n")
        with (self.folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_server()],
                env=self._environment(),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while not self._greets():
            assert self._process.poll() is None, (self.folder / "console.log").read_text()
            assert time.monotonic() < deadline, "the broker did not come up"

    def _environment(self) -> dict[str, str]:
        name = f"k8sfutures-tests-{os.getpid()}-{self.port}"
        return dict(environment(name, self.folder, free_port("127.0.0.1")))

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                return self._answers(connection)
        except OSError:
            time.sleep(0.1)
            return False

    def _answers(self, connection: socket.socket) -> bool:
        connection.sendall(b"AMQP\x00\x00\x09\x01")
        return connection.recv(1) == b"\x01"

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def restart(self) -> None:
        """End it and start it again, at the same address; its queues are gone."""
        self.stop()
        self.start()


def free_port(host: str) -> int:
    """A port that nobody listens at."""
    with socket.create_server((host, 0)) as found:
        return int(found.getsockname()[1])
