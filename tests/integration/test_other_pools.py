"""What one pool's client says to the pods of another: heard if it can be, harmless if not."""

from __future__ import annotations

import contextlib
import queue
import uuid
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from k8sfutures.amqp import AmqpLink
from k8sfutures.broker import ensure_local_broker
from k8sfutures.link import LinkUp, NobodyThere

pytestmark = [pytest.mark.broker, pytest.mark.timeout(60)]


@pytest.fixture
def url(cache: Any) -> str:
    return ensure_local_broker()


@pytest.fixture
def channel(url: str) -> Iterator[Any]:
    """Another participant's, who sees what arrives."""
    with contextlib.closing(pika.BlockingConnection(pika.URLParameters(url))) as connection:
        yield connection.channel()


class Client:
    """A link of a pool without pods, and what it has heard."""

    def __init__(self, url: str) -> None:
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.link = AmqpLink(url, f"mine-{uuid.uuid4().hex}", "client-1", self.heard.put)
        self.link.start()
        assert isinstance(self.heard.get(timeout=10), LinkUp)

    def answers(self) -> bool:
        """Whether the link still works, and has worked all the time: nobody is there to hear it."""
        self.link.broadcast(b"x", urgent=True)
        return isinstance(self.heard.get(timeout=10), NobodyThere)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    client = Client(url)
    yield client
    client.link.close()
    client.link.join(10)


def hears(channel: Any, name: str) -> str:
    """A queue that gets what is published to an exchange."""
    queue_name = str(channel.queue_declare("", exclusive=True).method.queue)
    channel.queue_bind(queue_name, name, routing_key="")
    return queue_name


def received(channel: Any, queue_name: str) -> list[bytes]:
    """What has arrived within a second of quiet."""
    found = []
    for method, _, body in channel.consume(queue_name, auto_ack=True, inactivity_timeout=1):
        if method is None:
            break
        found.append(body)
    channel.cancel()
    return found


def test_the_pods_of_another_pool_hear_it_each_time(client: Client, channel: Any) -> None:
    pool = f"theirs-{uuid.uuid4().hex}"
    channel.exchange_declare(f"k8sfutures.{pool}.pods", "fanout", durable=False)
    queue_name = hears(channel, f"k8sfutures.{pool}.pods")
    for number in range(3):
        client.link.broadcast_to(pool, b"%d" % number)
    assert client.answers()
    assert sorted(received(channel, queue_name)) == [b"0", b"1", b"2"]


def test_where_there_is_no_such_pool_the_link_goes_on_and_nothing_is_made(
    client: Client, channel: Any
) -> None:
    pool = f"theirs-{uuid.uuid4().hex}"
    for _ in range(3):
        client.link.broadcast_to(pool, b"x")
        assert client.answers()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="no exchange"):
        channel.exchange_declare(f"k8sfutures.{pool}.pods", passive=True)


def test_an_exchange_of_that_name_and_another_type_does_not_end_the_link(
    client: Client, channel: Any
) -> None:
    pool = f"theirs-{uuid.uuid4().hex}"
    name = f"k8sfutures.{pool}.pods"
    channel.exchange_declare(name, "direct", durable=True)
    try:
        for _ in range(3):
            client.link.broadcast_to(pool, b"x")
            assert client.answers()
    finally:
        channel.exchange_delete(name)


def test_an_internal_exchange_that_refuses_what_is_published_does_not_end_the_link(
    client: Client, channel: Any
) -> None:
    pool = f"theirs-{uuid.uuid4().hex}"
    name = f"k8sfutures.{pool}.pods"
    channel.exchange_declare(name, "fanout", internal=True)
    try:
        for _ in range(3):
            client.link.broadcast_to(pool, b"x")
            assert client.answers()
    finally:
        channel.exchange_delete(name)


def test_what_is_said_just_before_the_link_closes_does_not_keep_it(client: Client) -> None:
    client.link.broadcast_to("theirs", b"x")
    client.link.close()
    client.link.join(10)
    assert not client.link._thread.is_alive()
