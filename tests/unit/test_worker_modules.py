"""Each client's own modules in a CPU process that they share."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.resources
import inspect
import linecache
import os
import pickle
import pkgutil
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, project

from k8sfutures.bundles import pack
from k8sfutures.worker.modules import Environments
from k8sfutures.worker.unpacked import Folder, PodsFolder, Unpacked, make_folder


class Process:
    """A CPU process, as far as modules go."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environments = Environments(lambda: Folder(folder))
        self.bodies: dict[str, bytes] = {}

    def send(self, name: str, **files: str) -> str:
        """Send a bundle; ``__`` in a file's name is a ``/``."""
        return self.send_files(
            name, {f"{path.replace('__', '/')}.py": text for path, text in files.items()}
        )

    def send_files(self, name: str, files: dict[str, str]) -> str:
        digest, body = pack(name, [(path, False, text.encode()) for path, text in files.items()])
        self.bodies[digest] = body
        return digest

    def activate(self, client: str, needs: list[str]) -> None:
        self.environments.activate(client, needs, self.bodies.__getitem__)

    def forget(self, client: str) -> None:
        self.environments.forget(client)

    def unpacked(self) -> set[str]:
        return {path.name for path in self.folder.iterdir() if path.is_dir()}


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    folder = tmp_path / "bundles"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    with project(folder):  # nothing stays loaded, whatever becomes of the test
        yield Process(folder)


@pytest.fixture
def installed(tmp_path: Path) -> Iterator[Project]:
    """What the pod's image has."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    with project(folder) as one:
        yield one


@pytest.fixture
def around(tmp_path: Path) -> Iterator[Project]:
    """The working directory of a local pod, where the client's program was started."""
    folder = tmp_path / "around"
    folder.mkdir()
    with project(folder) as one:
        yield one


def value(name: str) -> object:
    return importlib.import_module(name).VALUE


class TestImports:
    def test_a_module(self, process: Process) -> None:
        digest = process.send("helpers", helpers="VALUE = 1")
        process.activate("ada", [digest])
        import helpers

        assert helpers.VALUE == 1
        assert helpers.__name__ == helpers.__spec__.name == "helpers"
        assert Path(helpers.__file__) == process.folder / digest / "helpers.py"

    def test_a_package_with_all_that_it_is_made_of(self, process: Process) -> None:
        digest = process.send_files(
            "pkg",
            {
                "pkg/__init__.py": "ORDER = ['pkg']\nfrom . import a",
                "pkg/a.py": "from . import ORDER\nORDER.append('a')\nfrom .sub.b import VALUE",
                "pkg/sub/__init__.py": "",
                "pkg/sub/b.py": "from ..sub import b\nVALUE = 2",
                "pkg/bare/c.py": "VALUE = 3",
                "pkg/data/x.csv": "1,2",
            },
        )
        process.activate("ada", [digest])
        import pkg

        assert pkg.ORDER == ["pkg", "a"]
        assert (pkg.a.VALUE, value("pkg.bare.c")) == (2, 3)
        assert importlib.resources.files("pkg").joinpath("data/x.csv").read_text() == "1,2"
        assert pkgutil.get_data("pkg", "data/x.csv") == b"1,2"
        assert (Path(pkg.__file__).parent / "data/x.csv").read_text() == "1,2"
        assert {module.name for module in pkgutil.iter_modules(pkg.__path__)} == {"a", "sub"}

    def test_members_of_a_namespace_package(self, process: Process, installed: Project) -> None:
        installed.files({"ns/lib.py": "VALUE = 'installed'", "ns/late.py": "VALUE = 'late'"})
        assert value("ns.lib") == "installed"
        one = process.send("ns.a", ns__a="VALUE = 'a'")
        two = process.send_files("ns.b", {"ns/b/__init__.py": "VALUE = 'b'"})
        process.activate("ada", [one])
        import ns.a
        import ns.lib

        assert (ns.a.VALUE, ns.lib.VALUE, value("ns.late")) == ("a", "installed", "late")
        process.activate("ada", [one, two])
        assert value("ns.b") == "b"
        process.activate("bob", [])
        import ns.late
        import ns.lib

        assert ns.lib.VALUE == "installed"
        assert ns.late.VALUE == "late"
        with pytest.raises(ModuleNotFoundError):
            value("ns.a")

    def test_a_bundle_is_before_what_the_pod_has(
        self, process: Process, installed: Project, around: Project
    ) -> None:
        around.write(helpers="VALUE = 'around'")
        installed.write(library="VALUE = 'installed'")
        assert value("library") == "installed"
        before = sys.modules["library"]
        needs = [
            process.send("helpers", helpers="VALUE = 'ada'"),
            process.send("library", library="VALUE = 'ada'"),
        ]
        process.activate("ada", needs)
        assert (value("helpers"), value("library")) == ("ada", "ada")
        process.activate("bob", [])
        assert (value("helpers"), value("library")) == ("around", "installed")
        assert sys.modules["library"] is before
        process.activate("ada", needs)
        assert (value("helpers"), value("library")) == ("ada", "ada")

    def test_a_module_that_none_needs_is_found_as_ever(
        self, process: Process, installed: Project
    ) -> None:
        installed.write(library="VALUE = 'installed'")
        digest = process.send("helpers", helpers="import library, json\nVALUE = 1")
        process.activate("ada", [digest])
        value("helpers")
        library = sys.modules["library"]
        process.activate("bob", [])
        assert sys.modules["library"] is library, "what is installed is loaded once"

    def test_an_extension_module_comes_from_the_pods_own_package(
        self, process: Process, installed: Project
    ) -> None:
        import _csv as any_extension

        source = getattr(any_extension, "__file__", None)
        if source is None:
            pytest.skip("this Python has its extension modules built in")
        name = Path(source).name
        installed.files({"pkg/__init__.py": "VALUE = 'installed'"})
        (installed.folder / "pkg" / name).symlink_to(source)
        digest = process.send_files("pkg", {"pkg/__init__.py": "from . import _csv\nVALUE = 'ada'"})
        process.activate("ada", [digest])
        assert value("pkg") == "ada"
        assert sys.modules["pkg._csv"].__file__ == str(installed.folder / "pkg" / name)

    def test_a_package_finds_its_own_version(self, process: Process) -> None:
        digest = process.send_files(
            "tool",
            {
                "tool/__init__.py": "from importlib.metadata import version\n"
                "VALUE = version('my-tool')",
                "my_tool-1.5.dist-info/METADATA": "Name: my-tool\nVersion: 1.5\n",
            },
        )
        process.activate("ada", [digest])
        assert value("tool") == "1.5"
        process.activate("bob", [])
        with pytest.raises(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version("my-tool")

    def test_a_missing_submodule_is_missing(self, process: Process, installed: Project) -> None:
        installed.files({"pkg/__init__.py": "", "pkg/old.py": "VALUE = 1"})
        digest = process.send_files("pkg", {"pkg/__init__.py": ""})
        process.activate("ada", [digest])
        with pytest.raises(ModuleNotFoundError, match=r"pkg\.old"):
            value("pkg.old")


class TestClients:
    def test_two_with_two_versions_take_turns(self, process: Process) -> None:
        source = "class C: pass\nVALUE = {!r}\ncount = 0"
        needs = {
            client: [process.send("helpers", helpers=source.format(client))]
            for client in ("ada", "bob")
        }
        kept = {}
        for turn in range(3):
            for client in ("ada", "bob"):
                process.activate(client, needs[client])
                import helpers

                assert client == helpers.VALUE
                assert helpers.count == turn, "what a module holds is kept"
                helpers.count += 1
                thing = pickle.loads(pickle.dumps(helpers.C()))
                assert type(thing) is kept.setdefault(client, helpers.C), "a class is one class"

    def test_a_client_that_leaves_takes_its_modules_along(self, process: Process) -> None:
        digest = process.send("helpers", helpers="VALUE = 1")
        process.activate("ada", [digest])
        value("helpers")
        process.forget("ada")
        assert "helpers" not in sys.modules
        assert process.unpacked() == set()
        process.activate("bob", [])
        with pytest.raises(ModuleNotFoundError):
            value("helpers")

    def test_a_bundle_that_two_use_stays_for_the_second(self, process: Process) -> None:
        digest = process.send("helpers", helpers="VALUE = 1")
        assert digest == process.send("helpers", helpers="VALUE = 1")
        process.activate("ada", [digest])
        process.activate("bob", [digest])
        process.forget("ada")
        assert process.unpacked() == {digest}
        assert value("helpers") == 1
        process.forget("bob")
        assert process.unpacked() == set()

    def test_calls_of_one_client_share_what_fits_together(self, process: Process) -> None:
        one = process.send("one", one="VALUE = 1")
        two = process.send("two", two="import one\nVALUE = one")
        process.activate("ada", [one])
        value("one")
        first = sys.modules["one"]
        process.activate("ada", [two, one])
        assert value("two") is first
        process.activate("ada", [])
        assert sys.modules["one"] is first

    def test_a_changed_bundle_is_another_environment(self, process: Process) -> None:
        user = process.send("user", user="from helpers import VALUE")
        old = process.send("helpers", helpers="VALUE = 'old'")
        new = process.send("helpers", helpers="VALUE = 'new'")
        process.activate("ada", [old, user])
        assert value("user") == "old"
        process.activate("ada", [new, user])
        assert value("user") == "new", "what imports it is loaded anew, too"
        process.activate("ada", [old])
        assert value("user") == "old", "calls from before may still come"

    def test_environments_of_a_client_are_few(self, process: Process) -> None:
        for version in range(6):
            digest = process.send("helpers", helpers=f"VALUE = {version}")
            process.activate("ada", [digest])
            assert value("helpers") == version

    def test_what_lies_around_is_each_clients_own(self, process: Process, around: Project) -> None:
        around.write(loose="VALUE = 1")
        process.activate("ada", [])
        assert value("loose") == 1
        around.write(loose="VALUE = 'edited'")
        process.activate("bob", [])
        assert value("loose") == "edited"
        process.activate("ada", [])
        assert value("loose") == 1

    def test_what_a_module_makes_by_hand_goes_with_it(self, process: Process) -> None:
        source = "import sys, types\nsys.modules['helpers.made'] = types.ModuleType('helpers.made')"
        digest = process.send("helpers", helpers=source)
        process.activate("ada", [digest])
        importlib.import_module("helpers")
        process.activate("bob", [])
        assert "helpers.made" not in sys.modules


class TestFiles:
    def test_they_are_in_the_working_directory_of_the_clients_calls(
        self, process: Process, tmp_path: Path
    ) -> None:
        digest = process.send_files("", {"data/x.csv": "1", "run.py": "VALUE = 1"})
        process.activate("ada", [digest])
        assert Path("data/x.csv").read_text() == "1"
        assert value("run") == 1
        process.activate("bob", [])
        assert Path.cwd() == tmp_path
        with pytest.raises(ModuleNotFoundError):
            value("run")
        process.activate("ada", [digest])
        assert Path("data/x.csv").read_text() == "1"
        process.forget("ada")
        assert Path.cwd() == tmp_path
        assert process.unpacked() == set()

    def test_a_working_directory_that_is_gone(
        self, process: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "gone").mkdir()
        monkeypatch.chdir(tmp_path / "gone")
        digest = process.send_files("", {"x.csv": "1"})
        process.activate("ada", [digest])
        (tmp_path / "gone").rmdir()
        process.activate("bob", [])
        assert Path.cwd() == Path("/")


def test_source_lines_are_there(process: Process) -> None:
    digest = process.send("helpers", helpers="def fail():\n    raise ValueError(1)  # here\n")
    process.activate("ada", [digest])
    import helpers

    assert inspect.getsource(helpers.fail).endswith("# here\n")
    with pytest.raises(ValueError) as caught:
        helpers.fail()
    assert "# here" in "".join(traceback.format_exception(caught.value))
    linecache.clearcache()


def test_a_bundle_that_has_not_come(process: Process) -> None:
    with pytest.raises(LookupError, match="abc"):
        process.activate("ada", ["abc"])
    process.activate("ada", [])


def test_a_folder_that_cannot_be_written_to(process: Process, tmp_path: Path) -> None:
    digest = process.send("helpers", helpers="VALUE = 1")
    process.folder.rmdir()
    with pytest.raises(OSError, match=str(process.folder)):
        process.activate("ada", [digest])
    process.folder.mkdir()
    process.activate("ada", [digest])
    assert value("helpers") == 1


def taken(folder: Folder, name: str) -> Unpacked:
    digest, body = pack(name, [(f"{name}.py", False, b"VALUE = 1")])
    return folder.take(digest, lambda _: body)


class TestTheFolder:
    def test_processes_unpack_a_bundle_once(self, tmp_path: Path) -> None:
        digest, body = pack("helpers", [("helpers.py", False, b"VALUE = 1")])
        first, second = Folder(tmp_path), Folder(tmp_path)
        one = first.take(digest, lambda _: body)
        two = second.take(digest, {}.__getitem__)
        assert one.root == two.root
        assert two.name == "helpers"
        first.release(one)
        assert two.root.is_dir()
        second.release(two)
        assert not two.root.exists()

    def test_half_of_a_bundle_is_never_seen(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="bundle"):
            Folder(tmp_path).take("abc", lambda _: b"broken")
        assert [path.name for path in tmp_path.iterdir()] == ["abc.lock"]

    def test_what_a_dead_process_has_left_is_swept(self, tmp_path: Path) -> None:
        digest, body = pack("helpers", [("helpers.py", False, b"VALUE = 1")])
        left = Folder(tmp_path).take(digest, lambda _: body)
        os.close(left.lock)
        kept = taken(Folder(tmp_path), "other")
        Folder(tmp_path).sweep()
        assert not left.root.exists()
        assert kept.root.is_dir()
        os.close(kept.lock)

    def test_what_a_dead_pod_has_left_is_removed_by_the_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        (tmp_path / "k8sfutures-modules-strange").mkdir()
        dead, lock = make_folder()
        (dead / "abc").mkdir()
        alive, other_lock = make_folder()
        assert dead.is_dir(), "it still holds its lock"
        os.close(lock)
        third, third_lock = make_folder()
        assert not dead.exists()
        assert alive.is_dir()
        assert third.stat().st_mode & 0o077 == 0
        os.close(other_lock)
        os.close(third_lock)

    def test_it_goes_with_its_pod(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        folder = PodsFolder()
        folder.make()
        taken(folder.get(), "helpers")
        folder.remove()
        assert list(tmp_path.iterdir()) == []

    def test_a_pod_that_cannot_have_one_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
        folder = PodsFolder()
        folder.make()
        with pytest.raises(OSError, match=r"no folder to unpack.*missing"):
            folder.get()
        folder.remove()
