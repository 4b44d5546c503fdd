"""Which outcomes wait for what their calls have said, and until when."""

import threading

import pytest

from k8sfutures.messages import RESULT, STDOUT
from k8sfutures.output import Heard, Printer
from k8sfutures.postponed import NEVER, PATIENCE, Postponed, Written
from k8sfutures.scheduler_events import Arrived, Settle


class Terminal:
    """Takes text once it goes on."""

    def __init__(self):
        self.goes_on = threading.Event()
        self.text = ""

    def write(self, pieces):
        assert self.goes_on.wait(30)
        self.text += "".join(text for _, text in pieces)


@pytest.fixture
def terminal(monkeypatch):
    made = Terminal()
    monkeypatch.setattr("k8sfutures.output._write", made.write)
    return made


@pytest.fixture
def printer(terminal):
    made = Printer("test", "plain")
    yield made
    terminal.goes_on.set()
    made.close(30)


class Arriving:
    """Outcomes that come after what their calls have said; remembers what is settled."""

    def __init__(self, printer):
        self.printer = printer
        self.written = threading.Semaphore(0)
        self.told = []
        self.postponed = Postponed(printer, self._put)

    def _put(self, event):
        self.told.append(event)
        self.written.release()

    def hear(self, *calls):
        lines = [(call, 0, 0, STDOUT, b"%d\n" % call) for call in calls]
        self.printer.hear(Heard("pod", lines), lambda _pod, _call: (1, None), lambda _number: "f")

    def divide(self, *calls):
        event = Arrived("pod", [(call, 0, RESULT, 1, b"") for call in calls])
        return [
            part and [outcome[0] for outcome in part.outcomes]
            for part in self.postponed.divide(event)
        ]

    def add(self, call, now=0.0):
        settle = Settle("pod", [(call, 1, RESULT, b"")], [])
        self.postponed.add(settle, now, lambda _number: "f")
        return settle

    def wait(self):
        assert self.written.acquire(timeout=30)


@pytest.fixture
def arriving(printer):
    return Arriving(printer)


def test_calls_that_say_nothing_do_not_wait(arriving):
    assert arriving.divide(1, 2) == [[1, 2], None]
    arriving.hear(3)
    assert arriving.divide(1, 2) == [[1, 2], None]
    assert arriving.postponed.deadline == NEVER


def test_those_that_have_said_something_do(arriving):
    arriving.hear(1, 3)
    assert arriving.divide(1, 2, 3, 4) == [[2, 4], [1, 3]]
    assert arriving.divide(1) == [None, [1]]


def test_until_it_is_written(arriving, terminal):
    arriving.hear(1)
    first = arriving.add(1, now=5.0)
    arriving.hear(2)
    second = arriving.add(2, now=6.0)
    assert arriving.postponed.deadline == 5.0 + PATIENCE
    assert arriving.postponed.has(1)
    assert not arriving.postponed.expired(5.0)
    terminal.goes_on.set()
    arriving.wait()
    assert terminal.text.startswith("1\n")
    assert arriving.told[0] == Written(1)
    assert arriving.postponed.written(1) == [first]
    assert not arriving.postponed.has(1)
    arriving.wait()
    assert arriving.postponed.written(2) == [second]
    assert arriving.divide(1, 2) == [[1, 2], None]
    assert not arriving.printer.unsaid
    assert arriving.postponed.deadline == NEVER


def test_what_is_never_written_is_not_waited_for(arriving, terminal):
    """Nor is anything else, before something is written again."""
    arriving.hear(1)
    settle = arriving.add(1)
    assert arriving.postponed.expired(PATIENCE) == [settle]
    arriving.hear(2)
    assert arriving.divide(2) == [[2], None]
    terminal.goes_on.set()
    arriving.wait()
    assert arriving.postponed.written(1) == []
    terminal.goes_on.clear()
    arriving.hear(3)
    assert arriving.divide(3) == [None, [3]]


def test_what_was_dropped_is_not_waited_for(arriving, monkeypatch):
    monkeypatch.setattr("k8sfutures.output.MOST_WAITING", 1)
    arriving.hear(1)
    arriving.hear(2)
    assert arriving.divide(1, 2) == [[2], [1]]


def test_nothing_waits_where_all_ends(arriving):
    arriving.hear(1)
    settles = [arriving.add(1), arriving.add(1)]
    assert arriving.postponed.rest() == settles
    assert arriving.postponed.rest() == []


def test_names_are_known_for_as_long_as_something_waits(arriving):
    arriving.hear(1)
    arriving.add(1)
    assert arriving.postponed.names == {1: "f"}
