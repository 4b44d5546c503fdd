"""Whole programs with modules of their own, as users start them."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from k8sfutures.bundles import FOLDER_PREFIX
from tests.conftest import with_programs

pytestmark = [with_programs, pytest.mark.timeout(120)]

ROOT = Path(__file__).parents[2]

PROGRAM = """
from k8sfutures import K8sRabbitExecutor
{imports}

def in_main():
    {late}
    return where.__file__, where.__name__

if __name__ == "__main__":
    with K8sRabbitExecutor(1) as ex:
        for file, name in (ex.submit(in_main).result(), ex.submit({function}).result()):
            print(name, file)
"""

Run = Callable[..., list[list[str]]]


def write(folder: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@pytest.fixture
def run(cluster) -> Run:
    """Runs a program somewhere; returns the words of each line that it prints."""

    def run_it(*arguments: str, folder: Path, python: str = sys.executable) -> list[list[str]]:
        done = subprocess.run(
            [python, *arguments],
            cwd=folder,
            env=os.environ | cluster.environment(),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [line.split() for line in done.stdout.splitlines()]

    return run_it


def assert_shipped(lines: list[list[str]], *names: str) -> None:
    assert [name for name, _ in lines] == list(names)
    for _, file in lines:
        assert FOLDER_PREFIX in file, "local pods could read it where it is"


def test_a_script_with_a_module_beside_it(tmp_path: Path, run: Run) -> None:
    write(
        tmp_path,
        {
            "helpers.py": "def f(): return __file__, __name__",
            "where.py": "",
            "script.py": PROGRAM.format(
                imports="import helpers", late="import where", function="helpers.f"
            ),
        },
    )
    assert_shipped(run("script.py", folder=tmp_path), "where", "helpers")


def test_a_module_of_a_package_as_the_program(tmp_path: Path, run: Run) -> None:
    write(
        tmp_path,
        {
            "pkg/__init__.py": "",
            "pkg/helpers.py": "from . import where\ndef f(): return __file__, __name__",
            "pkg/where.py": "",
            "pkg/mod.py": PROGRAM.format(
                imports="from .helpers import f", late="from . import where", function="f"
            ),
        },
    )
    assert_shipped(run("-m", "pkg.mod", folder=tmp_path), "pkg.where", "pkg.helpers")


def test_an_edit_between_two_runs_on_a_warm_pod(tmp_path: Path, run: Run) -> None:
    program = (
        "import helpers\nfrom k8sfutures import K8sRabbitExecutor\n"
        "with K8sRabbitExecutor(1) as ex:\n  print(*ex.submit(helpers.f).result())\n"
    )
    write(tmp_path, {"script.py": program})
    pods = set()
    for version in ("first", "second"):
        text = f"import os, platform\ndef f(): return {version!r}, __file__, {WHERE}"
        write(tmp_path, {"helpers.py": text})
        ((found, file, *where),) = run("script.py", folder=tmp_path)
        assert found == version
        assert FOLDER_PREFIX in file
        pods.add(tuple(where))
    assert len(pods) == 1, "the same pod"


WHERE = "platform.node(), os.getppid()"


@pytest.fixture(scope="module", params=["flat", "src", "finder"])
def editable(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """A folder with a script, and the Python that its package is installed in, editable.

    By a path in a ``.pth`` file, or by a finder that an installed module puts in place.
    """
    layout, folder = request.param, tmp_path_factory.mktemp("editable")
    inner = "src" if layout == "src" else "."
    settings = 'package-dir = {tool = "elsewhere"}\npackages = ["tool"]'
    if layout != "finder":
        settings = f'packages = ["tool"]\npackage-dir = {{"" = "{inner}"}}'
    home = f"project/{'elsewhere' if layout == 'finder' else f'{inner}/tool'}"
    write(
        folder,
        {
            "project/pyproject.toml": (
                "[build-system]\nrequires = ['setuptools']\n"
                "build-backend = 'setuptools.build_meta'\n"
                "[project]\nname = 'my-tool'\nversion = '1.5'\n[tool.setuptools]\n" + settings
            ),
            f"{home}/__init__.py": (
                "from importlib.metadata import version\n__version__ = version('my-tool')\n"
            ),
            f"{home}/where.py": "",
            f"{home}/helpers.py": "def f(): return __file__, __name__",
            "work/script.py": PROGRAM.format(
                imports="import tool.helpers",
                late="from tool import where",
                function="tool.helpers.f",
            ),
        },
    )
    venv.create(folder / "venv", with_pip=True)
    python = str(folder / "venv/bin/python")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "-e", str(folder / "project")], check=True, timeout=100)
    # What the tests run with, seen by that Python, too: after its own folder.
    (packages,) = (folder / "venv/lib").glob("*/site-packages")
    ours = [str(ROOT / "src"), *(path for path in sys.path if "site-packages" in path)]
    (packages / "ours.pth").write_text("\n".join(ours) + "\n")
    assert (packages / "my_tool-1.5.dist-info").is_dir()
    assert bool(list(packages.glob("__editable___*_finder.py"))) == (layout == "finder")
    return folder / "work", python


@pytest.mark.slow
def test_an_editable_install(editable: tuple[Path, str], run: Run) -> None:
    folder, python = editable
    lines = run("script.py", folder=folder, python=python)
    assert_shipped(lines, "tool.where", "tool.helpers")
