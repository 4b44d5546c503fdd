"""A proxy in front of a broker that resets connections, goes away, and comes back."""

from __future__ import annotations

import contextlib
import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

_MOST = 1 << 20
_INTRODUCTION = 1 << 10


class _End:
    """One end of a connection, and what it has to send."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.other: _End
        self.unsent = bytearray()
        self.at_end = False
        """Whether nothing more is to be sent."""
        self.held = False
        """Whether nothing is read from it."""
        self.introduction = b""
        """The first that has come from it; has its name, where it is a client or a pod."""

    def events(self) -> int:
        """What to wait for."""
        reads = len(self.other.unsent) < _MOST and not (self.other.at_end or self.held)
        return selectors.EVENT_READ * reads | selectors.EVENT_WRITE * bool(self.unsent)


class FaultyProxy:
    """Forwards connections to a broker; one thread owns all sockets.

    Args:
        url: the broker's.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname, parts.port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        user = parts.netloc.rpartition("@")[0]
        self.url = urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self._address[1]}"))
        self._ends: list[_End] = []
        self._selector = selectors.DefaultSelector()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._running = True
        self._thread = threading.Thread(target=self._run, name="faulty proxy", daemon=True)
        self._thread.start()

    # --- any thread

    def reset(self) -> None:
        """Send RST on every connection that is open now, to both sides."""
        self._order(self._reset)

    def go_away(self) -> None:
        """Reset every connection, and refuse new ones."""

        def leave() -> None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._reset()

        self._order(leave)

    def come_back(self) -> None:
        """Serve again, at the same address."""

        def serve() -> None:
            self._listener = socket.create_server(self._address)
            self._selector.register(self._listener, selectors.EVENT_READ)

        self._order(serve)

    def hold(self, name: str) -> None:
        """Forward nothing more of what the broker sends to this client or pod.

        Args:
            name: of whom, or how that begins; it is connected.
        """
        words = f"k8sfutures {name}".encode()

        def stop_reading() -> None:
            (end,) = (one.other for one in self._ends if words in one.introduction)
            end.held = True
            self._watch(end)

        self._order(stop_reading)

    def close(self) -> None:
        def end() -> None:
            self._running = False
            self._reset()

        self._order(end)
        self._thread.join(5)
        for one in (self._listener, self._wake_read, self._wake_write, self._selector):
            one.close()

    def _order(self, action: Callable[[], None]) -> None:
        done = threading.Event()

        def act() -> None:
            action()
            done.set()

        self._orders.put(act)
        self._wake_write.send(b"x")
        assert done.wait(10)

    # --- the thread

    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select():
                if key.fileobj is self._wake_read:
                    self._wake_read.recv(100)
                elif key.fileobj is self._listener:
                    self._accept()
                elif key.data in self._ends:
                    self._serve(key.data)
            with contextlib.suppress(queue.Empty):
                while True:
                    self._orders.get_nowait()()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            pair = _End(client), _End(socket.create_connection(self._target))
        except OSError:
            client.close()
            return
        for end, other in (pair, pair[::-1]):
            end.other = other
            end.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.socket.setblocking(False)
            self._ends.append(end)
            self._selector.register(end.socket, selectors.EVENT_READ, end)

    def _serve(self, end: _End) -> None:
        try:
            with contextlib.suppress(BlockingIOError):
                if end.events() & selectors.EVENT_READ:
                    data = end.socket.recv(1 << 16)
                    if len(end.introduction) < _INTRODUCTION:
                        end.introduction += data
                    end.other.unsent += data
                    end.other.at_end = not data
            for one in (end, end.other):
                with contextlib.suppress(BlockingIOError):
                    if one.unsent:
                        del one.unsent[: one.socket.send(one.unsent)]
                if one.at_end and not one.unsent:
                    self._drop(end)
                    return
            for one in (end, end.other):
                self._watch(one)
        except OSError:
            self._drop(end)

    def _watch(self, end: _End) -> None:
        events = end.events()
        if end.socket not in self._selector.get_map():
            if events:
                self._selector.register(end.socket, events, end)
        elif events:
            self._selector.modify(end.socket, events, end)
        else:
            self._selector.unregister(end.socket)

    def _drop(self, end: _End) -> None:
        for one in (end, end.other):
            if one in self._ends:
                self._ends.remove(one)
                if one.socket in self._selector.get_map():
                    self._selector.unregister(one.socket)
                one.socket.close()

    def _reset(self) -> None:
        for end in list(self._ends):
            end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        for end in list(self._ends):
            self._drop(end)
