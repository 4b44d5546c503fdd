"""The wall clock may jump by a day, forwards or backwards: nothing is decided by it."""

from __future__ import annotations

import ast
import itertools
import os
import struct
import time
from pathlib import Path

import faults
import pytest

import k8sfutures
from k8sfutures.testing import MemoryCluster

ALLOWED = {
    ("session.py", "time.time_ns"): "where the counter of a client's messages begins; the name of "
    "a client is new, so any number would do",
    ("worker/agent.py", "time.time_ns"): "likewise, of a pod's",
    ("pods/local.py", "time.time"): "how old the log of a pod that has ended is, by the clock that "
    "files have; a jump removes it sooner or later than it would go",
}
"""Who reads the wall clock, and why that decides nothing."""

WALL_CLOCK = {
    *("time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.strftime"),
    *("dt.datetime.now", "dt.datetime.today", "dt.datetime.utcnow", "dt.date.today"),
    *("datetime.now", "datetime.today", "datetime.utcnow", "date.today"),
}


def test_nobody_else_reads_the_wall_clock():
    package = Path(k8sfutures.__file__).parent
    found = {
        (path.relative_to(package).as_posix(), ast.unparse(node))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and ast.unparse(node) in WALL_CLOCK
    }
    assert found == ALLOWED.keys()


def test_that_time_is_imported_as_a_module():
    """Else the test above would not see who reads the clock."""
    package = Path(k8sfutures.__file__).parent
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module in {"time", "datetime"}:
                raise AssertionError(f"{path}: {ast.unparse(node)}")


@pytest.mark.parametrize("step", [86_400, -86_400])
def test_a_client_and_its_pods_work_while_the_clock_jumps(monkeypatch, step):
    days = itertools.count(0, step)
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + next(days))
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + next(days) * 10**9)
    with MemoryCluster([2]) as cluster:
        for _ in range(3):  # each client begins on another day
            with cluster.executor() as ex:
                futures = [ex.submit(pow, n, 2) for n in range(200)]
                assert [future.result(30) for future in futures] == [n * n for n in range(200)]
                assert list(ex.map(abs, range(-200, 0))) == list(range(200, 0, -1))
        name = cluster.pods[0]
        with cluster.executor() as ex:
            future = ex.submit(time.sleep, 0.5)
            cluster.cut(name)
            cluster.heal(name)
            assert future.result(30) is None


PROGRAM = """
    import struct, sys, time
    from pathlib import Path
    from faults import work
    from journal import count
    from k8sfutures import CallTimeout, K8sRabbitExecutor

    pool, clock, journal = sys.argv[1], Path(sys.argv[2]), sys.argv[3]

    def now():
        return time.time()

    def jump(days):
        with clock.open("r+b") as file:
            file.write(struct.pack("d", days * 86400.0))

    with K8sRabbitExecutor(pods="local", pool=pool) as ex:
        assert type(time.time).__name__ == "function", "not Python's own"
        for days in (1, -1, 400, -400, 0):
            before = count(journal)
            running = ex.submit(work, journal, f"running {days}", 0.5)
            limited = ex.options(timeout=0.3).submit(time.sleep, 600)
            while count(journal) == before:
                time.sleep(0.01)
            jump(days)
            assert abs(ex.submit(now).result() - time.time()) < 1000
            assert running.result(30) == f"running {days}"
            assert type(limited.exception(30)) is CallTimeout
            assert list(ex.map(abs, range(-200, 0))) == list(range(200, 0, -1))
        print("done")
"""


@pytest.mark.broker
def test_local_pods_and_their_client_work_while_the_clock_of_their_processes_jumps(
    rabbitmq, program, journal, tmp_path, monkeypatch
):
    """Agents, CPU processes, and all that pika and Python do there, too."""
    clock = tmp_path / "clock"
    clock.write_bytes(struct.pack("d", 0.0))
    monkeypatch.setenv("CHAOS_CLOCK", str(clock))
    folder = Path(__file__).parents[2] / "benchmarks" / "chaos" / "clock"
    path = [str(folder), str(Path(faults.__file__).parent)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    code, out, error = program(PROGRAM, rabbitmq.pool, clock, journal.address).end()
    assert (code, out) == (0, "done\n"), error
    assert len(journal.lines()) == 10, "each ran once"
