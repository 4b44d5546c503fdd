"""Whether the kernel has killed processes of this pod because its memory was used up."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_CGROUP: Final = Path("/sys/fs/cgroup")

_NO_LIMIT: Final = 1 << 60
"""Version 1 of cgroups says "no limit" with a number of bytes larger than any."""


class MemoryVerdict:
    """Tells, after each death, whether the kernel's out-of-memory killer was at work.

    Args:
        root: where the pod's cgroup is mounted: version 2, or version 1 below ``memory``.
    """

    def __init__(self, root: Path = _CGROUP) -> None:
        self._events, self._limit = root / "memory.events", root / "memory.max"
        if not self._events.exists():
            self._events = root / "memory/memory.oom_control"
            self._limit = root / "memory/memory.limit_in_bytes"
        self._kills = self._count()

    def killed(self) -> bool:
        """Whether it has killed any process since the last time."""
        before, self._kills = self._kills, self._count()
        return self._kills > before

    @property
    def limit(self) -> int | None:
        """Bytes that the pod may use, or None for no limit of its own."""
        try:
            limit = int(self._limit.read_text())
        except (OSError, ValueError):  # "max", or no such file
            return None
        return limit if limit < _NO_LIMIT else None

    def _count(self) -> int:
        try:
            lines = self._events.read_text().splitlines()
        except OSError:
            return 0
        for line in lines:
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
        return 0
