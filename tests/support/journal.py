"""What calls do, told to the test over TCP: pods share no files with it, nor with each other."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from typing import Final

_NOTE: Final = "+"
_LOOK: Final = "?"
_WAIT: Final = "!"


class Journal:
    """Takes lines from calls, which need its address alone, and may hold them up.

    Attributes:
        address: ``host:port``, for the functions below.

    Args:
        host: an address of this machine that calls reach.
    """

    def __init__(self, host: str = "127.0.0.1") -> None:
        self._server = socket.create_server((host, 0), backlog=128)
        self.address = "{}:{}".format(*self._server.getsockname())
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._word = threading.Event()
        self._thread = threading.Thread(target=self._run, name="journal")
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # it is closed
                return
            # Each on a thread of its own, as some wait.
            threading.Thread(
                target=self._serve, args=(connection,), name="journal", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        # A call may be ended at any time, and is then told nothing.
        with connection, contextlib.suppress(OSError):
            connection.settimeout(10)
            with connection.makefile(encoding="utf-8") as file:
                line = file.readline()
            if not line.endswith("\n"):
                return
            if line[0] == _WAIT:
                self._word.wait()
            with self._changed:
                if line[0] == _NOTE:
                    self._lines.append(line[1:-1])
                    self._changed.notify_all()
                count = len(self._lines)
            connection.sendall(b"%d\n" % count)

    def lines(self) -> list[str]:
        with self._changed:
            return list(self._lines)

    def wait_for(self, pattern: str, seconds: float = 60.0) -> re.Match[str]:
        """Wait for a line that a pattern matches; the match."""

        def found() -> re.Match[str] | None:
            return next(filter(None, (re.fullmatch(pattern, one) for one in self._lines)), None)

        with self._changed:
            match = self._changed.wait_for(found, seconds)
            assert match, f"no line {pattern!r} in {self._lines}"
            return match

    def nth(self, number: int, seconds: float = 40.0) -> str:
        """Wait for so many lines; the last of them."""
        with self._changed:
            there = self._changed.wait_for(lambda: len(self._lines) >= number, seconds)
            assert there, f"no line {number}: {self._lines}"
            return self._lines[number - 1]

    def give_word(self) -> None:
        """Let calls go on that `wait_for_word`."""
        self._word.set()

    def close(self) -> None:
        self._word.set()
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(15)


# --- in calls


def note(journal: str, line: str) -> int:
    """Write a line; returns how many there are then, so which one this is, counted from 1."""
    return _ask(journal, _NOTE + line, 10)


def count(journal: str) -> int:
    """How many lines there are."""
    return _ask(journal, _LOOK, 10)


def wait_for_word(journal: str) -> None:
    """Wait for `Journal.give_word`, however long that takes."""
    _ask(journal, _WAIT, None)


def _ask(journal: str, line: str, seconds: float | None) -> int:
    host, _, port = journal.rpartition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.settimeout(seconds)
        connection.sendall(f"{line}\n".encode())
        with connection.makefile() as file:
            return int(file.readline())
