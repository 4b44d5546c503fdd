"""What the user is told of a broker that goes and comes back: once each, and for how long."""

import logging

import pytest

from k8sfutures.errors import BrokerUnreachable
from k8sfutures.outages import QUIET, Outages

ADDRESS = "amqp://me@here:5672/%2F"
LOST = BrokerUnreachable(f"the connection to the broker at {ADDRESS} is lost: gone")


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.WARNING)
    return lambda: [one.getMessage() for one in caplog.records]


@pytest.fixture
def outages(told):
    outages = Outages(timeout=30.0)
    outages.connecting(ADDRESS, 100.0)
    return outages


def test_a_start_that_works_at_once_is_not_worth_a_word(outages, told):
    outages.up(100.5)
    assert told() == []


def test_pods_are_heard_while_the_broker_is_there_and_takes_messages(outages):
    outages.up(100.5)
    assert outages.hears
    outages.blocked = "memory"
    assert not outages.hears
    outages.blocked = None
    outages.down(LOST, 200.0)
    assert not outages.hears


def test_each_time_that_it_is_away_is_told_once_and_so_is_its_return(outages, told):
    outages.up(100.5)
    for away in (200.0, 300.0):
        assert outages.down(LOST, away)
        assert not outages.down(LOST, away + 1)  # an attempt that has failed
        assert outages.error is LOST
        outages.up(away + 3.25)
        assert outages.error is None
    back = f"the connection to the broker at {ADDRESS} is back after 3.2 s"
    assert told() == [f"{LOST} (trying again)", back] * 2


def test_a_start_that_takes_long_is_told_and_its_end_is(outages, told):
    assert outages.down(LOST, 100.1)
    outages.down(LOST, 100.0 + QUIET)
    outages.down(LOST, 108.0)
    outages.up(112.0)
    assert told() == [
        f"waiting for the broker at {ADDRESS}, for at most startup_timeout=30 s",
        f"the connection to the broker at {ADDRESS} is there after 12 s",
    ]


def test_a_start_that_fails_for_a_moment_is_not_worth_a_word(outages, told):
    outages.down(LOST, 100.1)
    outages.up(100.3)
    assert told() == []


def test_calls_that_run_again_are_told_once_for_each_time(outages, told):
    outages.up(100.0)
    for away in (200.0, 300.0):
        outages.down(LOST, away)
        outages.up(away + 30)
        outages.forgotten("pod-none", 0)
        outages.forgotten("pod-a", 3)
        outages.forgotten("pod-b", 2)
    again = [text for text in told() if "pod-" in text]
    assert len(again) == 2
    assert "pod pod-a has not heard from this client" in again[0]
    assert "3 calls that it had run again" in again[0]
    assert "what they have printed may be lost" in again[0]
