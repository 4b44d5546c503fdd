"""Classes that travel with data are pickled once, and anew when they must be."""

from __future__ import annotations

import sys
import types

import pytest

from k8sfutures import units
from k8sfutures.blobs import Blobs
from k8sfutures.functions import Functions
from k8sfutures.scopes import current
from k8sfutures.serialization import dumps, loads
from tests.unit.test_scopes import Elsewhere

SOURCE = """
import enum

number = 1

class Part:
    def number(self):
        return number

class Whole:
    size = 1
    names = ["a"]

    def make(self):
        return Part()

class Colour(enum.Enum):
    RED = 1
"""


@pytest.fixture
def main(monkeypatch):
    module = types.ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    exec(SOURCE, vars(module))
    return module


@pytest.fixture
def made(monkeypatch):
    """How often a class has been pickled."""
    counts = []
    real = units.new_id

    def new_id():
        counts.append(1)
        return real()

    monkeypatch.setattr(units, "new_id", new_id)
    return counts


def test_once(main, made):
    assert dumps(main.Whole()) == dumps(main.Whole())
    assert len(made) == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda main: setattr(main.Whole, "size", 2),
        lambda main: setattr(main.Whole, "more", 2),
        lambda main: delattr(main.Whole, "size"),
        lambda main: setattr(main, "number", 2),
        lambda main: setattr(main.Part, "number", 2),
        lambda main: delattr(main, "number"),
    ],
    ids=["attribute", "new attribute", "deleted", "global", "other class", "deleted global"],
)
def test_anew_when_what_it_reads_is_another(main, made, change):
    dumps(main.Whole())
    change(main)
    dumps(main.Whole())
    dumps(main.Whole())
    assert len(made) == 2


def test_a_change_in_place_is_seen_after_a_function_was_pickled(main, made, monkeypatch):
    data = [dumps(main.Whole())]
    main.Whole.names.append("b")
    data.append(dumps(main.Whole()))
    Functions(Blobs()).once(len)
    data.append(dumps(main.Whole()))
    assert len(made) == 2
    with Elsewhere(monkeypatch):
        assert [loads(one).names for one in data[:2]] == [["a"], ["a"]]
        assert loads(data[2]).names == ["a", "b"]


def test_it_is_loaded_once_and_goes_back_as_it_came(main, monkeypatch):
    data = dumps(main.Whole())
    with Elsewhere(monkeypatch) as scope:
        whole = loads(data)
        (unit,) = scope.units.values()
        type(whole).size = 5
        assert loads(data).size == 5, "what a call has made of it stays"
        assert dumps(whole) == data
        assert list(scope.units.values()) == [unit]
        part = whole.make()
        back = dumps([part, whole])
    part, whole = loads(back)
    assert (type(part), type(whole)) == (main.Part, main.Whole)
    assert main.Whole.size == 1


def test_a_class_that_is_in_the_unit_of_another_has_none(main, made, monkeypatch):
    data = dumps([main.Whole(), main.Part(), main.Colour.RED])
    assert len(made) == 2
    with Elsewhere(monkeypatch):
        whole, part, _ = loads(data)
        assert type(whole.make()) is type(part)


def test_versions_take_turns(main, monkeypatch):
    first = dumps(main.Whole())
    main.Whole.size = 2
    second = dumps(main.Whole())
    with Elsewhere(monkeypatch):
        assert [loads(one).size for one in (first, second, first, second)] == [1, 2, 1, 2]


def test_a_class_that_was_defined_anew_is_let_go(main):
    dumps(main.Whole())
    old = main.Whole
    exec("class Whole: pass", vars(main))
    dumps(main.Whole())
    assert all(known.cls is not old for known in current().made.values())
    assert type(loads(dumps(old()))) is old


def test_a_local_class_has_none(main, made):
    class Local:
        pass

    dumps(Local())
    assert not made
