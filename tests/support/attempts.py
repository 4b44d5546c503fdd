"""Attempts of calls, counted by the test over TCP: pods share no files with it, nor each other."""

from __future__ import annotations

import contextlib
import platform
import socket
import threading


class Attempts:
    """Takes a connection for each attempt, hears where it runs, and tells it its number.

    Attributes:
        address: for `tell_attempt`; a call can take it along.
        hosts: names of the machines, or pods on Kubernetes, that attempts ran on, in order.

    Args:
        host: an address of this machine that calls reach.
    """

    def __init__(self, host: str) -> None:
        self._server = socket.create_server((host, 0))
        self.address: tuple[str, int] = self._server.getsockname()
        self.hosts: list[str] = []
        self._told = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="attempts")
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # it is closed
                return
            # A call may be ended at any time, and is then not told its number.
            with connection, contextlib.suppress(OSError):
                connection.settimeout(10)
                with connection.makefile("rb") as file:
                    name = file.read().decode()
                with self._told:
                    self.hosts.append(name)
                    self._told.notify_all()
                    connection.sendall(b"%d" % len(self.hosts))

    def wait_for(self, number: int) -> str:
        """Wait for an attempt to be made; returns where it runs."""
        with self._told:
            assert self._told.wait_for(lambda: len(self.hosts) >= number, 40), self.hosts
            return self.hosts[number - 1]

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(15)


def tell_attempt(address: tuple[str, int]) -> int:
    """In a call: which attempt this is, counted from 1."""
    with socket.create_connection(address, 10) as connection:
        connection.sendall(platform.node().encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as file:
            return int(file.read())
