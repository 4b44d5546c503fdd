"""The CPU process that is kept ready: made when nothing waits, and replaced when it is gone."""

import os
import socket

import msgpack
import pytest

from k8sfutures.place import Place
from k8sfutures.worker.frames import ADOPT
from k8sfutures.worker.spare import NOWHERE, Spare


class Loop:
    def __init__(self):
        self.later = []

    def call_later(self, _seconds, function):
        self.later.append(function)

    def turn(self):
        later, self.later = self.later, []
        for function in later:
            function()


class Zygote:
    """Keeps the other ends of the channels, as the process would."""

    def __init__(self):
        self.asked = []
        self.streams = []

    def spawn(self, channels):
        self.asked.append(channels.place)
        data = channels.hand_over()[0]
        self.streams.append(socket.socket(fileno=os.dup(data)))
        channels.handed_over()


@pytest.fixture
def zygote():
    made = Zygote()
    yield made
    for stream in made.streams:
        stream.close()


@pytest.fixture
def loop():
    return Loop()


@pytest.fixture
def spare(zygote, loop):
    made = Spare(zygote, loop, lambda cpu_id: Place("pod", "node", cpu_id))
    yield made
    made.close()


def test_one_is_made_and_no_more(spare, zygote, loop):
    spare.prepare()
    spare.prepare()
    assert zygote.asked == []
    loop.turn()
    spare.prepare()
    loop.turn()
    assert zygote.asked == [Place("pod", "node", NOWHERE)]


def test_it_is_not_there_before_it_runs(spare, loop):
    assert spare.take(3) is None
    spare.prepare()
    loop.turn()
    assert spare.take(3) is None
    spare.started(77)
    channels = spare.take(3)
    channels.close()


def test_it_is_told_where_it_is_and_another_is_made(spare, zygote, loop):
    spare.prepare()
    loop.turn()
    spare.started(77)
    channels = spare.take(3)
    assert (channels.pid, channels.cpu_id, channels.place) == (77, 3, Place("pod", "node", 3))
    assert msgpack.unpackb(zygote.streams[0].recv(100)) == [ADOPT, "pod", "node", 3]
    channels.close()
    assert spare.take(3) is None
    loop.turn()
    assert len(zygote.asked) == 2


def test_one_that_has_died_is_replaced(spare, zygote, loop):
    spare.prepare()
    loop.turn()
    spare.started(77)
    assert not spare.ended(78)
    assert spare.ended(77)
    assert spare.take(3) is None
    loop.turn()
    assert len(zygote.asked) == 2


def test_after_the_end_none_is_made(spare, zygote, loop):
    spare.prepare()
    spare.close()
    loop.turn()
    assert zygote.asked == []
