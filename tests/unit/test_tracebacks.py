"""Tracebacks that have travelled: what `traceback`, `pdb` and `linecache` make of them."""

import io
import linecache
import pdb  # noqa: T100
import pickle
import sys
import traceback
import types

import pytest

from k8sfutures import pod_files, tracebacks
from k8sfutures.exceptions import NOTE, Raised, dumps_exception, say_where
from k8sfutures.messages import EXCEPTION
from k8sfutures.outcomes import failure_of, stand_alone
from k8sfutures.place import Place
from k8sfutures.tracebacks import Words, entries, rebuilt, rows_of

PLACE = Place("pod-1", "node-a", 3)


def inner(x, label="text"):
    values = [1, 2, 3]
    return (
        label,
        values[x / (x - 5)],
    )


def outer(x):
    return inner(x)


def raised(function, *args):
    try:
        function(*args)
    except BaseException as error:
        return error
    raise AssertionError("it did not raise")


def travelled(error):
    """As it comes to the client, without the frame of `raised`."""
    error.__traceback__ = error.__traceback__.tb_next
    return failure_of(EXCEPTION, dumps_exception(error, PLACE), "outer", 12)


def printed(error):
    return "".join(traceback.format_exception(error))


def test_it_is_printed_as_the_local_one():
    local = raised(outer, 5)
    here = printed(local.with_traceback(local.__traceback__.tb_next))
    there = printed(travelled(raised(outer, 5)))
    note = f"{NOTE}call 12 of outer on pod pod-1, node node-a, CPU id 3\n"
    assert there == here + note
    assert "~~^~~~~~~~~" in there, "columns"


def test_excepthook_prints_it_too(capsys):
    error = travelled(raised(outer, 5))
    sys.__excepthook__(type(error), error, error.__traceback__)
    assert capsys.readouterr().err == printed(error)


def test_it_travels_on_as_it_came():
    once = travelled(raised(outer, 5))
    before = printed(once)
    again = pickle.loads(dumps_exception(once, Place("pod-2", "node-b", 4))).error
    assert printed(again) == before
    assert again.k8s_pod == "pod-1"


def test_frames_have_no_callers_and_their_variables_are_words():
    error = travelled(raised(outer, 5))
    frames = [entry.tb_frame for entry in entries(error.__traceback__)]
    assert [frame.f_code.co_name for frame in frames] == ["outer", "inner"]
    assert all(frame.f_back is None for frame in frames)
    variables = frames[1].f_locals
    assert {name: repr(value) for name, value in variables.items()} == {
        "x": "5",
        "label": "'text'",
        "values": "[1, 2, 3]",
    }
    assert {type(value) for value in variables.values()} == {Words}
    assert [frame.f_lineno for frame in frames] == [
        entry.tb_lineno for entry in entries(error.__traceback__)
    ]


def test_a_post_mortem_debugger_works():
    error = travelled(raised(outer, 5))
    out = io.StringIO()
    debugger = pdb.Pdb(
        stdin=io.StringIO("where\np label, x\nlonglist\nup\nargs\nquit\n"), stdout=out
    )
    debugger.reset()
    debugger.interaction(None, error.__traceback__)
    text = out.getvalue()
    assert "('text', 5)" in text
    assert "->\t        values[x / (x - 5)]," in text
    assert "def inner(x, label=" in text
    assert "(Pdb) x = 5" in text


class Exploding:
    def __repr__(self):
        raise AssertionError("nobody's code runs for a description")

    __str__ = __repr__

    def __getattr__(self, name):
        raise AssertionError(name)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (None, "None"),
        ("x" * 1000, None),
        (b"x" * 1000, None),
        ([Exploding()] * 1000, None),
        ({"k": Exploding()}, "{'k': <tests.unit.test_tracebacks.Exploding object>}"),
        (Exploding(), "<tests.unit.test_tracebacks.Exploding object>"),
        (10**5000, "<int: ValueError>"),
        (inner, "<function inner>"),
        (io, "<module io>"),
        (Words("seen before"), "seen before"),
    ],
    ids=[*("int", "None", "str", "bytes", "list", "dict", "object", "digits"), "f", "io", "words"],
)
def test_descriptions_are_short_and_run_nobodys_code(value, text):
    def fail(value):
        raise ValueError

    described = dict(rows_of(raised(fail, value).__traceback__)[0][1][-1])["value"]
    assert len(described) < 600
    assert text is None or described == text


def module_of(tmp_path, name, source):
    """A module that is imported here, and its file gone or another afterwards."""
    path = tmp_path / f"{name}.py"
    path.write_text(source)
    module = types.ModuleType(name)
    module.__file__ = str(path)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module, path


@pytest.fixture
def on_the_pod(tmp_path, monkeypatch):
    """Raise in a module that is imported on the pod, whose file is another one at the client."""

    def raise_there(name, source, here):
        module, path = module_of(tmp_path, name, source)
        monkeypatch.setitem(sys.modules, name, module)
        error = raised(module.fail)
        error.__traceback__ = error.__traceback__.tb_next
        data = dumps_exception(error, PLACE)
        tracebacks._told.clear()
        linecache.clearcache()
        path.unlink() if here is None else path.write_text(here)
        return failure_of(EXCEPTION, data, "fail", 1)

    return raise_there


SOURCE = "def fail():\n    there = 1\n    raise ValueError('there')  # {}\n"


def test_a_file_that_is_only_on_the_pod_shows_its_lines(on_the_pod):
    text = printed(on_the_pod("only_there", SOURCE.format("of the pod"), None))
    assert "only_there.py\", line 3, in fail\n    raise ValueError('there')  # of the pod" in text


def test_of_a_file_that_is_another_one_here_the_pods_lines_are_shown(on_the_pod):
    here = SOURCE.format("of the client")
    error = on_the_pod("differs", SOURCE.format("of the pod"), here)
    text = printed(error)
    assert 'differs.py (pod)", line 3, in fail' in text
    assert "# of the pod" in text
    name = error.__traceback__.tb_frame.f_code.co_filename.removesuffix(" (pod)")
    assert linecache.getline(name, 3).endswith("# of the client\n")


def test_of_the_same_file_nothing_is_told(on_the_pod):
    source = SOURCE.format("the same")
    assert 'same.py", line 3' in printed(on_the_pod("same", source, source))
    assert not tracebacks._told


@pytest.fixture
def nothing_told():
    yield
    for name in tracebacks._told:
        linecache.cache.pop(name, None)
    tracebacks._told.clear()


def row_of(name):
    return (name, "f", "f", 1, 1, None, None, None, "m", ())


def test_pods_may_have_different_versions_of_a_file(nothing_told):
    name = "/pod/versions.py"
    shown = []
    for line in ("one", "two", "one", "three"):
        traceback_ = rebuilt([row_of(name)], {name: {1: line}})
        shown.append(traceback_.tb_frame.f_code.co_filename)
    assert shown == [name, f"{name} (pod)", name, f"{name} (pod, 2)"]
    linecache.checkcache()
    assert [linecache.getline(one, 1) for one in shown] == ["one\n", "two\n", "one\n", "three\n"]


def test_code_that_came_by_value_brings_no_lines():
    namespace = {"__name__": "__main__"}
    exec(compile("def fail():\n    raise ValueError\n", "/client/app.py", "exec"), namespace)
    rows, sources = rows_of(raised(namespace["fail"]).__traceback__)
    assert rows[-1][0] == "/client/app.py"
    assert "/client/app.py" not in sources


def test_a_cell_of_a_notebook_is_shown_where_it_was_written(monkeypatch):
    name = "<ipython-input-7>"
    source = "def cell():\n    raise ValueError('in a cell')\n"
    namespace = {"__name__": "__main__"}
    exec(compile(source, name, "exec"), namespace)
    error = travelled(raised(namespace["cell"]))
    monkeypatch.setitem(linecache.cache, name, (1, None, source.splitlines(True), name))
    assert "    raise ValueError('in a cell')" in printed(error)


def test_files_that_have_another_name_on_the_pod(nothing_told, monkeypatch, tmp_path):
    path = tmp_path / "helpers.py"
    path.write_text("the line\n")
    monkeypatch.setattr(pod_files._finder, "at_client", None)
    pod_files.find_files_with(lambda name: name.replace("/pod/unpacked", str(tmp_path)))

    def shown(line):
        there = "/pod/unpacked/helpers.py"
        return rebuilt([row_of(there)], {there: {1: line}}).tb_frame.f_code.co_filename

    assert shown("the line") == str(path)
    assert shown("an older line") == f"{path} (pod)"


def test_what_linecache_is_told_is_bounded(nothing_told):
    for number in range(2 * tracebacks.MOST_FILES):
        name = f"/pod/{number}.py"
        rebuilt([row_of(name)], {name: {1: "line"}})
    assert len(tracebacks._told) == tracebacks.MOST_FILES
    assert "/pod/0.py" not in linecache.cache
    assert linecache.getline(name, 1) == "line\n"


class TestNotes:
    def test_one_exception_has_one_and_its_cause_none(self):
        def fail():
            raise KeyError("second") from ValueError("first")

        error = travelled(raised(fail))
        assert error.__notes__ == [f"{NOTE}call 12 of outer on pod pod-1, node node-a, CPU id 3"]
        assert not hasattr(error.__cause__, "__notes__")
        assert str(error) == "'second'"

    def test_in_a_map_it_names_the_item(self):
        data = dumps_exception(ValueError(), PLACE)
        error = failure_of(EXCEPTION, data, "f", index=7)
        assert error.__notes__[0].startswith(f"{NOTE}item 7 of the map of f on pod pod-1")
        assert (error.k8s_call, error.k8s_pod, error.k8s_node, error.k8s_cpu_id) == (
            *("f[7]", "pod-1", "node-a"),
            3,
        )

    def test_it_survives_pickling(self):
        error = travelled(raised(outer, 5))
        assert pickle.loads(pickle.dumps(error)).__notes__ == error.__notes__

    def test_a_call_within_a_call_has_the_innermost(self):
        error = travelled(raised(outer, 5))
        say_where(error, "g#1", "call 1 of g", Place("pod-2", "node-b", 0))
        assert len(error.__notes__) == 1
        assert error.k8s_pod == "pod-1"

    def test_an_exception_that_takes_none_is_left_alone(self):
        class Stubborn(Exception):
            def __setattr__(self, name, value):
                raise TypeError(name)

        error = Stubborn("text")
        say_where(error, "f#1", "call 1 of f", PLACE)
        assert str(error) == "text"

    def test_what_travels_says_where(self):
        what = pickle.loads(dumps_exception(ValueError("text"), PLACE))
        assert type(what) is Raised
        assert what.place == PLACE


def test_an_exception_of_this_process_keeps_nothing_alive():
    error = raised(outer, 5)
    before = printed(error)
    stand_alone(error)
    assert printed(error) == before
    for entry in entries(error.__traceback__):
        assert entry.tb_frame.f_back is None
        assert entry.tb_frame.f_locals == {}


def test_long_lines_and_far_columns():
    source = "\n" * 5000 + "def f():\n" + "\n" * 3000 + f"    return [{'1, ' * 500}1 / 0]\n"
    namespace = {"__name__": "far"}
    exec(compile(source, "<far>", "exec"), namespace)
    error = raised(namespace["f"])
    rows, _ = rows_of(error.__traceback__)
    entry = list(entries(rebuilt(rows, {})))[-1]
    original = list(entries(error.__traceback__))[-1]
    assert entry.tb_lineno == entry.tb_frame.f_lineno == 8002
    positions = list(entry.tb_frame.f_code.co_positions())
    wanted = list(original.tb_frame.f_code.co_positions())[original.tb_lasti // 2]
    assert set(positions) == {wanted}
    assert entry.tb_frame.f_code.co_firstlineno == 5001
