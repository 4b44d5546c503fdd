"""What tests of faults need: to wait for what happens, and programs to be ended by signals."""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from journal import note, wait_for_word


def wait_until(condition: Callable[[], object], what: str = "it", seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about"
        time.sleep(0.01)


def wait_for_end(pid: int, seconds: float = 30.0) -> bool:
    """Wait until a process has ended, at most so many seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(descriptor, select.POLLIN)
        return bool(poller.poll(seconds * 1000))
    finally:
        os.close(descriptor)


def travels(error: BaseException) -> None:
    """An exception is the same after it was pickled: its type, words, fields and cause's words."""
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)


def work(journal: str, name: str, seconds: float) -> str:
    """Takes some time, and notes when it starts, in which process, and when it ends."""
    note(journal, f"start {name} {os.getpid()}")
    time.sleep(seconds)
    note(journal, f"end {name}")
    return name


def work_until_word(journal: str, name: str) -> str:
    """Goes on until the journal gives word; notes when it starts, and in which process."""
    note(journal, f"start {name} {os.getpid()}")
    wait_for_word(journal)
    return name


class Program:
    """A program of a user's, that says what it does on its standard output, line by line.

    Args:
        path: where to put it.
        source: what to put there.
        arguments: for it.
        before: a command that starts it.
    """

    def __init__(
        self, path: Path, source: str, arguments: tuple[object, ...], before: tuple[str, ...] = ()
    ) -> None:
        path.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            # A job in the background ignores SIGINT, and so would what it starts.
            [
                *before,
                "env",
                "--default-signal=INT",
                sys.executable,
                str(path),
                *map(str, arguments),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pid = self.process.pid

    def wait_for(self, line: str) -> None:
        """Wait until it has said this."""
        assert self.process.stdout
        for said in self.process.stdout:
            if said.strip() == line:
                return
        raise AssertionError(f"it ended and never said {line!r}: {self.process.communicate()}")

    def say(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal does."""
        self.process.send_signal(signal.SIGINT)

    def end(self, seconds: float = 30.0) -> tuple[int, str, str]:
        """Wait for its end: exit code, and the rest of stdout and stderr."""
        out, error = self.process.communicate(timeout=seconds)
        return self.process.returncode, out, error

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
