"""The clients of the soak, as who has started them sees them."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Client:
    """A client process, and what it has said.

    Args:
        name: of it.
        arguments: of its program.
        environment: of it.
        log: its standard error.
    """

    def __init__(
        self, name: str, arguments: list[str], environment: dict[str, str], log: Path
    ) -> None:
        self.name = name
        self.log = log
        self.said: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.is_suspended = False
        self.was_killed = False
        self.heard = threading.Event()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.chaos.client", *arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._thread = threading.Thread(target=self._listen, name=name, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith(b"\n"):
                break  # it was killed while it spoke
            item = json.loads(line)
            self.said.append(item)
            self.counts[item["kind"]] += 1
            self.heard.set()

    def of(self, kind: str) -> Iterator[dict[str, Any]]:
        """What it has said of a kind."""
        return (item for item in list(self.said) if item["kind"] == kind)

    def wait_for(self, kind: str, seconds: float) -> dict[str, Any]:
        """Wait until it says something of a kind."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            for item in self.of(kind):
                return item
            self.heard.clear()
            self.heard.wait(0.2)
        raise RuntimeError(f"{self.name} did not say {kind}; see {self.log}")

    def last(self, kind: str) -> dict[str, Any]:
        """The last that it has said of a kind; empty where it has said none."""
        return next((item for item in reversed(self.said) if item["kind"] == kind), {})

    def unfinished(self) -> list[dict[str, Any]]:
        """Pieces of work that it has begun, and has not come to the end of."""
        ended = {item["first"] for kind in ("done", "hang") for item in self.of(kind)}
        return [item for item in self.of("begun") if item["first"] not in ended]

    def ask_to_end(self) -> None:
        """Let it finish its round."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()

    def ends_within(self, seconds: float) -> bool:
        """Wait for its end."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        self._thread.join(10)
        return True

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
        self._thread.join(10)
