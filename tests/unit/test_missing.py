"""What is said of a module that a call did not find on its pod."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from projects import Project, project

from k8sfutures import shipping
from k8sfutures.missing import explain
from k8sfutures.serialization import dumps
from k8sfutures.shipping import Shipper


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path) as one:
        yield one


def lacking(name: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"No module named {name!r}", name=name)


def test_an_installed_module_with_compiled_code_belongs_into_the_image() -> None:
    text = explain(lacking("coverage.tracer"))
    assert "'coverage' is installed here (coverage==" in text
    assert "k8sfutures image build --requirement coverage==" in text
    assert "ship=" not in text


def test_an_installed_module_of_pure_python_may_be_shipped() -> None:
    text = explain(lacking("pytest_timeout"))
    assert "k8sfutures image build --requirement pytest-timeout==" in text
    assert "ship=['pytest_timeout']" in text


def test_local_pods_have_no_image() -> None:
    text = explain(lacking("pytest_timeout"), here=True)
    assert "image" not in text
    assert "PYTHONPATH" in text
    assert "ship=['pytest_timeout']" in text


def test_a_part_of_python() -> None:
    assert "--base IMAGE" in explain(lacking("tkinter"))


def test_an_own_module_that_nothing_named(own: Project) -> None:
    own.files({"plugins/__init__.py": "", "plugins/a.py": "", "ns/b.py": ""})
    text = explain(lacking("plugins.a"))
    assert str(own.folder / "plugins/a.py") in text
    assert "ship=['plugins']" in text
    assert "ship=['ns.b']" in explain(lacking("ns.b"))


def test_a_namespace_package(own: Project) -> None:
    own.files({"ns/b.py": "", "ns/c/d.py": ""})
    assert "ship=['ns.c.d']" in explain(lacking("ns.c.d"))
    assert "have ship=['ns.c'] ship all" in explain(lacking("ns.c"))
    text = explain(lacking("ns"))
    assert f"'ns' is a package of your own without an __init__.py ({own.folder / 'ns'})" in text
    assert "have ship=['ns'] ship all of them" in text


def test_an_installed_namespace_package(own: Project) -> None:
    own.files({"site-packages/ns/b.py": ""})
    sys.path.append(str(own.folder / "site-packages"))
    assert "'ns' is installed here" in explain(lacking("ns"))


def test_an_own_extension_module(own: Project) -> None:
    name = f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    own.files({name: b"\x7fELF", "pkg/__init__.py": "", f"pkg/{name}": b"\x7fELF"})
    for module, path in [("fast", name), ("pkg.fast", f"pkg/{name}")]:
        text = explain(lacking(module))
        assert f"{module!r} is a compiled extension module of your own" in text
        assert str(own.folder / path) in text


def test_one_that_is_taken_from_its_package(own: Project) -> None:
    name = f"fast{importlib.machinery.EXTENSION_SUFFIXES[0]}"
    own.files({"pkg/__init__.py": "", f"pkg/{name}": b"\x7fELF", "pkg/source.py": ""})
    for module, explained in [("fast", True), ("source", False), ("missing", False)]:
        text = explain(ImportError(f"cannot import name '{module}' from 'pkg' (x)", name="pkg"))
        assert (text is not None) is explained


def test_one_that_was_too_big(own: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    own.files({"pkg/__init__.py": "def f(): pass", "pkg/weights.bin": b"x" * (3 << 20)})
    import pkg

    monkeypatch.setattr(shipping, "MOST_BYTES", 2 << 20)
    Shipper().needs(dumps(pkg.f))
    assert "is not shipped to pods, as it has 3 MiB or more" in explain(lacking("pkg"))


def test_a_module_that_the_client_lacks_as_well() -> None:
    assert explain(lacking("no_such_module")) is None
    assert explain(lacking("pytest.no_such_module")) is None


def test_what_led_to_an_error_counts_and_others_do_not() -> None:
    error = ValueError("x")
    error.__cause__ = ImportError("x")
    error.__cause__.__context__ = lacking("pytest_timeout")
    error.__cause__.__context__.__cause__ = error
    assert "pytest_timeout" in explain(error)
    error.__cause__ = error
    assert explain(error) is None
    assert explain(ModuleNotFoundError("no name")) is None
