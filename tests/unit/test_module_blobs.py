"""Bodies that say which of the user's own modules they need."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, project

from k8sfutures import bodies
from k8sfutures.blobs import Blobs, blobs_of
from k8sfutures.bundles import pack
from k8sfutures.functions import Functions
from k8sfutures.messages import DATA, INLINE_LIMIT, MODULES
from k8sfutures.shipping import Shipper


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as one:
        one.write(helpers="def f(*args): return 1\nclass C: pass")
        yield one


def load(body: bytes) -> tuple[object, list[str]]:
    """What a body holds, and the names of the modules that were entered for it."""
    parts = {blob.id: blob for blob in blobs_of(body)}
    entered: list[str] = []

    def enter(modules: bodies.Modules) -> None:
        for number, digest in modules:
            blob = parts[number]
            assert blob.kind == MODULES
            entered.append(digest)

    return bodies.loads(
        body, lambda number: memoryview(bytearray(parts[number].data)), enter
    ), entered


def bundle(name: str, text: str) -> str:
    return pack(name, [(f"{name}.py", False, text.encode())])[0]


def test_a_body_without_modules_is_the_pickle() -> None:
    blobs = Blobs()
    assert blobs.dumps((1,))[0] == bodies.PICKLE
    assert blobs_of(blobs.dumps(pytest.fixture)) == ()


def test_a_body_names_its_modules(own: Project) -> None:
    import helpers

    blobs = Blobs()
    body = blobs.dumps(helpers.f)
    value, entered = load(body)
    assert value is helpers.f
    assert entered == [bundle("helpers", (own.folder / "helpers.py").read_text())]
    assert blobs_of(blobs.dumps([helpers.C()])) == blobs_of(body), "one blob"


def test_bulky_parts_come_after_the_modules(own: Project) -> None:
    import helpers

    data = os.urandom(INLINE_LIMIT + 1)
    body = Blobs().dumps(((data, helpers.C), {}))
    (value, entered) = load(body)
    assert value == ((data, helpers.C), {})
    assert len(entered) == 1
    assert sorted(blob.kind for blob in blobs_of(body)) == sorted([DATA, MODULES])


def test_a_callable_with_bulky_state_brings_its_modules(own: Project) -> None:
    import functools

    import helpers

    data = os.urandom(INLINE_LIMIT + 1)
    body = Blobs().dumps_call(functools.partial(helpers.f, data), (helpers.C,), {})
    ((function, argument), kwargs), entered = load(body)
    assert (function.args, argument, kwargs) == ((data,), helpers.C, {})
    assert set(entered) == {bundle("helpers", (own.folder / "helpers.py").read_text())}


def test_bulky_data_that_reads_like_a_reference_is_none(own: Project) -> None:
    import helpers

    assert helpers.f
    data = b"\x93\x8c\x07helpers" * (INLINE_LIMIT // 8)
    for value in (data, data.decode("latin-1")):
        assert load(Blobs().dumps(((value,), {})))[1] == []


def test_what_is_always_shipped_goes_with_every_body(own: Project) -> None:
    blobs = Blobs(shipper=Shipper(["helpers"]))
    assert len(load(blobs.dumps((1,)))[1]) == 1
    assert len(load(blobs.dumps(pow))[1]) == 1


def test_what_an_initializer_needs_goes_with_every_body(own: Project) -> None:
    import helpers

    blobs = Blobs()
    first = blobs.dumps_initializer((helpers.f, ()))
    assert blobs_of(blobs.dumps((1,))) == blobs_of(first) != ()
    own.write(helpers="def f(): return 'edited'")
    importlib.reload(helpers)
    assert blobs_of(blobs.dumps(helpers.f)) == blobs_of(first), "and stays as it is"


def test_a_reload_lets_go_of_the_bundles_from_before(own: Project) -> None:
    import helpers

    blobs = Blobs(kept=0)
    number = blobs_of(blobs.dumps(helpers.f))[0].id
    assert blobs.take_gone() == []
    own.write(helpers="def f(): return 'edited'")
    importlib.reload(helpers)
    assert blobs_of(blobs.dumps(helpers.f))[0].id != number
    assert blobs.take_gone() == [number]


def test_a_function_is_pickled_anew_after_a_reload(own: Project) -> None:
    import helpers

    functions = Functions(Blobs())
    first = functions.get(helpers.f)
    assert functions.get(helpers.f) is first
    plain = functions.get(pow)
    function = helpers.f
    importlib.reload(helpers)
    assert functions.get(function) is not first
    assert functions.get(pow) is plain
