"""What of the user's own modules goes along with a pickle, and what stays."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import pickle
import sys
import types
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, project

from k8sfutures import shipping
from k8sfutures.bundles import Bundle, unpack
from k8sfutures.errors import SettingValueError
from k8sfutures.imports import take_noted
from k8sfutures.own_modules import is_installed, own_modules
from k8sfutures.parcels import Parcel, TooBig, files_of
from k8sfutures.serialization import dumps
from k8sfutures.shipping import Shipper


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as one:
        yield one


def needs(obj: object, shipper: Shipper | None = None) -> dict[str, Bundle]:
    take_noted()
    data = dumps(obj)
    bundles = (shipper or Shipper()).needs(data, take_noted())
    return {bundle.name: bundle for bundle in bundles}


def contents(bundle: Bundle, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    unpack(bundle.body, bundle.hash, folder)
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def in_main(source: str, **names: object) -> object:
    """The function ``f`` of a program."""
    namespace = {"__name__": "__main__", **names}
    exec(source, namespace)
    return namespace["f"]


class TestWhatIsFound:
    def test_a_function_of_a_module(self, own: Project, tmp_path: Path) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        (bundle,) = needs(helpers.f).values()
        assert contents(bundle, tmp_path / "out") == {"helpers.py": b"def f(): return 1"}
        assert bundle.origins == {"helpers.py": str(own.folder / "helpers.py")}

    def test_its_pickle_is_a_reference(self, own: Project) -> None:
        own.write(helpers="def f(): return 1\nclass C: pass")
        import helpers

        for obj in (helpers.f, helpers.C, helpers.C()):
            assert dumps(obj) == pickle.dumps(obj, 5)

    def test_an_instance_deep_in_data(self, own: Project) -> None:
        own.write(helpers="class C: pass")
        import helpers

        assert set(needs({"a": [1, (helpers.C(),)]})) == {"helpers"}

    def test_a_package_goes_as_a_whole(self, own: Project, tmp_path: Path) -> None:
        own.files(
            {
                "pkg/__init__.py": "",
                "pkg/a.py": "def f(): pass",
                "pkg/sub/b.py": "",
                "pkg/data/x.csv": "1,2",
            }
        )
        import pkg.a

        (bundle,) = needs(pkg.a.f).values()
        assert bundle.name == "pkg"
        files = {"pkg/__init__.py", "pkg/a.py", "pkg/sub/b.py", "pkg/data/x.csv"}
        assert set(contents(bundle, tmp_path / "out")) == files

    def test_what_is_left_out_of_a_package(self, own: Project, tmp_path: Path) -> None:
        own.files(
            {
                "pkg/__init__.py": "def f(): pass",
                "pkg/.git/config": "",
                "pkg/.env": "SECRET=1",
                "pkg/.ipynb_checkpoints/a.py": "",
                "pkg/node_modules/a.js": "",
                "pkg/env/pyvenv.cfg": "",
                "pkg/env/lib/a.py": "",
                "pkg/old.pyc": "",
                "pkg/__pycache__/x.txt": "",
            }
        )
        (own.folder / "pkg/nowhere").symlink_to("missing")
        (own.folder / "pkg/loop").symlink_to(".")
        import pkg

        (bundle,) = needs(pkg.f).values()
        assert set(contents(bundle, tmp_path / "out")) == {"pkg/__init__.py"}

    def test_what_links_lead_to_goes_along(self, own: Project, tmp_path: Path) -> None:
        own.files({"pkg/__init__.py": "def f(): pass", "elsewhere/x.csv": "1"})
        (own.folder / "pkg/data").symlink_to("../elsewhere")
        import pkg

        (bundle,) = needs(pkg.f).values()
        assert "pkg/data/x.csv" in contents(bundle, tmp_path / "out")

    def test_members_of_a_namespace_package_are_parcels(self, own: Project, tmp_path: Path) -> None:
        own.files({"ns/a/__init__.py": "def f(): pass", "ns/b.py": "def g(): pass", "ns/x.csv": ""})
        import ns.a
        import ns.b

        found = needs([ns.a.f, ns.b.g])
        assert set(found) == {"ns.a", "ns.b"}
        assert set(contents(found["ns.a"], tmp_path / "a")) == {"ns/a/__init__.py"}
        assert set(contents(found["ns.b"], tmp_path / "b")) == {"ns/b.py"}

    def test_all_of_them_can_be_asked_for(self, own: Project) -> None:
        own.files({"ns/a/__init__.py": "", "ns/b.py": "", "ns/c/d.py": "", "ns/x.csv": ""})
        own.files({"ns/not-one.py": "", "ns/.e/f.py": "", "ns/a/g.py": ""})
        (own.folder / "ns/c/up").symlink_to("..")
        found = {bundle.name for bundle in Shipper(["ns"]).needs(b"")}
        assert found == {"ns.a", "ns.b", "ns.c.d"}

    def test_but_not_where_there_are_none(self, own: Project) -> None:
        own.files({"ns/x.csv": ""})
        with pytest.raises(
            ValueError, match=r"'ns' is a package without an __init__\.py, and none"
        ):
            Shipper(["ns"])

    def test_a_folder_in_the_working_directory_comes_as_that(
        self, own: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own.files({"ns/a.py": "", "ns/x.csv": ""})
        monkeypatch.chdir(own.folder)
        (bundle,) = Shipper(["ns"]).needs(b"")
        assert (bundle.name, set(bundle.origins)) == ("", {"ns/a.py", "ns/x.csv"})

    def test_a_package_of_several_folders(self, own: Project, tmp_path: Path) -> None:
        extend = "from pkgutil import extend_path\n__path__ = extend_path(__path__, __name__)\n"
        own.files({"pkg/__init__.py": extend, "more/pkg/__init__.py": "", "more/pkg/b.py": "B = 1"})
        sys.path.append(str(own.folder / "more"))
        import pkg.b

        (bundle,) = needs(in_main("def f(): return b.B", b=pkg.b)).values()
        files = contents(bundle, tmp_path / "out")
        assert set(files) == {"pkg/__init__.py", "pkg/b.py"}
        assert files["pkg/__init__.py"] == extend.encode()

    def test_a_module_that_a_function_of_main_uses(self, own: Project) -> None:
        own.write(helpers="def g(): pass")
        import helpers

        assert set(needs(in_main("def f(): return helpers.g()", helpers=helpers))) == {"helpers"}

    def test_a_module_that_is_imported_only_inside_it(self, own: Project) -> None:
        own.write(helpers="")
        own.files({"ns/a.py": "", "pkg/__init__.py": "", "pkg/b.py": ""})
        source = "def f():\n  def g():\n    import helpers\n  from ns import a\n  import pkg.b"
        assert set(needs(in_main(source))) == {"helpers", "ns.a", "pkg"}
        assert "helpers" not in sys.modules

    def test_what_own_modules_import_in_turn(self, own: Project) -> None:
        own.write(
            helpers="import first\ndef f(): import second",
            first="from importlib import import_module\nimport_module('third')",
            second="from ns import b",
            third="import helpers, json, pytest\ndef f(): import missing",
            not_needed="",
        )
        own.files({"ns/b.py": "from . import c", "ns/c.py": "", "ns/d.py": ""})
        import helpers

        names = {"helpers", "first", "second", "third", "ns.b", "ns.c"}
        assert set(needs(helpers.f)) == names

    def test_words_in_a_text_import_nothing(self, own: Project) -> None:
        own.write(helpers='"""\nimport other\n"""\ndef f(): pass', other="")
        import helpers

        assert set(needs(helpers.f)) == {"helpers"}

    def test_data_that_reads_like_a_name_is_none(self, own: Project) -> None:
        own.write(data="def f(): pass")
        import data

        assert set(needs(["data.csv", "xdata", "datax", data.f])) == {"data"}
        assert needs(["data.csv", print]) == {}

    def test_installed_and_standard_modules_stay(self) -> None:
        assert needs([pytest.fixture, json_dumps(), Shipper, Path]) == {}

    def test_a_closure_of_an_own_module(self, own: Project) -> None:
        own.write(helpers="def make():\n  return lambda: make")
        import helpers

        assert set(needs(helpers.make())) == {"helpers"}

    def test_an_editable_install_with_a_finder(self, own: Project, tmp_path: Path) -> None:
        own.files({"project/src/tool/__init__.py": "def f(): pass"})
        folder = own.folder / "project/src/tool"

        class Finder:
            """As setuptools makes one."""

            @staticmethod
            def find_spec(name, path=None, target=None):
                if name == "tool":
                    return importlib.util.spec_from_file_location(name, folder / "__init__.py")
                return None

        sys.meta_path.append(Finder)
        assert set(needs(in_main("def f(): import tool"))) == {"tool"}
        import tool

        assert set(needs(tool.f)) == {"tool"}

    @pytest.mark.parametrize("kind", ["dist-info", "egg-info", "both"])
    def test_what_is_noted_about_an_editable_install(
        self, own: Project, tmp_path: Path, kind: str
    ) -> None:
        files = {"work/tool/__init__.py": "def f(): pass"}
        if kind != "egg-info":
            notes = "site-packages/my_tool-1.5.dist-info"
            url = f'{{"url": "file://{own.folder}/work", "dir_info": {{"editable": true}}}}'
            files[f"{notes}/METADATA"] = "Name: my-tool\nVersion: 1.5\n"
            files[f"{notes}/direct_url.json"] = url
            sys.path.append(str(own.folder / "site-packages"))
        if kind != "dist-info":
            files["work/my_tool.egg-info/PKG-INFO"] = "Name: my-tool\nVersion: 1.5\n"
        own.files(files)
        sys.path.append(str(own.folder / "work"))
        import tool

        (bundle,) = needs(tool.f).values()
        found = contents(bundle, tmp_path / "out")
        assert found.keys() == {"tool/__init__.py", "my_tool-1.5.dist-info/METADATA"}
        assert b"Version: 1.5" in found["my_tool-1.5.dist-info/METADATA"]

    def test_a_file_that_is_called_otherwise(self, own: Project, tmp_path: Path) -> None:
        own.files({"odd-name.py": "def f(): pass"})
        spec = importlib.util.spec_from_file_location("odd", own.folder / "odd-name.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["odd"] = module
        try:
            spec.loader.exec_module(module)
            (bundle,) = needs(module.f).values()
        finally:
            del sys.modules["odd"]
        assert set(contents(bundle, tmp_path / "out")) == {"odd.py"}


def json_dumps() -> object:
    import json

    return json.dumps


class TestWhatTravelsByValue:
    def test_a_module_made_by_hand(self) -> None:
        module = types.ModuleType("by_hand")
        exec("def f(): return 'here'", module.__dict__)
        sys.modules["by_hand"] = module
        try:
            data = dumps(module.f)
            assert needs(module.f) == {}
        finally:
            del sys.modules["by_hand"]
        assert pickle.loads(data)() == "here"

    def test_a_module_in_a_zip(self, own: Project) -> None:
        with zipfile.ZipFile(own.folder / "app.zip", "w") as archive:
            archive.writestr("zipped.py", "def f(): return 'here'")
        sys.path.insert(0, str(own.folder / "app.zip"))
        import zipped

        assert b"zipped" in own_modules.by_value()
        data = dumps(zipped.f)
        del sys.modules["zipped"]
        sys.path.pop(0)
        importlib.invalidate_caches()
        assert pickle.loads(data)() == "here"

    def test_a_module_that_its_loader_has_changed(self, own: Project) -> None:
        # As pytest does with this one.
        assert __name__.encode() in own_modules.by_value()

    def test_a_module_whose_file_is_gone(self, own: Project) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        (own.folder / "helpers.py").unlink()
        data = dumps(helpers.f)
        assert needs(helpers.f) == {}
        del sys.modules["helpers"]
        assert pickle.loads(data)() == 1

    def test_a_module_that_hides_one_of_python(self, own: Project) -> None:
        own.write(this="def f(): return 1")
        sys.modules.pop("this", None)
        import this

        assert needs(this.f) == {}


class TestVersions:
    def test_an_executor_sees_one_version(self, own: Project) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        shipper = Shipper()
        first = needs(helpers.f, shipper)["helpers"]
        own.write(helpers="def f(): return 'changed'")
        assert needs(helpers.f, shipper)["helpers"] is first
        assert needs(helpers.f)["helpers"].hash != first.hash

    def test_a_reload_is_a_new_version(self, own: Project) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        shipper = Shipper()
        first = needs(helpers.f, shipper)["helpers"]
        own.write(helpers="def f(): return 'changed'")
        importlib.reload(helpers)
        assert needs(helpers.f, shipper)["helpers"].hash != first.hash

    def test_what_has_not_changed_is_not_read_again(
        self, own: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        first = needs(helpers.f)["helpers"]
        monkeypatch.setattr(Path, "read_bytes", None)
        assert needs(helpers.f)["helpers"] is first

    def test_equal_files_elsewhere_have_the_same_hash(self, own: Project) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        first = needs(helpers.f)["helpers"]
        own.files({"other/helpers.py": "def f(): return 1"})
        sys.path.insert(0, str(own.folder / "other"))
        del sys.modules["helpers"]
        import helpers as other

        assert other is not helpers
        assert needs(other.f)["helpers"].hash == first.hash

    def test_the_same_needs_are_the_same_tuple(self, own: Project) -> None:
        own.write(helpers="def f(): pass\nclass C: pass", user="import helpers\ndef f(): pass")
        import helpers
        import user

        shipper = Shipper()
        first = shipper.needs(dumps(user.f))
        assert len(first) == 2
        assert shipper.needs(dumps([user.f, helpers.C()])) is first
        assert shipper.needs(dumps(1)) is shipper.needs(dumps([print])) is shipper.needs(b"")


class TestLimits:
    def test_a_package_that_is_too_big_stays(
        self, own: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        own.files({"pkg/__init__.py": "def f(): pass", "pkg/weights.bin": b"x" * (3 << 20)})
        import pkg

        monkeypatch.setattr(shipping, "MOST_BYTES", 2 << 20)
        assert needs(pkg.f) == {}
        (record,) = caplog.records
        assert "'pkg'" in record.getMessage()
        assert "weights.bin alone has 3 MiB" in record.getMessage()
        assert "ship=['pkg']" in record.getMessage()
        assert set(needs(pkg.f, Shipper(["pkg"]))) == {"pkg"}, "unless it is asked for"

    def test_a_folder_of_too_many_files(self, own: Project) -> None:
        own.files({f"pkg/{number}.txt": "" for number in range(5)})
        with pytest.raises(TooBig, match="more than 4 files"):
            files_of(
                Parcel("pkg", (str(own.folder / "pkg"),), ("pkg",)), most_bytes=9, most_files=4
            )

    def test_extension_modules_stay_and_other_libraries_do_not(
        self, own: Project, tmp_path: Path
    ) -> None:
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        own.files(
            {
                "pkg/__init__.py": "def f(): pass",
                f"pkg/fast{suffix}": b"\x7fELF\0PyInit_fast\0",
                "pkg/libdata.so": b"\x7fELF\0",
            }
        )
        import pkg

        (bundle,) = needs(pkg.f).values()
        assert set(contents(bundle, tmp_path / "out")) == {"pkg/__init__.py", "pkg/libdata.so"}


class TestTracebacks:
    def test_a_file_on_a_pod_is_one_here(self, own: Project) -> None:
        own.write(helpers="def f(): return 1")
        import helpers

        shipper = Shipper()
        (bundle,) = needs(helpers.f, shipper).values()
        folder = f"/tmp/k8sfutures-modules-x1_y/{bundle.hash}"
        assert shipping.at_client(f"{folder}/helpers.py") == str(own.folder / "helpers.py")
        assert shipping.at_client(f"{folder}/other.py") == f"{folder}/other.py"
        for other in ("/usr/lib/x.py", "<stdin>", "/tmp/k8sfutures-modules-x/abc/helpers.py"):
            assert shipping.at_client(other) == other


class TestTheSetting:
    def test_names_are_shipped_with_every_call(self, own: Project) -> None:
        own.write(plugin="import other", other="")
        assert set(needs(1, Shipper(["plugin"]))) == {"plugin", "other"}

    def test_an_installed_module(self, tmp_path: Path) -> None:
        (bundle,) = needs(1, Shipper(["pytest_timeout"])).values()
        assert set(contents(bundle, tmp_path / "out")) == {"pytest_timeout.py"}

    def test_files_keep_their_places_below_the_working_directory(
        self, own: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        own.files({"work/data/x.csv": "", "work/run.py": "", "work/.env": "", "far/y.csv": ""})
        monkeypatch.chdir(own.folder / "work")
        ship = ["data", "run.py", ".env", str(own.folder / "far/y.csv")]
        (bundle,) = needs(1, Shipper(ship)).values()
        assert bundle.name == ""
        assert set(contents(bundle, tmp_path / "out")) == {"data/x.csv", "run.py", "y.csv"}
        assert (tmp_path / "out/.env").exists()

    def test_the_working_directory_itself(
        self, own: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        own.files({"work/data/x.csv": "", "work/run.py": ""})
        monkeypatch.chdir(own.folder / "work")
        (bundle,) = needs(1, Shipper(["."])).values()
        assert set(contents(bundle, tmp_path / "out")) == {"data/x.csv", "run.py"}

    @pytest.mark.parametrize(
        ("entry", "says"),
        [
            ("no_such_module", "neither a module that can be imported here nor a file"),
            ("data/missing.csv", "neither a module that can be imported here nor a file"),
            ("pkg.missing", "neither a module that can be imported here nor a file"),
            ("sys", "has no source file of its own"),
            ("json", "has no source file of its own"),
            ("fast", "has compiled code"),
            ("coverage", "has compiled code"),
        ],
    )
    def test_what_cannot_be_shipped(self, own: Project, entry: str, says: str) -> None:
        own.files({"pkg/__init__.py": ""})
        suffix = importlib.machinery.EXTENSION_SUFFIXES[0]
        own.files({f"fast{suffix}": b"\x7fELF\0PyInit_fast\0"})
        with pytest.raises(SettingValueError, match=says) as caught:
            Shipper([entry])
        assert repr(entry) in str(caught.value)

    def test_files_that_would_take_each_others_place(
        self, own: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        own.files({"a/x.csv": "", "b/x.csv": "", "work/y": ""})
        monkeypatch.chdir(own.folder / "work")
        with pytest.raises(SettingValueError, match=r"would both be 'x\.csv'"):
            Shipper([str(own.folder / "a/x.csv"), str(own.folder / "b/x.csv")])

    def test_a_folder_that_is_too_big(self, own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        own.files({"pkg/__init__.py": "", "pkg/weights.bin": b"x" * (3 << 20)})
        monkeypatch.setattr(shipping, "MOST_BYTES_ASKED", 2 << 20)
        with pytest.raises(SettingValueError, match="3 MiB or more, where 2 MiB may be"):
            Shipper(["pkg"])


@pytest.mark.parametrize(
    ("path", "installed"),
    [
        (pytest.__file__, True),
        (importlib.__file__, True),
        ("/opt/x/lib/python3.11/site-packages/a.py", True),
        ("/usr/lib/python3/dist-packages/a.py", True),
        ("/home/ada/project/a.py", False),
        (f"{Path(importlib.__file__).parents[1]}-own/a.py", False),
    ],
)
def test_what_counts_as_installed(path: str, installed: bool) -> None:
    assert is_installed(path) is installed
