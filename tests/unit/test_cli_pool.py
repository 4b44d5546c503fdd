"""``k8sfutures pool``: what it says, and the exit code, where there is nothing to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from k8sfutures import cli, cli_pool
from k8sfutures.pods.local import LocalPod

LOCAL = ["--pods", "local"]


@pytest.fixture(autouse=True)
def no_pods(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of the test's own, without pods."""
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path))


def test_a_pool_that_is_not_there_cannot_be_deleted(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", "delete", "mine", *LOCAL]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == ("k8sfutures: there is no pool mine on this machine, and no other either\n")


def test_who_misspells_a_pool_is_told_which_there_are(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pods = [LocalPod(f"pod-{n}", pool, n, (0,)) for n, pool in enumerate(("b", "a", "b"))]
    monkeypatch.setattr(cli_pool, "local_pods", lambda: pods)
    assert cli.main(["pool", "delete", "mine", *LOCAL]) == 1
    assert capsys.readouterr().err == (
        "k8sfutures: there is no pool mine on this machine; there are: a, b\n"
    )


def test_to_delete_all_of_no_pools_is_done_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", "delete", "--all", *LOCAL]) == 0
    assert capsys.readouterr().out == "no pods of any pool are there\n"


@pytest.mark.parametrize("name", ["", "a b"])
@pytest.mark.parametrize("command", ["pool delete", "pods stop"])
def test_what_is_no_name_stands_for_no_pool(
    capsys: pytest.CaptureFixture[str], command: str, name: str
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*command.split(), name])
    assert end.value.code == 2
    assert f"{name!r} can be no pool's name" in capsys.readouterr().err


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_who_does_not_read_what_it_says_is_shown_no_traceback(
    monkeypatch: pytest.MonkeyPatch, unbuffered: str
) -> None:
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    read, write = os.pipe()
    os.close(read)
    full = os.open("/dev/full", os.O_WRONLY)
    for out, words in ((write, ""), (full, "k8sfutures: [Errno 28] No space left on device\n")):
        done = subprocess.run(
            [sys.executable, "-m", "k8sfutures", "pods", "list"],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
        os.close(out)
        assert (done.returncode, done.stderr) == (1, words)


def test_no_pools_are_listed_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pool", "list", *LOCAL]) == 0
    assert capsys.readouterr().out == "no pools on this machine\n"
