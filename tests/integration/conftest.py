"""A proxy in front of the broker: it counts what is published, and cuts connections."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit, urlunsplit

import pytest

from k8sfutures.broker import ensure_local_broker

_BASIC_PUBLISH = (60, 40)
_BASIC_DELIVER = (60, 60)


class Proxy:
    """Forwards AMQP connections to the real broker, frame by frame.

    `published` counts basic.publish by the exchange or, where that is the default one, by the
    routing key; `delivered` counts basic.deliver; `published_bytes` are those of bodies. The
    frames are AMQP 0-9-1's (section 4.2.3): type, channel, size, payload, 0xCE.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._broker = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        self.published: Counter[str] = Counter()
        self.delivered = 0
        self.published_bytes = 0
        self._sockets: list[socket.socket] = []  # of the connections that are open
        self._all: list[socket.socket] = [self._listener]
        self._threads = [threading.Thread(target=self._accept, name="proxy", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._broker)
                self._sockets += [client, broker]
                self._all += [client, broker]
                for source, target in ((client, broker), (broker, client)):
                    source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    thread = threading.Thread(
                        target=self._forward,
                        args=(source, target, source is client),
                        name="proxy",
                        daemon=True,
                    )
                    self._threads.append(thread)
                    thread.start()

    def _forward(self, source: socket.socket, target: socket.socket, from_client: bool) -> None:
        buffer = b""
        skip = 8 if from_client else 0  # the protocol header
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                buffer += data
                buffer, skip = buffer[skip:], max(0, skip - len(buffer))
                while len(buffer) >= 7:
                    kind, _, size = struct.unpack(">BHI", buffer[:7])
                    if len(buffer) < 8 + size:
                        break
                    if kind == 1:
                        self._method(buffer[7 : 7 + size])
                    elif kind == 3 and from_client:
                        self.published_bytes += size
                    buffer = buffer[8 + size :]
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _method(self, payload: bytes) -> None:
        method = struct.unpack(">HH", payload[:4])
        if method == _BASIC_PUBLISH:
            length = payload[6]
            exchange = payload[7 : 7 + length].decode()
            key = payload[8 + length : 8 + length + payload[7 + length]].decode()
            self.published[exchange or key] += 1
        elif method == _BASIC_DELIVER:
            self.delivered += 1

    def cut(self) -> None:
        """Reset every connection that is open now; new ones are served."""
        sockets, self._sockets = self._sockets, []
        for end in sockets:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join(5)
        for end in self._all:
            end.close()


@pytest.fixture
def proxy(cache) -> Iterator[Proxy]:
    running = Proxy(ensure_local_broker())
    yield running
    running.close()


@pytest.fixture
def wait_for_end() -> Callable[[int, float], bool]:
    """Wait until a process has ended, at most so many seconds."""

    def wait(pid: int, seconds: float) -> bool:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return True
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        ended = bool(poller.poll(seconds * 1000))
        os.close(descriptor)
        return ended

    return wait
