"""Fixtures: brokers that do as they are told, and programs that a signal ends."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faults import Program
from faulty_proxy import FaultyProxy
from managed_broker import ManagedBroker

from k8sfutures.broker import ensure_local_broker


@pytest.fixture
def faulty_proxy(cache: Path) -> Iterator[FaultyProxy]:
    """In front of the broker of the whole run."""
    running = FaultyProxy(ensure_local_broker())
    yield running
    running.close()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManagedBroker]:
    """A broker of the module's own, that takes commands."""
    running = ManagedBroker(tmp_path_factory.mktemp("broker"))
    yield running
    running.stop()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Callable[..., Program]]:
    """Starts programs: source, and its arguments; what still runs at the end is killed."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(source: str, *arguments: object, before: tuple[str, ...] = ()) -> Program:
            nonlocal count
            count += 1
            running = Program(tmp_path / f"program{count}.py", source, arguments, before)
            stack.callback(running.close)
            return running

        yield start
