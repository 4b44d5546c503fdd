"""RabbitMQ: the only module that knows pika.

The topology of a pool is two fanout exchanges and one queue for each participant::

    client ──► k8sfutures.<pool>.pods ──► every pod's queue
    pod ─────► k8sfutures.<pool>.clients ──► every client's queue
    either ──► the default exchange ──► one peer's queue

Queues are exclusive and auto-delete: RabbitMQ takes them away with their owner's connection,
so nothing is left behind by whatever dies, and a message to a peer that is gone comes back
(``mandatory``), which is how its loss is noticed.

pika is not thread-safe. One thread turns the loop and owns everything here; the others come in
through `add_callback_threadsafe` only.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import pika
import pika.exceptions
from pika.adapters.select_connection import IOLoop, SelectConnection

from .address import parse_amqp_url
from .bulk_memory import get_used_to_bulk
from .errors import BrokerRefused, BrokerUnreachable, BrokerUntrusted, ExecutorBroken
from .link import (
    LinkBlocked,
    LinkDown,
    LinkEvent,
    LinkFailed,
    LinkFree,
    LinkUp,
    NobodyThere,
    Received,
    Unroutable,
)
from .tls import Tls, refusal

logger = logging.getLogger(__name__)

# pika logs each failed attempt at length, at level ERROR; ours say it once, in words.
logging.getLogger("pika").setLevel(logging.CRITICAL)

HEARTBEAT: Final = 10
"""Seconds; a peer that has vanished without closing is found after about twice this."""

BLOCKED_TIMEOUT: Final = 600
"""Seconds that a publisher waits for a broker that is out of memory or disk."""

READ_SIZE: Final = 256 * 1024
"""Bytes that are read at once from the connection to the broker, at most."""

_HANG_UP: Final = 2.0
"""Seconds for the connection to close after the connection thread has failed."""

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 3.0

NAMES: Final = r"^(k8sfutures\.|amq\.default$)"
"""A pattern for all that a user must be permitted to configure, write and read."""

_ACCESS_REFUSED: Final = 403
"""AMQP's code for what a user is not permitted."""

_REFUSALS: Final = (
    pika.exceptions.ProbableAuthenticationError,
    pika.exceptions.ProbableAccessDeniedError,
    pika.exceptions.AuthenticationError,
)


def new_loop() -> IOLoop:
    """An event loop for one thread: pika's, which file descriptors of others can join."""
    return IOLoop()


class AmqpEndpoint:
    """An `Endpoint` on a real broker; belongs to the thread that turns `loop`.

    Args:
        url: the broker's.
        pool: the pool's name.
        name: of this participant, unique.
        is_pod: which of the pool's exchanges to listen on.
        loop: from `new_loop`.
        emit: called with each event, on the loop's thread.
        tls: for ``amqps://``; None for what the system trusts.
    """

    def __init__(
        self,
        url: str,
        pool: str,
        name: str,
        *,
        is_pod: bool,
        loop: IOLoop,
        emit: Callable[[LinkEvent], None],
        tls: Tls | None = None,
    ) -> None:
        self._address = parse_amqp_url(url)
        self._parameters = pika.URLParameters(url)
        self._tls = tls or Tls()
        if self._address.scheme == "amqps":
            self._parameters.ssl_options = pika.SSLOptions(self._tls.context(), self._address.host)
        self._parameters.heartbeat = HEARTBEAT
        self._parameters.blocked_connection_timeout = BLOCKED_TIMEOUT
        self._parameters.connection_attempts = 1
        self._parameters.socket_timeout = 5
        self._parameters.stack_timeout = 10
        self._parameters.client_properties = {"connection_name": f"k8sfutures {name}"}
        self._prefix = f"k8sfutures.{pool}."
        mine, theirs = ("pods", "clients") if is_pod else ("clients", "pods")
        self._mine, self._theirs = self._prefix + mine, self._prefix + theirs
        self._queue = self._prefix + name
        self._loop = loop
        self._emit = emit
        self._connection: Any = None
        self._channel: Any = None
        self._up = False
        self._was_up = False  # ever
        self._is_in_use = False  # this connection is, or was
        self._closing = False
        self._pause = _FIRST_PAUSE
        self._on_closed: Callable[[], None] | None = None
        self._forbidden: BaseException | None = None  # why our channel was closed
        get_used_to_bulk()

    def open(self) -> None:
        """Connect, and go on connecting whenever the connection is lost."""
        if self._closing:
            return
        self._is_in_use = False
        self._connection = SelectConnection(
            self._parameters,
            on_open_callback=self._opened,
            on_open_error_callback=self._lost,
            on_close_callback=self._lost,
            custom_ioloop=self._loop,
        )

    def send(self, peer: str, body: bytes) -> None:
        """Publish to one peer; lost without a word while the link is down."""
        if self._up and self._channel.is_open:
            self._channel.basic_publish("", self._prefix + peer, body, mandatory=True)

    def broadcast(self, body: bytes, *, urgent: bool = False) -> None:
        """Publish to every participant of the other kind; an urgent message may come back."""
        if self._up and self._channel.is_open:
            self._channel.basic_publish(self._theirs, "", body, mandatory=urgent)

    def broadcast_to(self, pool: str, body: bytes) -> None:
        """Publish to every pod of another pool, if there is one; its failure costs nothing.

        On a channel of its own, since the broker closes the channel of who publishes where there
        is nothing, or where that is not allowed.
        """
        if not self._up or not self._connection.is_open:
            return
        exchange = f"k8sfutures.{pool}.pods"

        def opened(channel: Any) -> None:
            channel.add_on_close_callback(closed)
            # Passively: what is not there, or is another's, stays so.
            channel.exchange_declare(exchange, passive=True, callback=lambda _frame: found(channel))

        def found(channel: Any) -> None:
            channel.basic_publish(exchange, "", body)
            channel.close()

        def closed(_channel: object, reason: BaseException) -> None:
            logger.debug("the channel to exchange %s has ended: %s", exchange, reason)

        self._connection.channel(on_open_callback=opened)

    def close(self, done: Callable[[], None]) -> None:
        """Leave the broker after what is under way has been sent.

        Args:
            done: called on the loop's thread when the connection is closed.
        """
        self._closing = True
        self._up = False
        self._on_closed = done
        if self._connection is not None and self._connection.is_open:
            self._connection.close()
        elif self._connection is None or self._connection.is_closed:
            self._closed()
        # else: it is opening or closing, and `_opened` or `_lost` goes on from there

    # --- the connection's life

    def _opened(self, connection: Any) -> None:
        if self._closing:
            connection.close()
            return
        # pika reads 4 KiB at a time, and looks each time whether a frame (128 KiB, of what is
        # bulky) is complete. It has no option for that.
        connection._transport._MAX_RECV_BYTES = READ_SIZE  # noqa: SLF001
        connection.add_on_connection_blocked_callback(self._blocked)
        connection.add_on_connection_unblocked_callback(self._unblocked)
        connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        self._channel = channel
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._returned)
        # Without callbacks none of these waits for the broker's answer: it does them in order,
        # so what is asked last answers for all.
        for exchange in (self._mine, self._theirs):
            channel.exchange_declare(exchange, "fanout", durable=False, auto_delete=False)
        channel.queue_declare(self._queue, exclusive=True, auto_delete=True)
        channel.queue_bind(self._queue, self._mine)
        channel.basic_consume(
            self._queue,
            self._received,
            auto_ack=True,
            exclusive=True,
            callback=self._consuming,
        )

    def _consuming(self, _frame: object) -> None:
        self._up = self._was_up = self._is_in_use = True
        self._pause = _FIRST_PAUSE
        self._channel.add_on_cancel_callback(self._cancelled)
        self._emit(LinkUp())

    def _received(self, _channel: object, _method: object, _header: object, body: bytes) -> None:
        self._emit(Received(body))

    def _returned(self, _channel: object, method: Any, _header: object, _body: bytes) -> None:
        if method.exchange:
            self._emit(NobodyThere())
        else:
            self._emit(Unroutable(method.routing_key.removeprefix(self._prefix)))

    def _cancelled(self, _frame: object) -> None:
        logger.warning("the queue %s was deleted at the broker; reconnecting", self._queue)
        self._up = False
        self._connection.close()

    def _blocked(self, _connection: object, frame: Any) -> None:
        logger.warning(
            "the broker at %s accepts no messages (%s); calls wait until its machine has more of "
            "it",
            *(self._address.safe, frame.method.reason),
        )
        self._emit(LinkBlocked(frame.method.reason))

    def _unblocked(self, _connection: object, _frame: object) -> None:
        logger.warning("the broker at %s accepts messages again", self._address.safe)
        self._emit(LinkFree())

    def _channel_closed(self, _channel: object, reason: BaseException) -> None:
        self._up = False
        if not self._closing and self._connection.is_open:
            # Anything else can be better next time; what a user may do is up to people.
            if getattr(reason, "reply_code", None) == _ACCESS_REFUSED:
                self._forbidden = reason
            else:
                logger.warning("the broker closed our channel: %s; reconnecting", reason)
            self._connection.close()

    def _lost(self, _connection: object, reason: BaseException | str) -> None:
        self._up = False
        if self._closing:
            self._closed()
            return
        error = self._explained(self._forbidden or reason)
        # A broker that was trusted before is only being set up anew, or so one hopes.
        if isinstance(error, BrokerRefused) or (
            isinstance(error, BrokerUntrusted) and not self._was_up
        ):
            self._emit(LinkFailed(error))
            return
        self._emit(LinkDown(error))
        # Both sides lose a broker at the same moment; jitter keeps them from coming back at once.
        self._loop.call_later(self._pause * random.uniform(0.5, 1.0), self.open)  # noqa: S311
        self._pause = min(_LONGEST_PAUSE, self._pause * 2)

    def _closed(self) -> None:
        done, self._on_closed = self._on_closed, None
        if done is not None:
            done()

    def _explained(self, reason: BaseException | str) -> ExecutorBroken:
        """The user's words for what pika says, without the password."""
        if isinstance(reason, str):
            reason = ConnectionError(reason)
        cause = reason
        if reason is self._forbidden:
            return BrokerRefused(
                f"the broker at {self._address.safe} does not let user {self._address.user!r} do "
                f"what it has to: {_words(reason)}; permit it to configure, write and read "
                f"'{NAMES}' in virtual host {self._address.virtual_host!r}, or check the setting "
                "amqp_url"
            )
        for error in _chain(reason):
            if isinstance(error, _REFUSALS):
                return BrokerRefused(
                    f"the broker at {self._address.safe} refused user "
                    f"{self._address.user!r} or virtual host {self._address.virtual_host!r}: "
                    f"{_words(error)}; check the setting amqp_url"
                )
            told = refusal(error, self._address.safe, self._tls)
            if told is not None:
                told.__cause__ = error
                return told
            cause = error
        hint = ""
        if isinstance(cause, pika.exceptions.IncompatibleProtocolError):
            hint = " If that is its port for TLS, the URL begins with amqps://."
        unreachable = BrokerUnreachable(
            f"the connection to the broker at {self._address.safe} is lost: {_words(cause)}"
            if self._is_in_use
            else f"no broker at {self._address.safe}: {_words(cause)}; is RabbitMQ running there, "
            f"and is the setting amqp_url right?{hint}"
        )
        if not isinstance(cause, pika.exceptions.AMQPError):  # its words are in the text
            unreachable.__cause__ = cause
        return unreachable


def _chain(error: BaseException) -> list[BaseException]:
    """An exception of pika's and those that it wraps, outermost first."""
    found: list[BaseException] = []
    todo: list[Any] = [error]
    while todo:
        item = todo.pop(0)
        if isinstance(item, BaseException) and item not in found:
            found.append(item)
            todo += getattr(item, "exceptions", ())
            todo += (getattr(item, "exception", None), *item.args)
    return found


def _words(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class AmqpLink:
    """A `ClientLink`: an `AmqpEndpoint` and the connection thread that owns it.

    Args:
        url: the broker's.
        pool: the pool's name.
        name: of this client, unique.
        emit: called with each event, on the connection thread; must not block.
        tls: for ``amqps://``; None for what the system trusts.
    """

    def __init__(
        self,
        url: str,
        pool: str,
        name: str,
        emit: Callable[[LinkEvent], None],
        tls: Tls | None = None,
    ) -> None:
        self._emit = emit
        self._loop = new_loop()
        self._endpoint = AmqpEndpoint(
            *(url, pool, name), is_pod=False, loop=self._loop, emit=emit, tls=tls
        )
        self._outbox: deque[Callable[[], None]] = deque()
        self._flushing = False
        self._thread = threading.Thread(
            target=self._run, name=f"k8sfutures connection {name}", daemon=True
        )

    def start(self) -> None:
        """Begin to connect.

        Raises:
            RuntimeError: the interpreter can start no thread any more.
        """
        self._thread.start()

    def send(self, pod: str, body: bytes) -> None:
        """Publish to one pod."""
        self._put(lambda: self._endpoint.send(pod, body))

    def broadcast(self, body: bytes, *, urgent: bool = False) -> None:
        """Publish to every pod of the pool; an urgent message tells where there are none."""
        self._put(lambda: self._endpoint.broadcast(body, urgent=urgent))

    def broadcast_to(self, pool: str, body: bytes) -> None:
        """Publish to every pod of another pool."""
        self._put(lambda: self._endpoint.broadcast_to(pool, body))

    def close(self) -> None:
        """Send what is under way and leave the broker."""
        self._loop.add_callback_threadsafe(self._close)

    def join(self, timeout: float) -> None:
        """Wait until the connection thread has ended."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def _put(self, publish: Callable[[], None]) -> None:
        self._outbox.append(publish)
        if not self._flushing:
            self._flushing = True
            self._loop.add_callback_threadsafe(self._flush)

    # --- on the connection thread

    def _run(self) -> None:
        try:
            self._endpoint.open()
            self._loop.start()
        except BaseException as error:
            logger.exception("the connection thread failed")
            self._emit(LinkFailed(error))
            self._hang_up()
        finally:
            self._loop.close()

    def _hang_up(self) -> None:
        """After a failure: let go of the socket, if the loop still turns."""
        try:
            self._endpoint.close(self._loop.stop)
            self._loop.call_later(_HANG_UP, self._loop.stop)
            self._loop.start()
        except BaseException:
            logger.exception("cannot close the connection to the broker")

    def _flush(self) -> None:
        self._flushing = False
        outbox = self._outbox
        while outbox:
            outbox.popleft()()

    def _close(self) -> None:
        self._flush()
        self._endpoint.close(self._loop.stop)
