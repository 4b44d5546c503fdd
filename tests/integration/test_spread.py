"""Local pods of several pools, on the CPUs of one machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from k8sfutures.broker import ensure_local_broker
from k8sfutures.machine import start_time
from tests.conftest import end_process

pytestmark = [
    pytest.mark.broker,
    pytest.mark.timeout(120),
    pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU alone"),
]

PROGRAM = """
import os, sys
from k8sfutures import K8sRabbitExecutor

with K8sRabbitExecutor(1, pods="local") as ex:
    print(*ex.submit(os.sched_getaffinity, 0).result(), flush=True)
    sys.stdin.read()
"""

Start = Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def start(cache: Path, tmp_path: Path) -> Iterator[Start]:
    """Starts a program that uses one CPU, in a folder, and so a pool, of its own."""
    programs: list[subprocess.Popen[str]] = []
    environment = os.environ | {
        "K8SFUTURES_AMQP_URL": ensure_local_broker(),
        "K8SFUTURES_CACHE_DIR": str(tmp_path / "cache"),  # where there are no other pods
    }

    def start_it(name: str) -> subprocess.Popen[str]:
        (tmp_path / name).mkdir()
        programs.append(
            subprocess.Popen(
                [sys.executable, "-c", PROGRAM],
                cwd=tmp_path / name,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        return programs[-1]

    yield start_it
    for program in programs:
        program.communicate()
    for record in pods(tmp_path):
        end_process(record["pid"])


def pods(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(path.read_text()) for path in folder.glob("cache/pods/*/*.json")]
    return [record for record in records if start_time(record["pid"]) == record["started"]]


def cpu_of(program: subprocess.Popen[str]) -> int:
    assert program.stdout
    (cpu_id,) = map(int, program.stdout.readline().split())
    return cpu_id


def test_programs_that_start_at_once_and_use_one_cpu_each_use_different_ones(start: Start) -> None:
    programs = [start("one"), start("two")]
    assert len(set(map(cpu_of, programs))) == 2


def test_the_cpu_of_a_pod_that_was_killed_is_given_again(start: Start, tmp_path: Path) -> None:
    first = cpu_of(start("one"))
    (killed,) = pods(tmp_path)
    second = cpu_of(start("two"))
    end_process(killed["pid"])
    assert second != first
    assert cpu_of(start("three")) == first
