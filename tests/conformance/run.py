"""Runs CPython's own tests of process pools, ``test.test_concurrent_futures``, on this executor.

    python tests/conformance/run.py [--list] [TEST...]

The tests are those of the interpreter that runs this program, imported and never copied. Each
of CPython's test classes for pools that spawn their processes is made once more, with
`K8sRabbitMixin` before CPython's own; pods are local. The result of each test is one JSON object
on a line of stdout: ``id``, ``status`` (passed, failed, skipped), ``seconds``, ``text``. With
``--list`` no test is run, and one object says what there is: ``python``, ``tests`` (ids),
``excluded`` (ids, with the reason from `exclusions`), ``shown_by`` (names of our own tests) and
``stale`` (ids of exclusions that match no test of this Python).

Needs ``test.test_concurrent_futures``, which not every installation of Python has (Debian:
``libpython3.11-testsuite``), and k8sfutures.
"""

import argparse
import concurrent.futures
import faulthandler
import importlib
import json
import multiprocessing
import os
import pkgutil
import platform
import sys
import threading
import time
import traceback
import unittest
from collections.abc import Iterable
from typing import Any, TextIO

from exclusions import EXCLUSIONS

import k8sfutures

TIMEOUT = 100.0
"""Seconds for one test; then every thread's stack is printed, and the run ends."""

PACKAGE = "test.test_concurrent_futures"

IMPORTABLE_IN_A_CHILD = """\
import concurrent.futures, k8sfutures
concurrent.futures.K8sRabbitExecutor = k8sfutures.K8sRabbitExecutor
"""
"""For the tests that give ``from concurrent.futures import K8sRabbitExecutor`` to a new Python;
settings reach it through the environment."""


# --- what CPython's tests expect of an executor, beyond the public


class NoQueue:
    """Stands for ``_call_queue``, whose thread tests wait for: there is none."""

    def join_thread(self) -> None:
        pass


class K8sRabbitExecutor(k8sfutures.K8sRabbitExecutor):
    """As the tests construct it, and with the few private attributes that they only wait for."""

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: object = None,
        initializer: Any = None,
        initargs: tuple[Any, ...] = (),
        **settings: Any,
    ) -> None:
        super().__init__(max_workers, None, initializer, initargs, **settings)
        self._call_queue = NoQueue()
        # Tests wait until they have ended. The processes are the pods', which stay.
        self._processes: dict[int, Any] = {}
        self._executor_manager_thread = self._manager.thread


class InsteadOfProcessPoolExecutor(K8sRabbitExecutor):
    """For the tests that construct ``futures.ProcessPoolExecutor`` by this name.

    Not the same class as the mixin's: some tests skip what is known to hang if it were.
    """


class Futures:
    """Stands for the module ``concurrent.futures`` in a module of tests."""

    ProcessPoolExecutor = InsteadOfProcessPoolExecutor

    def __getattr__(self, name: str) -> object:
        return getattr(concurrent.futures, name)


def set_authkey(key: bytes) -> None:
    """The initializer of `NEEDS_AUTHKEY`."""
    multiprocessing.current_process().authkey = key


NEEDS_AUTHKEY = {"test_ressources_gced_in_workers"}
"""Tests whose calls talk to a process of `multiprocessing`, which knows its own children by this
key: the processes of a pod are not among them. Those of `WaitTests` do as well, where these have
events instead of waiting for some time (from 3.13.1 on)."""


NEEDS_A_POD = {"test_cancel_futures"}
"""Tests that rely on a call having been started when `shutdown` comes 1 ms after the constructor.
An executor that has not heard of a pod yet has started none, and cancels them all."""


def wait_tests() -> type:
    """CPython's tests of `wait`: in a module of their own since Python 3.12."""
    inside = pkgutil.iter_modules(getattr(importlib.import_module(PACKAGE), "__path__", ()))
    where = f"{PACKAGE}.test_wait" if any(one.name == "test_wait" for one in inside) else PACKAGE
    found: type = importlib.import_module(where).WaitTests
    return found


class K8sRabbitMixin:
    """Goes before CPython's ``ProcessPoolSpawnMixin``, of which it keeps what is not here."""

    executor_type = K8sRabbitExecutor

    manager: Any

    def setUp(self) -> None:
        has_events = isinstance(self, wait_tests()) and hasattr(super(), "create_event")
        if has_events or self._testMethodName in NEEDS_AUTHKEY:
            key = bytes(multiprocessing.current_process().authkey)
            self.executor_kwargs = {"initializer": set_authkey, "initargs": (key,)}
        super().setUp()
        if self._testMethodName in NEEDS_A_POD:
            self.executor.submit(int).result()

    @property
    def ctx(self) -> str:
        raise AttributeError("an executor here has no start method")

    def get_context(self) -> multiprocessing.context.BaseContext:
        return multiprocessing.get_context("spawn")

    def create_event(self) -> threading.Event:
        if self.manager is None:  # CPython's `setUp` makes one for pools that have a `ctx`
            self.manager = self.get_context().Manager()
        return self.manager.Event()


# --- finding the tests


def modules() -> list[Any]:
    """The modules of tests: a package since Python 3.12, one module before."""
    package = importlib.import_module(PACKAGE)
    inside = pkgutil.iter_modules(getattr(package, "__path__", ()))
    names = [info.name for info in inside if info.name.startswith("test_")]
    return [package, *(importlib.import_module(f"{PACKAGE}.{name}") for name in names)]


def adapt(module: Any) -> list[type[unittest.TestCase]]:
    """The module's classes for pools that spawn, with our mixin; prepares the module for them."""
    adapted = []
    for cls in list(vars(module).values()):
        if not (isinstance(cls, type) and issubclass(cls, unittest.TestCase)):
            continue
        bases: list[type] = []
        for base in cls.__bases__:
            if base.__name__ == "ProcessPoolSpawnMixin":
                bases.append(K8sRabbitMixin)
            bases.append(base)
        if K8sRabbitMixin in bases:
            # Its first base says what is tested, whatever the pool.
            name = f"K8sRabbit{bases[0].__name__}"
            adapted.append(type(name, tuple(bases), {"__module__": module.__name__}))
    if adapted and hasattr(module, "futures"):
        module.futures = Futures()
    if adapted and hasattr(module, "assert_python_ok"):
        original = module.assert_python_ok

        def assert_python_ok(option: str, source: str, **environment: str) -> object:
            assert option == "-c"
            return original(option, IMPORTABLE_IN_A_CHILD + source, **environment)

        module.assert_python_ok = assert_python_ok
    return adapted


def find() -> dict[str, unittest.TestCase]:
    """Each test by an id that is the same whether CPython has one module or several."""
    found: dict[str, unittest.TestCase] = {}
    loader = unittest.TestLoader()
    for module in modules():
        for cls in adapt(module):
            for name in loader.getTestCaseNames(cls):
                test_id = f"{cls.__bases__[0].__name__}.{name}"
                assert test_id not in found, test_id
                found[test_id] = cls(name)
    return found


def listing(found: Iterable[str]) -> dict[str, Any]:
    """See ``--list``."""
    excluded = {entry.test: entry.reason for entry in EXCLUSIONS}
    present = set(found)
    return {
        "python": platform.python_version(),
        "tests": [test_id for test_id in found if test_id not in excluded],
        "excluded": {test_id: excluded[test_id] for test_id in found if test_id in excluded},
        "shown_by": sorted({entry.shown_by for entry in EXCLUSIONS if entry.shown_by}),
        "stale": [
            entry.test
            for entry in EXCLUSIONS
            if entry.test not in present
            and sys.version_info[:2] >= entry.since
            and not entry.foreseen
        ],
    }


# --- running them


class Report(unittest.TestResult):
    """Writes one line of JSON for each test."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._id = ""
        self._status = ""
        self._text: list[str] = []
        self._start = 0.0

    def run(self, test_id: str, test: unittest.TestCase) -> None:
        """Run one test."""
        from test import support

        self._id, self._status, self._text = test_id, "passed", []
        support.environment_altered = False
        self._start = time.monotonic()
        faulthandler.dump_traceback_later(TIMEOUT, exit=True, file=sys.__stderr__)
        try:
            unittest.TestSuite([test]).run(self)  # a suite, so that setUpModule is called
        finally:
            faulthandler.cancel_dump_traceback_later()
        if support.environment_altered:
            self._fail("the test left threads or processes behind; see stderr")
        report = {
            "id": self._id,
            "status": self._status,
            "seconds": round(time.monotonic() - self._start, 2),
            "text": "\n".join(self._text),
        }
        print(json.dumps(report), file=self._out, flush=True)

    def _fail(self, text: str) -> None:
        self._status = "failed"
        self._text.append(text)

    def addError(self, test: unittest.TestCase, err: Any) -> None:
        self._fail("".join(traceback.format_exception(*err)))

    addFailure = addError

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self._fail(f"{subtest}\n" + "".join(traceback.format_exception(*err)))

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        if self._status == "passed":
            self._status = "skipped"
        self._text.append(reason)

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        self._fail("unexpected success")


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="say which tests there are")
    parser.add_argument("tests", nargs="*", help="ids, or one half of ids: a class or a test")
    arguments = parser.parse_args()
    from test import support

    support.use_resources = ["walltime"]
    support.verbose = False
    os.environ["K8SFUTURES_PODS"] = "local"
    os.environ["K8SFUTURES_OUTPUT"] = "plain"  # as a process pool's
    found = find()
    listed = listing(found)
    if arguments.list:
        sys.stdout.write(json.dumps(listed))
        return
    # Only reports go to stdout: tests print, and so do their calls.
    report = Report(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    wanted = set(arguments.tests or listed["tests"])
    for test_id, test in found.items():
        if {test_id, *test_id.split(".")} & wanted:
            report.run(test_id, test)


if __name__ == "__main__":
    main()
