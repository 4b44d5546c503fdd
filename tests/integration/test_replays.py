"""Messages that are captured on their way, and published once more: nothing runs twice."""

from __future__ import annotations

import random
import time

import pytest
from eavesdropper import Captured, Eavesdropper
from journal import note, wait_for_word

from k8sfutures.broker import ensure_local_broker

pytestmark = [pytest.mark.broker, pytest.mark.timeout(90)]


@pytest.fixture
def eavesdropper(cache):
    running = Eavesdropper(ensure_local_broker())
    yield running
    running.close()


@pytest.fixture
def mark(journal):
    """A call that leaves a line for each time that it runs, and what has been left."""
    address = journal.address

    def run(number):
        note(address, str(number))
        return number

    return run, lambda: sorted(map(int, journal.lines()))


def wait_until(condition, what):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def to_pods(messages):
    return [one for one in messages if one.exchange.endswith(".pods") or ".pod-" in one.key]


def log_of(rabbitmq):
    return "".join(
        path.read_text() for path in rabbitmq.cache.glob(f"pods/{rabbitmq.pool}@*/*.log")
    )


def test_all_that_a_client_sent_is_sent_again_after_it_left(rabbitmq, eavesdropper, mark):
    run, runs = mark
    with rabbitmq.executor(amqp_url=eavesdropper.url) as ex:
        assert list(ex.map(run, range(20))) == list(range(20))
        assert ex.submit(run, 20).result() == 20
    captured = to_pods(eavesdropper.captured)
    assert {one.exchange.rpartition(".")[2] for one in captured} == {"", "pods"}
    (pid,) = rabbitmq.pids().values()
    # Twice: the pod takes the first Attach for a client that has come, and forgets it.
    eavesdropper.publish(*captured, *captured)
    with rabbitmq.executor(amqp_url=eavesdropper.url) as ex:
        assert [ex.submit(run, n).result() for n in (100, 101)] == [100, 101]
    assert list(rabbitmq.pids().values()) == [pid], "the same pod"
    assert runs() == [*range(21), 100, 101]
    assert "for another receiver, or for us as we were" in log_of(rabbitmq)


def test_each_message_is_sent_twice_while_calls_run(rabbitmq, eavesdropper, mark):
    run, runs = mark
    with rabbitmq.executor(amqp_url=eavesdropper.url) as ex:
        for n in range(15):
            before = len(eavesdropper.captured)
            future = ex.submit(run, n)
            wait_until(lambda: len(eavesdropper.captured) > before, "no message")  # noqa: B023
            eavesdropper.publish(*eavesdropper.captured[-10:])
            assert future.result(20) == n
    assert runs() == list(range(15))
    assert "repeats or precedes an earlier message" in log_of(rabbitmq)


def test_work_for_one_pod_is_not_done_by_another(rabbitmq, eavesdropper, mark):
    run, runs = mark
    with rabbitmq.executor(amqp_url=eavesdropper.url, worker_processes=1) as ex:
        wait_until(lambda: ex._manager.statistics().slots == rabbitmq.slots, "not all pods")
        both = [ex.submit(time.sleep, 0.3) for _ in range(rabbitmq.slots)]
        list(ex.map(run, range(8)))
        assert [one.result() for one in both] == [None] * rabbitmq.slots
        pods = list(rabbitmq.pids())
        captured = to_pods(eavesdropper.captured)
        keys = {one.key.rpartition(".")[2]: one.key for one in captured if one.key}
        assert set(keys) == set(pods)
        for key in keys.values():
            others = [one._replace(exchange="", key=key) for one in captured if one.key != key]
            eavesdropper.publish(*others)
        list(ex.map(run, range(100, 108)))
    assert runs() == [*range(8), *range(100, 108)]


def test_outcomes_of_one_client_are_none_for_another(rabbitmq, eavesdropper, journal):
    def wait(address):
        wait_for_word(address)
        return "its own"

    with (
        rabbitmq.executor(amqp_url=eavesdropper.url) as waiting,
        rabbitmq.executor(amqp_url=eavesdropper.url) as other,
    ):
        future = waiting.submit(wait, journal.address)
        wait_until(lambda: waiting._manager.statistics().in_flight, "no pod")
        assert other.submit(pow, 2, 3).result() == 8, "also the first call of its client"
        names = [one._manager._session._plan.name for one in (waiting, other)]
        answers = [one for one in eavesdropper.captured if one.key.endswith(names[1])]
        eavesdropper.publish(
            *(one._replace(key=one.key.replace(names[1], names[0])) for one in answers)
        )
        assert waiting.submit(pow, 4, 3).result() == 64, "what was published has been looked at"
        assert not future.done()
        journal.give_word()
        assert future.result(20) == "its own"


def test_altered_messages_are_dropped(rabbitmq, eavesdropper, mark):
    run, runs = mark
    chance = random.Random(5)

    def altered(message: Captured) -> Captured:
        body = bytearray(message.body)
        body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        return message._replace(body=bytes(body))

    with rabbitmq.executor(amqp_url=eavesdropper.url) as ex:
        list(ex.map(run, range(4)))
        eavesdropper.publish(*(altered(one) for one in eavesdropper.captured * 20))
        assert list(ex.map(run, range(4, 8))) == list(range(4, 8))
    assert runs() == list(range(8))
    log = log_of(rabbitmq)
    assert "the signature does not match this pool's key" in log
    assert "Traceback" not in log
