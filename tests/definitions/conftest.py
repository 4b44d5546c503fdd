"""Ways to run a program, on pods that have never seen it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from statements import statements

from k8sfutures import K8sRabbitExecutor

PROGRAMS = Path(__file__).parent / "programs"
WAIT = 100
# The program's own file is gone before its first call: no pod can find it, by whatever path.
FORGET = (
    "import os as _os, shutil as _shutil; _shutil.rmtree(_os.environ['K8SFUTURES_TEST_FOLDER'])"
)
FUTURE = "from __future__ import annotations\n"


def kinds() -> str:
    """The program, and what this Python's syntax has beside."""
    source = (PROGRAMS / "kinds.py").read_text("utf-8")
    if sys.version_info >= (3, 12):
        more = (PROGRAMS / "kinds-3.12.txt").read_text("utf-8")
        before, mark, report = source.partition("# --- the report")
        source = before + more + mark + report
    return source


def forgetful(source: str) -> str:
    before, mark, report = source.partition("# --- the report")
    return f"{before}{FORGET}\n\n\n{mark}{report}"


def run(command: list[str], environment: dict[str, str], here: Path) -> None:
    done = subprocess.run(
        command,
        cwd=here,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=WAIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def script(folder: Path, here: Path, environment: dict[str, str]) -> None:
    path = folder / "kinds.py"
    path.write_text(forgetful(kinds()), "utf-8")
    run([sys.executable, str(path)], environment, here)


def script_with_future_annotations(folder: Path, here: Path, environment: dict[str, str]) -> None:
    path = folder / "kinds.py"
    path.write_text(FUTURE + forgetful(kinds()), "utf-8")
    run([sys.executable, str(path)], environment, here)


def command_line(folder: Path, here: Path, environment: dict[str, str]) -> None:
    run([sys.executable, "-c", kinds()], environment, here)


def module(folder: Path, here: Path, environment: dict[str, str]) -> None:
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "kinds.py").write_text(forgetful(kinds()), "utf-8")
    run([sys.executable, "-m", "package.kinds"], environment | {"PYTHONPATH": str(folder)}, here)


def interactive(folder: Path, here: Path, environment: dict[str, str]) -> None:
    """As one would type it, into a Python whose input is no terminal."""
    lines = "\n".join([*statements(kinds()), "exit()", ""])
    converse(here, environment | {"TERM": "dumb"}, lines, terminal=False)


def terminal(folder: Path, here: Path, environment: dict[str, str]) -> None:
    """As one would paste it into the prompt that Python has since 3.13."""
    pasted = [f"\x1b[200~{one.rstrip()}\x1b[201~\r\r" for one in statements(kinds())]
    environment = {**environment, "TERM": "xterm", "PYTHON_HISTORY": str(here / "history")}
    converse(here, environment, "".join([*pasted, "exit()\r"]), terminal=True)


def converse(here: Path, environment: dict[str, str], text: str, *, terminal: bool) -> None:
    """Run an interactive Python, and type a text into it."""
    master, theirs = pty.openpty()
    client = subprocess.Popen(
        [sys.executable, "-i", "-q"],
        cwd=here,
        env=environment,
        stdin=theirs if terminal else subprocess.PIPE,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    keyboard = master if terminal else client.stdin.fileno()
    os.set_blocking(keyboard, False)
    left, said = text.encode(), bytearray()
    try:
        while True:
            typing = [keyboard] if left else []
            readable, writable, _ = select.select([master], typing, [], WAIT)
            assert readable or writable, said.decode(errors="replace")
            if writable:
                left = left[os.write(keyboard, left[:1024]) :]
                if not left and not terminal:
                    client.stdin.close()
            if readable:
                try:
                    said += os.read(master, 1 << 16)
                except OSError:  # it has ended
                    break
        assert client.wait(10) == 0, said.decode(errors="replace")
    finally:
        client.kill()
        client.wait()
        os.close(master)


def notebook(folder: Path, here: Path, environment: dict[str, str]) -> None:
    """In a kernel, cell by cell."""
    cells = re.split(r"\n(?=# --- )", kinds())
    book = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    client = NotebookClient(book, timeout=WAIT, resources={"metadata": {"path": str(here)}})
    client.execute(env=environment)


WAYS = {
    "script": script,
    "future annotations": script_with_future_annotations,
    "-c": command_line,
    "-m": module,
    "repl": interactive,
    "notebook": notebook,
}
if sys.version_info >= (3, 13):
    WAYS["terminal"] = terminal

Settings = dict[str, Any]


@pytest.fixture(
    scope="session",
    params=["local", pytest.param("kubernetes", marks=pytest.mark.kubernetes)],
)
def pods(request: pytest.FixtureRequest) -> Iterator[Settings]:
    """Warm pods that were started from elsewhere; the settings that find them."""
    pool = "definitions"
    if request.param == "kubernetes":
        cluster = request.getfixturevalue("kubernetes")
        settings = cluster.settings(pool=pool)
        executor = cluster.executor(pool=pool)
    else:
        request.getfixturevalue("cache")
        settings = {"pods": "local", "pool": pool}
        executor = K8sRabbitExecutor(pods="local", pool=pool)
    with executor:
        assert executor.submit(pow, 2, 3).result(WAIT) == 8
    yield settings
    if request.param == "kubernetes":
        cluster.clear()
    else:
        executor.pool.delete()


@pytest.fixture(scope="session")
def reports(
    pods: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], dict[str, str | None]]:
    """What became of each case when the program was run one way; it is run once."""
    known: dict[str, dict[str, str | None]] = {}

    def report(way: str) -> dict[str, str | None]:
        if way not in known:
            folder, here = tmp_path_factory.mktemp("code"), tmp_path_factory.mktemp("here")
            path = here / "report.jsonl"
            environment = {
                **os.environ,
                **{f"K8SFUTURES_{name.upper()}": str(value) for name, value in pods.items()},
                "K8SFUTURES_TEST_REPORT": str(path),
                "K8SFUTURES_TEST_FOLDER": str(folder),
            }
            WAYS[way](folder, here, environment)
            shutil.rmtree(folder, ignore_errors=True)
            lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            known[way] = {line["case"]: line["error"] for line in lines}
        return known[way]

    return report
