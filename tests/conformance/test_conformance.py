"""CPython's own tests of ``ProcessPoolExecutor``, run on this executor by `run.py`.

They need an interpreter that ships the package ``test``; ``scripts/test`` finds one, installs
the project for it and names it in ``K8SFUTURES_CONFORMANCE_PYTHON``. Each of CPython's tests is
a test here; those that are left out, and why, are in `exclusions.py`.
"""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache as cached
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parent
VARIABLE = "K8SFUTURES_CONFORMANCE_PYTHON"
MISSING = (
    f"THE CONFORMANCE TESTS DID NOT RUN: {sys.executable} has no test.test_concurrent_futures, "
    f"and {VARIABLE} names no interpreter that has it, with k8sfutures installed (scripts/test "
    "finds or installs one)"
)
FEWEST = 45
"""Tests that every version of Python has, or a few less: 50 in 3.11, 53 in 3.13."""


@cached
def interpreter() -> str | None:
    if given := os.environ.get(VARIABLE):
        return given
    if importlib.util.find_spec("test.test_concurrent_futures"):
        return sys.executable
    return None


@cached
def listing() -> dict[str, Any]:
    """What `run.py --list` says, or why there is nothing to run."""
    python = interpreter()
    if python is None:
        return {"tests": []}
    command = [python, str(FOLDER / "run.py"), "--list"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        return {"tests": [], "failure": f"{command} failed:\n{done.stderr}"}
    return json.loads(done.stdout)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "test_id" in metafunc.fixturenames:
        metafunc.parametrize("test_id", listing()["tests"])


@pytest.fixture
def listed() -> dict[str, Any]:
    found = listing()
    if "failure" in found:
        pytest.fail(found["failure"])
    if not found["tests"]:
        required = os.environ.get("K8SFUTURES_REQUIRE_CONFORMANCE") or os.environ.get("CI")
        (pytest.fail if required else pytest.skip)(MISSING)
    return found


@pytest.fixture(scope="module")
def outcome(
    cache: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Callable[[str], dict[str, Any]]]:
    """The outcome of one of CPython's tests; they run meanwhile, in one process."""
    chosen = [
        item.callspec.params["test_id"]
        for item in request.session.items
        if getattr(item, "function", None) is test_cpython
    ]
    errors = tmp_path_factory.mktemp("conformance") / "stderr"
    environment = os.environ | {"K8SFUTURES_POOL": "conformance"}
    outcomes: dict[str, dict[str, Any]] = {}
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [interpreter(), str(FOLDER / "run.py"), *chosen],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        ) as process,
    ):

        def wait_for(test_id: str) -> dict[str, Any]:
            while test_id not in outcomes:
                line = process.stdout.readline()
                if not line:
                    pytest.fail(f"the run has ended before this test:\n{errors.read_text()}")
                found = json.loads(line)
                outcomes[found["id"]] = found
            return outcomes[test_id] | {"stderr": errors.read_text()[-5000:]}

        yield wait_for
        process.kill()


def test_there_are_enough_tests(listed: dict[str, Any]) -> None:
    assert len(listed["tests"]) >= FEWEST


def test_no_exclusion_is_stale(listed: dict[str, Any]) -> None:
    assert not listed["stale"], f"Python {listed['python']} has no such tests"
    assert all(listed["excluded"].values())


def test_what_excluded_tests_promise_is_tested(listed: dict[str, Any]) -> None:
    ours = FOLDER.parent / "integration" / "test_standard_library.py"
    names = {getattr(node, "name", None) for node in ast.walk(ast.parse(ours.read_text()))}
    assert set(listed["shown_by"]) <= names


@pytest.mark.broker
def test_cpython(outcome: Callable[[str], dict[str, Any]], test_id: str) -> None:
    found = outcome(test_id)
    if found["status"] == "skipped":
        pytest.skip(found["text"])
    assert found["status"] == "passed", f"{found['text']}\nstderr of the run:\n{found['stderr']}"
