"""Calls that wait for calls of their own pool: when it is told, and when not."""

from __future__ import annotations

import pytest

from k8sfutures.messages import Attach, Group, Held
from k8sfutures.nesting import RECENT, Nesting
from k8sfutures.place import Place
from k8sfutures.worker.dispatch import Dispatcher
from k8sfutures.worker.instructions import Feed, Send
from k8sfutures.worker.nested import HELD_AFTER

F = 1


class Pod:
    """A dispatcher of two CPUs, whose processes end nothing before they are told to."""

    def __init__(self):
        self.dispatcher = Dispatcher([4, 5], "pod")
        self.tokens = {}
        for cpu_id in (4, 5):
            self.dispatcher.ready(cpu_id)

    def client(self, name, calls, within=None):
        attach = Attach(("3", 1, "3"), 0, 1e9, None, None, None, None, within)
        self.dispatcher.attach(name, attach, 0.0)
        share = (9, [(call, F, 0, b"") for call in range(1, calls + 1)])
        self.dispatcher.group(name, Group(1, {F: b"f"}, [], {}, {}), share, 0.0)
        self.told()
        return self

    def told(self):
        """The clients that were told something since the last time."""
        told = []
        for one in self.dispatcher.take():
            if isinstance(one, Send) and isinstance(one.message, Held):
                told.append(one.client)
            elif isinstance(one, Feed) and one.tokens:
                self.tokens[one.cpu_id] = one.tokens[0]
        self.dispatcher.validate()
        return told

    def finish(self, cpu_id):
        self.dispatcher.frames(cpu_id, [(self.tokens[cpu_id], 0, 0, 1, b"")])
        self.told()

    def tick(self, now):
        self.dispatcher.tick(now)
        return self.told()


def test_each_that_waits_while_calls_like_its_own_hold_all_cpus():
    pod = Pod().client("outer", 2)
    pod.client("one", 1, ("pod", 4)).client("two", 1, ("pod", 5))
    assert pod.tick(1.0) == []
    assert pod.tick(1.0 + HELD_AFTER / 2) == []
    assert pod.tick(1.0 + HELD_AFTER) == ["one", "two"]
    assert pod.tick(2.0 + HELD_AFTER) == ["one", "two"], "for as long as it is so"
    pod.dispatcher.drop("one", 0)  # its call gives up, and leaves its CPU to the other
    pod.finish(4)
    assert pod.tick(3.0 + HELD_AFTER) == []


@pytest.mark.parametrize("within", [None, ("another", 5), ("pod", 4)])
def test_not_while_a_cpu_has_a_call_that_may_end(within):
    pod = Pod().client("outer", 2)
    pod.client("one", 1, ("pod", 4)).client("two", 1, within)
    for now in (1.0, 9.0, 99.0):
        assert pod.tick(now) == []


def test_nor_those_that_no_call_has_made():
    pod = Pod().client("outer", 2).client("patient", 1)
    pod.client("one", 1, ("pod", 4)).client("two", 0, ("pod", 5))
    assert pod.tick(1.0) == []
    assert pod.tick(99.0) == ["one"]


def test_one_whose_call_begins_waits_anew():
    pod = Pod().client("outer", 2)
    pod.client("one", 3, ("pod", 4)).client("two", 0, ("pod", 5))
    assert pod.tick(1.0) == []
    pod.finish(5)  # a call of the inner client runs there now
    assert pod.tick(50.0) == []
    pod.client("outer again", 1)
    pod.finish(5)
    assert pod.tick(51.0) == []


def test_one_whose_calls_take_turns_with_others_waits_anew_after_each():
    """They run and end between two looks, at each of which it waits."""
    pod = Pod().client("outer", 2)
    pod.client("one", 3, ("pod", 4)).client("two", 0, ("pod", 5))
    assert pod.tick(1.0) == []
    pod.client("outer again", 2)
    pod.finish(5)  # a call of the inner client
    pod.finish(5)  # and the next one of the other: it waits again
    assert pod.tick(1.0 + HELD_AFTER) == []
    assert pod.tick(1.0 + 2 * HELD_AFTER) == ["one"]


class TestTheClient:
    def nesting(self):
        return Nesting(Place("pod", "node", 4), "pool")

    def test_warns_once_when_all_pods_that_have_its_calls_say_so(self, caplog):
        nesting = self.nesting()
        nesting.held("pod", ["pod", "other"], 1.0)
        assert not caplog.records
        nesting.held("other", ["pod", "other"], 1.5)
        nesting.held("pod", ["pod", "other"], 2.0)
        (record,) = caplog.records
        assert record.levelname == "WARNING"
        assert "on pod pod, CPU id 4" in record.message

    def test_not_by_what_was_said_long_ago(self, caplog):
        nesting = self.nesting()
        nesting.held("other", ["pod", "other"], 1.0)
        nesting.held("pod", ["pod", "other"], 1.0 + RECENT)
        assert not caplog.records

    def test_says_where_it_is(self):
        assert self.nesting().within == ("pod", 4)
        assert Nesting(None, "pool").within is None
