"""A TCP relay that counts: what goes to a broker through it, and what comes from there."""

from __future__ import annotations

import contextlib
import socket
import threading


class Relay:
    """Forwards connections to a broker, on a port of its own.

    Args:
        target: host and port of the broker.
        host: the address of this machine to listen at.

    Attributes:
        port: where it listens.
        sent: bytes to the broker, of all connections.
        received: bytes from it.
    """

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self._target = target
        self._listener = socket.create_server((host, 0))
        self.port: int = self._listener.getsockname()[1]
        self.sent = 0
        self.received = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._target)
                for ends in ((near, far, True), (far, near, False)):
                    threading.Thread(
                        target=self._forward, args=ends, name="relay", daemon=True
                    ).start()

    def _forward(self, source: socket.socket, target: socket.socket, to_broker: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                target.sendall(data)
                with self._lock:
                    if to_broker:
                        self.sent += len(data)
                    else:
                        self.received += len(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()
