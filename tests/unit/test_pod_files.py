"""Names of a client's files as pods have them, in what the client is told."""

from __future__ import annotations

import logging
import pickle
import warnings

import msgpack
import pytest

from k8sfutures import pod_files
from k8sfutures.crashes import crash_of
from k8sfutures.exceptions import dumps_exception
from k8sfutures.messages import EXCEPTION, NOT_LOADABLE
from k8sfutures.outcomes import failure_of
from k8sfutures.records import issue, pack_record, pack_warning, unpack_record

THERE = "/tmp/k8sfutures-modules-x/0a1b/pkg/mod.py"
HERE = "/home/ada/my work/pkg/mod.py"


@pytest.fixture(autouse=True)
def finder(monkeypatch) -> None:
    monkeypatch.setattr(pod_files._finder, "at_client", None)
    pod_files.find_files_with(lambda name: {THERE: HERE}.get(name, name))


def brought_home(error: BaseException, status: int = EXCEPTION) -> BaseException:
    return failure_of(status, dumps_exception(error), "f")


def syntax_error(filename: str) -> SyntaxError:
    with pytest.raises(SyntaxError) as caught:
        compile("x = 1\nif x\n", filename, "exec")
    return caught.value


def test_a_syntax_error():
    error = brought_home(syntax_error(THERE))
    local = syntax_error(HERE)
    assert isinstance(error, SyntaxError)
    assert (error.filename, error.lineno, error.offset) == (HERE, 2, local.offset)
    assert (error.args, error.text, str(error)) == (local.args, local.text, str(local))
    assert pickle.loads(pickle.dumps(error)).filename == HERE


def test_one_that_a_call_has_made_by_hand():
    error = brought_home(SyntaxError("no", (THERE, 1, 2, "text")))
    assert isinstance(error, SyntaxError)
    assert (error.filename, error.args) == (HERE, ("no", (HERE, 1, 2, "text")))
    bare = brought_home(SyntaxError("no"))
    assert isinstance(bare, SyntaxError)
    assert (bare.filename, bare.args) == (None, ("no",))


def test_an_import_error():
    message = f"cannot import name 'x' from 'pkg.mod' ({THERE})"
    error = brought_home(ImportError(message, name="pkg.mod", path=THERE))
    assert isinstance(error, ImportError)
    assert (error.name, error.path) == ("pkg.mod", HERE)
    assert str(error) == error.args[0] == message.replace(THERE, HERE)


def test_those_that_others_come_from_and_that_groups_have():
    outer = ValueError("outer")
    outer.__cause__ = syntax_error(THERE)
    group = ExceptionGroup("several", [outer, ImportError("no", path=THERE)])
    error = brought_home(group)
    assert isinstance(error, ExceptionGroup)
    first, second = error.exceptions
    assert first.__cause__.filename == HERE
    assert second.path == HERE


def test_what_could_not_be_loaded_there():
    error = brought_home(ImportError(f"no x ({THERE})", path=THERE), NOT_LOADABLE)
    assert str(error).endswith(f"ImportError: no x ({HERE})")
    assert error.__cause__.path == HERE


def test_errors_about_other_files_are_left_alone():
    for path in (None, "/usr/lib/x.so"):
        error = brought_home(ImportError("no", path=path))
        assert (error.path, error.args) == (path, ("no",))
    assert brought_home(syntax_error("<string>")).filename == "<string>"


class Fixed(ImportError):
    @property
    def path(self) -> str:
        return THERE


def test_an_exception_that_cannot_be_changed_comes_as_it_is():
    error = brought_home(Fixed("no"))
    assert (type(error), error.path) == (Fixed, THERE)


def test_a_warning():
    body = pack_warning("careful", DeprecationWarning, THERE, 7)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("default")
        issue(body)
        issue(body)
    (one,) = found
    assert (one.filename, one.lineno) == (HERE, 7)


def test_a_record():
    record = logging.LogRecord("app", 40, THERE, 7, "it is %s", ("so",), None, "f")
    record.exc_text = f'Traceback\n  File "{THERE}", line 7, in f\nValueError: {THERE}'
    record.stack_info = f'Stack\n  File "{THERE}", line 3, in g'
    found = unpack_record(pack_record(record))
    assert (found.pathname, found.filename, found.module) == (HERE, "mod.py", "mod")
    assert found.exc_text == f'Traceback\n  File "{HERE}", line 7, in f\nValueError: {THERE}'
    assert found.stack_info == f'Stack\n  File "{HERE}", line 3, in g'


def test_where_python_was():
    story = {"pod": "p", "cpu_id": 0, "pid": 1, "signal": 11, "exitcode": None}
    stack = f'Current thread 0x01 (most recent call first):\n  File "{THERE}", line 7 in f'
    error = crash_of(msgpack.packb({**story, "stack": stack, "output": f'File "{THERE}"'}), "f")
    assert error.stack == stack.replace(THERE, HERE)
    assert HERE in str(error)
    assert error.output == f'File "{THERE}"', "what it printed is what it printed"
