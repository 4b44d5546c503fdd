"""What waits at a pod for a client that does not take what is sent to it."""

import pytest

from k8sfutures.lanes import CREDIT_EVERY, WINDOW
from k8sfutures.messages import GROUP_LIMIT, INLINE_LIMIT, RESULT, Chunk, Results, Returned
from k8sfutures.worker.post import Post
from k8sfutures.worker.shared_memory import Shared


class Wire:
    """Codec and endpoint: keeps the messages that are sent."""

    def __init__(self):
        self.sent = []

    def encode(self, message, client):
        return client, message

    def send(self, peer, body):
        assert body[0] == peer
        self.sent.append(body)


@pytest.fixture
def wire():
    return Wire()


def results(number, count, size):
    return Results(number, [(number, item, RESULT, 1, bytes(size)) for item in range(count)])


def size_of(message):
    if isinstance(message, Chunk):
        return len(message.tail)
    return sum(len(outcome[4]) for outcome in message.outcomes)


def test_outcomes_that_are_large_together_do_not_fill_the_broker(wire):
    post = Post(wire, wire)
    messages = [results(number, GROUP_LIMIT // INLINE_LIMIT, INLINE_LIMIT) for number in range(30)]
    for message in messages:
        post.send("c", message)
        post.send("other", message)
    sent = [message for peer, message in wire.sent if peer == "c"]
    assert WINDOW <= sum(map(size_of, sent)) < WINDOW + GROUP_LIMIT
    while len(sent) < len(messages):
        before = len(sent)
        post.credit("c", CREDIT_EVERY)
        sent = [message for peer, message in wire.sent if peer == "c"]
        assert len(sent) == before + 1
    assert sent == messages, "in order"


def test_what_is_small_is_sent_at_once_unless_something_waits(wire):
    post = Post(wire, wire)
    small = [results(number, 3, 10) for number in range(1000)]
    for message in small:
        post.send("c", message)
    assert [message for _, message in wire.sent] == small
    body = Shared(b"s")
    body.memory = memoryview(bytes(2 * WINDOW))
    bulky = Results(2000, [(1, 0, RESULT, 1, body)])
    post.send("c", bulky)
    post.send("c", Returned([1], draining=False))
    assert not any(isinstance(message, Returned) for _, message in wire.sent)
    for _ in range(2):
        post.credit("c", WINDOW)
    assert [message for _, message in wire.sent][-2:] == [bulky, Returned([1], draining=False)]
