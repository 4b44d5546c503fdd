"""What the local broker and local pods need of this machine: a folder, and who a process is."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where state of this user on this machine is kept.

    Returns:
        ``$K8SFUTURES_CACHE_DIR``, else ``k8sfutures`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
        It need not exist.
    """
    given = os.environ.get("K8SFUTURES_CACHE_DIR")
    if given:
        return Path(given).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "k8sfutures"


def make_private(*folders: Path) -> None:
    """Make folders that nobody else can look into or write to; what is there already, too.

    Whoever else could write there could have us send our work to a broker of theirs, take their
    processes for our pods, or have us write where a link of theirs leads.

    Args:
        *folders: each above the next.

    Raises:
        OSError: one cannot be made, or is another user's.
    """
    for folder in folders:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.stat().st_uid != os.geteuid():
            raise PermissionError(
                f"{folder} belongs to another user; name another cache folder in "
                "K8SFUTURES_CACHE_DIR"
            )
        folder.chmod(0o700)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks after boot; with its pid it names it for good.

    Field 22 of ``/proc/<pid>/stat``, proc(5).

    Args:
        pid: of any process.

    Returns:
        The time, or None where no such process runs (a zombie has ended).
    """
    fields = _stat(pid)
    return None if fields[0] in "ZX" else int(fields[19])


def is_stopped(pid: int) -> bool:
    """Whether a process runs no further until somebody lets it: SIGSTOP, not a debugger's stop.

    Args:
        pid: of any process; of none, that is False.
    """
    return _stat(pid)[0] == "T"


def _stat(pid: int) -> list[str]:
    """What follows the name in ``/proc/<pid>/stat``; of no process, as of one that has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ["X"]
    return stat.rpartition(")")[2].split()
