"""Whoever is on the way to the broker: reads what is published there, and publishes it again."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import pika

_BASIC_PUBLISH = (60, 40)


class Captured(NamedTuple):
    """A message as it was published."""

    exchange: str
    key: str
    body: bytes


class Eavesdropper:
    """A proxy in front of a broker that keeps every message that goes there.

    The frames are AMQP 0-9-1's (section 4.2.3): type, channel, size, payload, 0xCE.

    Args:
        url: the broker's.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._broker_url = url
        self._broker = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        user = parts.netloc.rpartition("@")[0]
        port = self._listener.getsockname()[1]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{port}"))
        self.captured: list[Captured] = []
        self._sockets = [self._listener]
        self._threads: list[threading.Thread] = []
        self._serve(self._accept)

    def _serve(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, name="eavesdropper", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._broker)
                for end in (client, broker):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets += [client, broker]
                self._serve(self._forward, client, broker, True)
                self._serve(self._forward, broker, client, False)

    def _forward(self, source: socket.socket, target: socket.socket, listen: bool) -> None:
        buffer = b""
        skip = 8  # the protocol header
        where: tuple[str, str] = ("", "")
        body, size = b"", 0
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if listen:
                    buffer += data
                    buffer, skip = buffer[skip:], max(0, skip - len(buffer))
                    while len(buffer) >= 7 and len(buffer) >= 8 + _size_of(buffer):
                        length = _size_of(buffer)
                        kind, payload = buffer[0], buffer[7 : 7 + length]
                        buffer = buffer[8 + length :]
                        if kind == 1 and struct.unpack(">HH", payload[:4]) == _BASIC_PUBLISH:
                            where = _published(payload)
                        elif kind == 2:
                            (size,) = struct.unpack(">Q", payload[4:12])
                            body = b""
                        elif kind == 3:
                            body += payload
                            if len(body) == size:
                                self.captured.append(Captured(*where, body))
                target.sendall(data)  # what has been sent on has been captured
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def publish(self, *messages: Captured) -> None:
        """Publish these at the broker; returns when it has them all in its queues."""
        connection = pika.BlockingConnection(pika.URLParameters(self._broker_url))
        channel = connection.channel()
        channel.confirm_delivery()
        for message in messages:
            channel.basic_publish(message.exchange, message.key, message.body)
        connection.close()

    def close(self) -> None:
        """Cut all connections."""
        for end in self._sockets:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for end in self._sockets:
            end.close()


def _size_of(buffer: bytes) -> int:
    return int.from_bytes(buffer[3:7], "big")


def _published(payload: bytes) -> tuple[str, str]:
    at = 7 + payload[6]
    return payload[7:at].decode(), payload[at + 1 : at + 1 + payload[at]].decode()
