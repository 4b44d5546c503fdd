"""A crash whose core the kernel takes its time to write: it is told once all the same."""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
from pathlib import Path

import pytest

from k8sfutures import WorkerCrashed
from k8sfutures.testing import MemoryCluster
from k8sfutures.worker import agent

pytestmark = pytest.mark.timeout(60)

PIECE = 16 << 20
PIECES = 40
"""A quarter of a GiB of core, of 16 MiB of memory that are mapped so many times."""


def crash_with_a_large_core(folder: str) -> None:
    os.chdir(folder)
    _, most = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (most, most))
    file = os.memfd_create("piece")
    os.truncate(file, PIECE)
    pieces = [mmap.mmap(file, PIECE) for _ in range(PIECES)]
    for piece in pieces:
        for at in range(0, PIECE, mmap.PAGESIZE):
            piece[at] = 1
    print("before", flush=True)
    ctypes.string_at(0)


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_CORE)[1] != resource.RLIM_INFINITY,
    reason="no process may leave a core",
)
def test_last_words_are_told_once_while_the_core_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(agent, "TICK", 0.1)  # as if the core took minutes to write
    with MemoryCluster([1]) as cluster, cluster.executor() as ex:
        error = ex.submit(crash_with_a_large_core, str(tmp_path)).exception(50)
    assert isinstance(error, WorkerCrashed)
    assert error.stack
    assert error.stack.startswith("Fatal Python error: Segmentation fault")
    said = "".join(capfd.readouterr())
    assert "before" in said
    assert "Fatal" not in said
    for core in tmp_path.iterdir():
        core.unlink()
