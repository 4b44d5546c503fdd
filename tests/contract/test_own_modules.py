"""The user's own modules: shipped, imported under their own names, and each client's own.

The programs here are what a user has beside the script. Where they are is on no pod's path: a
call that finds one of their modules has it from the client.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import itertools
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, project

from k8sfutures import CallNotLoadable, InitializerFailed
from k8sfutures.bundles import FOLDER_PREFIX

pytestmark = pytest.mark.timeout(60)

_numbers = itertools.count()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as one:
        yield one


@pytest.fixture
def name() -> str:
    """A module's name that no other test has: pods are warm."""
    return f"own_{os.getpid()}_{next(_numbers)}"


def load(name: str) -> object:
    importlib.invalidate_caches()
    return importlib.import_module(name)


def forget(name: str) -> None:
    for known in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[known]


def in_main(source: str, **names: object) -> object:
    """The function ``f`` of a program."""
    namespace = {"__name__": "__main__", **names}
    exec(source, namespace)
    return namespace["f"]


WHERE = "def where(): return __name__, __file__, __spec__.origin, type(__spec__.loader).__name__"


def test_a_module_comes_from_the_client(ex, own, name):
    own.write(**{name: WHERE})
    module = load(name)
    its_name, file, origin, loader = ex.submit(module.where).result()
    assert its_name == name
    assert file == origin
    assert FOLDER_PREFIX in file
    assert not file.startswith(str(own.folder))
    assert loader == "SourceFileLoader"


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_that_a_call_starts_have_it(ex, own, name, method):
    own.files({f"{name}/__init__.py": "", f"{name}/sub.py": WHERE})
    module = load(f"{name}.sub")
    source = (
        "import concurrent.futures, multiprocessing\n"
        "def f():\n"
        f"    context = multiprocessing.get_context({method!r})\n"
        "    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:\n"
        "        return pool.submit(where).result(30), where()\n"
    )
    there, here = ex.submit(in_main(source, where=module.where)).result()
    assert there == here


def test_a_package_with_its_data_and_what_it_imports(ex, own, name):
    own.files(
        {
            f"{name}/__init__.py": "STARTED = ['yes']",
            f"{name}/data/x.csv": "1,2",
            f"{name}/sub/__init__.py": "from ..helpers import read",
            f"{name}/helpers.py": (
                "import importlib.resources, pkgutil\n"
                "from pathlib import Path\n"
                f"import {name}_other\n"
                "from . import STARTED\n"
                "def read():\n"
                "    here = Path(__file__).parent / 'data/x.csv'\n"
                "    resource = importlib.resources.files(__package__) / 'data/x.csv'\n"
                "    data = pkgutil.get_data(__package__, 'data/x.csv')\n"
                "    texts = here.read_text(), resource.read_text(), data\n"
                f"    return *texts, STARTED, {name}_other.X\n"
            ),
            f"{name}_other.py": "X = 3",
        }
    )
    sub = load(f"{name}.sub")
    assert ex.submit(sub.read).result() == ("1,2", "1,2", b"1,2", ["yes"], 3)


def test_members_of_a_namespace_package(ex, own, name):
    own.files({f"{name}/a.py": "from . import b\ndef f(): return b.X", f"{name}/b.py": "X = 4"})
    module = load(f"{name}.a")
    assert ex.submit(module.f).result() == 4


def test_modules_that_only_a_call_imports(ex, own, name):
    own.files({f"{name}.py": "X = 5", f"{name}_pkg/__init__.py": "", f"{name}_pkg/b.py": "X = 6"})
    source = f"def f():\n  import {name}\n  from {name}_pkg import b\n  return {name}.X, b.X"
    assert ex.submit(in_main(source)).result() == (5, 6)
    assert name not in sys.modules


def test_a_class_that_imports_in_a_method_travels_more_than_once(ex, own, name):
    own.write(**{name: "X = 5"})
    source = f"class C:\n  def f(self):\n    import {name}\n    return {name}.X\n"
    namespace = {"__name__": "__main__"}
    exec(f"{source}\ndef f(): return C", namespace)
    sys.modules["__main__"].C = cls = namespace["C"]
    try:
        assert ex.submit(cls().f).result() == 5
        assert list(ex.map(in_main("def f(it): return it.f()"), [cls()] * 4)) == [5] * 4
    finally:
        del sys.modules["__main__"].C


def test_classes_are_the_same_at_either_end(ex, own, name):
    own.write(
        **{
            name: "import enum\nclass C: pass\nclass E(enum.Enum):\n  A = 1\n"
            "def of(x): return type(x) is C"
        }
    )
    module = load(name)
    thing = ex.submit(module.C).result()
    assert type(thing) is module.C
    assert ex.submit(module.of, thing).result()
    assert list(ex.map(module.of, [module.C(), 1])) == [True, False]
    assert ex.submit(max, [module.E.A], key=id).result() is module.E.A


def test_a_module_is_imported_once_in_a_process(make_executor, own, name):
    own.write(
        **{name: "import itertools\ncounter = itertools.count()\ndef count(): return next(counter)"}
    )
    ex = make_executor(max_workers=1)
    module = load(name)
    assert [ex.submit(module.count).result() for _ in range(3)] == [0, 1, 2]


def test_an_edit_is_seen_by_the_next_executor(make_executor, own, name):
    own.write(**{name: "def f(): return 'first'"})
    module = load(name)
    with make_executor() as first:
        assert first.submit(module.f).result() == "first"
        own.write(**{name: "def f(): return 'second'"})
        assert first.submit(module.f).result() == "first"
        with make_executor() as second:
            assert second.submit(module.f).result() == "second"
            assert first.submit(module.f).result() == "first"


def test_a_reload_is_seen_at_once(ex, own, name):
    own.files(
        {f"{name}/__init__.py": "from .a import X\ndef f(): return X", f"{name}/a.py": "X = 1"}
    )
    package = load(name)
    function = package.f
    assert ex.submit(function).result() == 1
    own.files({f"{name}/a.py": "X = 'edited'"})
    importlib.reload(sys.modules[f"{name}.a"])
    assert ex.submit(function).result() == "edited"


def test_clients_with_two_versions_take_turns(make_executor, own, name):
    made = []
    for version in range(2):
        own.write(**{name: f"calls = []\ndef f(): calls.append(1); return {version}, len(calls)"})
        forget(name)
        function = load(name).f
        executor = make_executor(max_workers=1)
        assert executor.submit(function).result() == (version, 1)
        made.append((executor, function))
    for turn in range(2, 5):
        for version, (executor, function) in enumerate(made):
            assert executor.submit(function).result() == (version, turn)


def test_a_traceback_shows_the_clients_file(ex, own, name):
    own.write(**{name: "def fail():\n    raise ValueError(1)  # this line\n"})
    module = load(name)
    with pytest.raises(ValueError) as caught:
        ex.submit(module.fail).result()
    text = "".join(traceback.format_exception(caught.value))
    assert f'File "{own.folder / name}.py", line 2, in fail' in text
    assert "# this line" in text
    assert FOLDER_PREFIX not in text


def test_source_is_there_on_the_pod(ex, own, name):
    source = "def fail():\n    raise ValueError(1)  # this line\n"
    own.write(**{name: source + "import inspect\ndef show(): return inspect.getsource(fail)"})
    module = load(name)
    assert ex.submit(module.show).result() == source


def test_an_exception_of_an_own_module(ex, own, name):
    own.write(**{name: "class Own(Exception): pass\ndef fail(): raise Own(1)"})
    module = load(name)
    with pytest.raises(module.Own):
        ex.submit(module.fail).result()


def test_an_initializer_of_an_own_module(make_executor, own, name):
    own.write(**{name: "STATE = []\ndef prepare(x): STATE.append(x)\ndef state(): return STATE"})
    module = load(name)
    ex = make_executor(max_workers=1, initializer=module.prepare, initargs=(7,))
    assert ex.submit(in_main("def f(): return 1")).result() == 1
    assert ex.submit(module.state).result() == [7]
    own.write(**{name: "raise ImportError('an initializer keeps its version')"})
    with pytest.raises(ImportError):
        importlib.reload(module)
    assert ex.submit(module.state).result() == [7]


def test_an_initializer_that_lacks_a_module(make_executor, own, name, monkeypatch):
    own.write(**{name: f"def prepare(): __import__('{name}' + '_late')", f"{name}_late": ""})
    ex = make_executor(initializer=load(name).prepare)
    with pytest.raises(InitializerFailed) as caught:
        ex.submit(pow, 2, 2).result()
    assert f"ship=['{name}_late']" in "".join(traceback.format_exception(caught.value))


class TestShip:
    def test_a_module_that_nothing_names(self, make_executor, own, name):
        own.write(**{name: "X = 8"})
        ex = make_executor(ship=[name])
        assert ex.submit(in_main("def f(n): return __import__(n).X"), name).result() == 8

    def test_files_are_in_the_working_directory(self, make_executor, own, name, monkeypatch):
        own.files({f"work/{name}/x.csv": "1", f"work/{name}_run.py": "X = 9"})
        monkeypatch.chdir(own.folder / "work")
        ex = make_executor(ship=[name, f"{name}_run.py"])
        source = (
            f"def f():\n  import os, {name}_run\n"
            f"  return open('{name}/x.csv').read(), {name}_run.X, os.getcwd()"
        )
        text, value, folder = ex.submit(in_main(source)).result()
        assert (text, value) == ("1", 9)
        assert FOLDER_PREFIX in folder
        other = make_executor()
        assert FOLDER_PREFIX not in other.submit(os.getcwd).result()

    def test_all_of_a_namespace_package(self, make_executor, own, name):
        own.files(
            {f"{name}/a.py": "X = 1", f"{name}/b/__init__.py": "X = 2", f"{name}/c/d.py": "X = 3"}
        )
        source = "def f(n):\n  import importlib\n  return importlib.import_module(n).X"
        names = [f"{name}.{member}" for member in ("a", "b", "c.d")]
        assert [*make_executor(ship=[name]).map(in_main(source), names)] == [1, 2, 3]
        with pytest.raises(ModuleNotFoundError) as caught:
            make_executor().submit(in_main(source), names[0]).result()
        (note, _) = caught.value.__notes__
        assert f"have ship=['{name}'] ship all of them" in note

    def test_one_that_is_bulky(self, make_executor, own, name):
        own.files({f"{name}/__init__.py": "", f"{name}/x.bin": os.urandom(3_000_000)})
        ex = make_executor(ship=[name])
        source = f"def f():\n  import pkgutil\n  return len(pkgutil.get_data('{name}', 'x.bin'))"
        assert ex.submit(in_main(source)).result() == 3_000_000


class TestWhatIsMissing:
    def test_an_own_module_that_nothing_names(self, ex, own, name):
        own.write(**{name: "X = 8"})
        with pytest.raises(ModuleNotFoundError) as caught:
            ex.submit(in_main("def f(n): return __import__(n).X"), name).result()
        text = "".join(traceback.format_exception(caught.value))
        assert f"ship=['{name}']" in text
        assert str(own.folder / name) in text

    def test_an_extension_module(self, ex, own, name):
        file = f"{name}/fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
        own.files(
            {f"{name}/__init__.py": "def f(): from . import fast", file: b"\x7fELF\0PyInit_fast\0"}
        )
        with pytest.raises(ImportError) as caught:
            ex.submit(load(name).f).result()
        text = "".join(traceback.format_exception(caught.value))
        assert f"'{name}.fast' is a compiled extension module of your own" in text
        assert str(own.folder / file) in text

    def test_a_file_beside_a_module(self, ex, own, name):
        read = "from pathlib import Path\ndef f(n): return (Path(__file__).parent / n).read_text()"
        own.files({f"{name}.py": read, f"{name}.csv": "1", f"{name}_pkg/__init__.py": read})
        own.files({f"{name}_pkg/.hidden": "2", f"{name}_pkg/x.csv": "3"})
        with pytest.raises(FileNotFoundError) as caught:
            ex.submit(load(name).f, f"{name}.csv").result()
        (note, _) = caught.value.__notes__
        assert (
            f"{own.folder / name}.csv is there at the client, but files beside the single" in note
        )
        assert "make it a package" in note
        package = load(f"{name}_pkg")
        assert ex.submit(package.f, "x.csv").result() == "3"
        with pytest.raises(FileNotFoundError) as caught:
            ex.submit(package.f, ".hidden").result()
        assert "was not shipped with the package" in caught.value.__notes__[0]
        with pytest.raises(FileNotFoundError) as caught:
            ex.submit(package.f, "nowhere.csv").result()
        assert len(caught.value.__notes__) == 1, "nor is it here"

    def test_a_module_that_cannot_be_imported_there(self, ex, own, name):
        own.write(
            **{name: f"import os\nif os.getpid() != {os.getpid()}: import {name}_x\ndef f(): pass"}
        )
        with pytest.raises(CallNotLoadable) as caught:
            ex.submit(load(name).f).result()
        assert isinstance(caught.value.__cause__, ModuleNotFoundError)
        assert not [note for note in caught.value.__notes__ if "ship=" in note]


class TestNamesOfFiles:
    """What the client is told of them are its own; on the pod, ``__file__`` is the pod's."""

    def test_warnings(self, make_executor, own, name):
        own.write(**{name: "import warnings\ndef f():\n    warnings.warn('careful', stacklevel=1)"})
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("default")
            with make_executor() as ex:
                ex.submit(load(name).f).result()
        (one,) = [warning for warning in found if str(warning.message) == "careful"]
        assert (one.filename, one.lineno) == (f"{own.folder / name}.py", 3)

    def test_warnings_of_the_compiler(self, make_executor, own, name):
        own.write(**{name: "def f():\n    return 1 is 1"})
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("default")
            with make_executor() as ex:
                source = f"def f():\n  import {name}\n  return {name}.f()"
                assert ex.submit(in_main(source)).result()
        (one,) = [warning for warning in found if warning.category is SyntaxWarning]
        assert (one.filename, one.lineno) == (f"{own.folder / name}.py", 2)

    def test_syntax_errors(self, ex, own, name):
        own.write(**{name: "x = 1\nif x\n"})
        with pytest.raises(SyntaxError) as caught:
            ex.submit(in_main(f"def f():\n  import {name}")).result()
        error = caught.value
        assert (error.filename, error.lineno) == (f"{own.folder / name}.py", 2)
        text = "".join(traceback.format_exception(error))
        assert f'File "{own.folder / name}.py", line 2\n    if x\n' in text
        assert FOLDER_PREFIX not in text

    def test_import_errors(self, ex, own, name):
        own.write(**{name: "X = 1"})
        with pytest.raises(ImportError) as caught:
            ex.submit(in_main(f"def f():\n  from {name} import y")).result()
        file = f"{own.folder / name}.py"
        assert caught.value.path == file
        assert str(caught.value) == f"cannot import name 'y' from '{name}' ({file})"

    def test_log_records(self, make_executor, own, name, caplog):
        own.write(
            **{
                name: "import logging\ndef f():\n  try:\n    1 / 0\n  except ZeroDivisionError:\n"
                "    logging.getLogger('own').exception('here')"
            }
        )
        with make_executor() as ex:
            ex.submit(load(name).f).result()
        (one,) = [record for record in caplog.records if record.name == "own"]
        file = f"{own.folder / name}.py"
        assert (one.pathname, one.filename, one.module, one.lineno) == (
            *(file, f"{name}.py", name),
            6,
        )
        assert f'File "{file}", line 4, in f\n    1 / 0' in one.exc_text

    def test_where_a_call_was_that_was_ended(self, ex, own, name):
        own.write(**{name: "import time\ndef f():\n  time.sleep(600)"})
        error = ex.options(timeout=0.3).submit(load(name).f).exception(30)
        assert f'File "{own.folder / name}.py", line 3 in f' in error.stack
