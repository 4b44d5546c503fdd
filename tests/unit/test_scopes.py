"""Which definition is which, at either end."""

from __future__ import annotations

import functools
import gc
import pickle
import types
import weakref

import pytest

from k8sfutures.definitions import DefinitionsPickler
from k8sfutures.living import IdentityMap
from k8sfutures.scopes import Scope, current
from k8sfutures.serialization import dumps, loads

SOURCE = """
import functools, threading

number = 1
table = {"a": 1}
nothing = object()
alias = [table]

class Thing:
    size = 1
    names = ["a"]

    def look(self):
        return self.size, number

class Other(Thing):
    pass

def read():
    return number, dict(table), Thing.size

def write(value):
    global number
    number = value
    table["a"] = value
    Thing.size = value

def is_nothing(it=nothing):
    return it is nothing

def is_alias():
    return alias[0] is table
"""


@pytest.fixture
def main(monkeypatch):
    """A module of the user's, that is `__main__`."""
    module = types.ModuleType("__main__")
    monkeypatch.setitem(__import__("sys").modules, "__main__", module)
    exec(SOURCE, vars(module))
    return module


class Elsewhere:
    """A process that has never seen it: what is native here is not, there."""

    def __init__(self, monkeypatch):
        self.scope = Scope()
        self._monkeypatch = monkeypatch

    def __enter__(self):
        import k8sfutures.scopes as module

        self._context = self._monkeypatch.context()
        patch = self._context.__enter__()
        patch.setattr(module, "_natives", type(module._natives)())
        patch.setattr(module, "_native_namespaces", {})
        patch.setattr(module, "_identities", IdentityMap())
        patch.setattr(module, "_current", self.scope)
        return self.scope

    def __exit__(self, *error):
        self._context.__exit__(*error)


@pytest.fixture
def elsewhere(monkeypatch):
    return Elsewhere(monkeypatch)


def test_what_is_native_comes_back_as_itself(main):
    for it in (main.Thing, main.read, main.is_nothing):
        assert loads(dumps(it)) is it
    size, look = main.Thing.size, main.Thing.look
    data = dumps(main.Thing())
    main.Thing.size = 5
    assert type(loads(data)) is main.Thing
    assert (main.Thing.size, main.Thing.look) == (5, look)
    assert size == 1


def test_a_function_comes_back_to_its_own_globals(main):
    function = loads(dumps(lambda: main.number))
    assert function() == 1
    exec("f = lambda: number", vars(main))
    copy = loads(dumps(main.f))
    main.number = 2
    assert copy() == 2


def test_one_class_in_a_process_whatever_it_came_with(main, elsewhere):
    data = [dumps(main.Thing()), dumps(main.Other()), dumps(main.Thing)]
    with elsewhere:
        thing, other, cls = map(loads, data)
        assert type(thing) is cls is type(other).__base__
        assert isinstance(other, cls)


def test_functions_share_their_globals(main, elsewhere):
    read, write = dumps(main.read), dumps(main.write)
    with elsewhere:
        write, read = loads(write), loads(read)
        write(5)
        assert read() == (5, {"a": 5}, 5)
    assert main.read() == (1, {"a": 1}, 1)


def test_what_calls_have_made_stays_while_it_is_unchanged_where_it_is_from(main, elsewhere):
    first = dumps(main.write)
    again = dumps(main.read), dumps(main.Thing())
    main.number, main.table["a"], main.Thing.size = 7, 8, 9
    changed = dumps(main.read)
    with elsewhere:
        loads(first)(5)
        read, thing = map(loads, again)
        assert read() == (5, {"a": 5}, 5)
        assert thing.look() == (5, 5)
        assert loads(changed)() == (7, {"a": 8}, 9)
        assert thing.look() == (9, 7)


def test_a_function_finds_again_what_it_was_pickled_with(main, elsewhere):
    first = dumps(main.read)
    main.number, main.Thing.size = 2, 3
    second = dumps(main.read)
    with elsewhere as scope:
        one, two = (scope.load(functools.partial(pickle.loads, data)) for data in (first, second))
        for _ in range(2):
            assert scope.use(one)() == (1, {"a": 1}, 1)
            assert scope.use(two)() == (2, {"a": 1}, 3)
        generation = scope.generation
        scope.use(two)
        assert scope.generation == generation, "nothing is looked at twice"


def test_attributes_that_are_gone_go(main, elsewhere):
    first = dumps(main.Thing)
    del main.Thing.names
    second = dumps(main.Thing)
    with elsewhere:
        cls = loads(first)
        assert cls.names == ["a"]
        loads(second)
        assert not hasattr(cls, "names")


def test_a_global_and_a_default_are_one_object(main, elsewhere):
    exec("def uses(): return nothing", vars(main))
    first, second = dumps(main.uses), dumps(main.is_nothing)
    with elsewhere:
        loads(first)
        assert loads(second)()


def test_globals_that_refer_to_each_other_come_together(main, elsewhere):
    first, second = dumps(main.read), dumps(main.is_alias)
    with elsewhere:
        loads(first)
        assert loads(second)()


def test_scopes_do_not_meet(main, monkeypatch):
    data = dumps(main.Thing)
    with Elsewhere(monkeypatch):
        one = loads(data)
    with Elsewhere(monkeypatch):
        assert loads(data) is not one


def test_a_class_that_is_made_elsewhere_goes_when_nobody_has_it(main):
    with_class = dumps(type("Local", (), {"__module__": "__main__"}))
    gc.collect()
    reference = weakref.ref(loads(with_class))
    gc.collect()
    assert reference() is None


def test_main_is_the_module_of_the_client_whose_call_runs(main, monkeypatch):
    import sys

    data = dumps(main.read)
    before = current()
    with Elsewhere(monkeypatch) as scope:
        read = scope.load(functools.partial(pickle.loads, data)).value
        assert sys.modules["__main__"].__dict__ is read.__globals__
        assert pickle.loads(pickle.dumps(read)) is read
        before.enter()
        assert sys.modules["__main__"].__dict__ is not read.__globals__
        scope.enter()
        assert sys.modules["__main__"].__dict__ is read.__globals__
        scope.leave()
        assert current() is before


def test_an_identity_map_asks_nothing_of_its_keys():
    class Hostile:
        __hash__ = None

        def __eq__(self, other):
            raise AssertionError

    keys = [Hostile(), Hostile()]
    known = IdentityMap()
    for key in keys:
        known.put(key, id(key))
    assert [known.get(key) for key in keys] == list(map(id, keys))
    assert known.get(5) is None
    del key
    keys.clear()
    gc.collect()
    assert not known._entries


def test_the_pickler_takes_buffers_out_of_band():
    import io

    import numpy as np

    buffers = []
    DefinitionsPickler(io.BytesIO(), 5, buffers.append).dump(np.arange(1000))
    assert len(buffers) == 1
