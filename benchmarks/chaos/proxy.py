"""A TCP proxy before a broker, that knows whose connections it has, and can break them."""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

# Each participant names its connection in the clear, in the first frame that it sends.
_NAME = re.compile(rb"k8sfutures ((?:client|pod|[a-z0-9]+)-[a-z0-9-]+)")
_CHUNK = 1 << 16


@dataclass(eq=False)
class _Connection:
    ends: tuple[socket.socket, socket.socket]
    name: str = ""
    silent: threading.Event = field(default_factory=threading.Event)
    flows: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.flows.set()


class Proxy:
    """Forwards connections to a broker, while that is there; a context manager that ends it.

    Args:
        target: host and port to forward to.
        host: the address to listen at.
    """

    def __init__(self, target: tuple[str, int], host: str = "127.0.0.1") -> None:
        self._target = target
        self._lock = threading.Lock()
        self._connections: list[_Connection] = []
        self._flows = threading.Event()
        self._flows.set()
        self._listener = socket.create_server((host, 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def names(self) -> list[str]:
        """Of the clients and pods that are connected."""
        with self._lock:
            return sorted({connection.name for connection in self._connections} - {""})

    def reset(self, name: str) -> bool:
        """Reset the connections of a participant; new ones are served."""
        found = self._named(name)
        for connection in found:
            for end in connection.ends:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    end.shutdown(socket.SHUT_RDWR)
        return bool(found)

    def silence(self, name: str) -> bool:
        """Swallow all bytes of a participant's connections from now on, both ways."""
        found = self._named(name)
        for connection in found:
            connection.silent.set()
        return bool(found)

    def stall(self, name: str) -> Callable[[], None]:
        """Hold back all bytes of a participant's connections; returns what lets them flow."""
        found = self._named(name)
        for connection in found:
            connection.flows.clear()

        def resume() -> None:
            for connection in found:
                connection.flows.set()

        return resume

    def hold(self) -> Callable[[], None]:
        """Hold back all bytes, those of new connections too; returns what lets them flow."""
        self._flows.clear()
        return self._flows.set

    def close(self) -> None:
        """End it, and every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._flows.set()
        self._listener.close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            _shut(connection)

    def _named(self, name: str) -> list[_Connection]:
        with self._lock:
            return [one for one in self._connections if one.name == name]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(self._target, timeout=5)
                except OSError:  # the broker is away
                    near.close()
                    continue
                far.settimeout(None)
                connection = _Connection((near, far))
                with self._lock:
                    self._connections.append(connection)
                for end in connection.ends:
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ways = [(near, far), (far, near)]
                threads = [
                    threading.Thread(
                        target=self._forward, args=(connection, *way), name="proxy", daemon=True
                    )
                    for way in ways
                ]
                for thread in threads:
                    thread.start()
                threading.Thread(
                    target=self._finish, args=(connection, threads), name="proxy", daemon=True
                ).start()

    def _forward(
        self, connection: _Connection, source: socket.socket, target: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                connection.flows.wait()
                self._flows.wait()
                if connection.silent.is_set():
                    continue
                if not connection.name and source is connection.ends[0]:
                    match = _NAME.search(data)
                    connection.name = match[1].decode() if match else ""
                target.sendall(data)
        _shut(connection)

    def _finish(self, connection: _Connection, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join()
        for end in connection.ends:
            end.close()
        with self._lock:
            self._connections.remove(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _shut(connection: _Connection) -> None:
    connection.flows.set()
    for end in connection.ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
