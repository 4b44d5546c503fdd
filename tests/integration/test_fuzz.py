"""Forged and damaged messages: see `benchmarks.fuzz`, which is run here as anyone can run it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("messages", "seed"), [(100_000, 1)])
def test_none_is_unpickled_and_all_are_dropped(messages, seed):
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.fuzz", f"--messages={messages}", f"--seed={seed}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert f"seed {seed}: {messages} dropped, none unpickled" in run.stdout
    assert "signed and damaged" in run.stdout


def test_the_trap_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.fuzz import Trap

    pickle.loads(pickle.dumps(Trap(tmp_path / "seen")))
    assert (tmp_path / "seen").exists()
