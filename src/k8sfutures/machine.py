"""What there is on this machine: folders that need not be there, and who a process is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from pathlib import Path
from typing import Final

from .errors import SettingValueError

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


def home_folder() -> Path | None:
    """The user's home folder; None where no HOME says it and the user's number has no name."""
    try:
        return Path.home()
    except RuntimeError:
        return None


def working_folder() -> Path | None:
    """The working directory; None where somebody has removed it."""
    try:
        return Path.cwd()
    except FileNotFoundError:
        return None


def is_file(path: Path) -> bool:
    """Whether a file is there, as far as this user can see.

    A folder above it may be closed to this user: after ``sudo -u``, HOME and the working directory
    can be those of another. `Path.is_file` raises an error there, before Python 3.14.

    Args:
        path: the file's.
    """
    try:
        return path.is_file()
    except OSError:
        return False


def expanded(path: str) -> Path:
    """A path with the home folder that it begins with; ``~`` of nobody stays as it is."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def cache_folder() -> Path:
    """Where state of this user on this machine is kept.

    Returns:
        ``$K8SFUTURES_CACHE_DIR``, else ``k8sfutures`` in ``$XDG_CACHE_HOME`` or ``~/.cache``.
        It need not exist.

    Raises:
        SettingValueError: this user has no home folder, or no user has the one that is named.
    """
    given = os.environ.get("K8SFUTURES_CACHE_DIR")
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        if given:
            return Path(given).expanduser().absolute()
        return (Path(base) if base else Path.home() / ".cache") / "k8sfutures"
    except RuntimeError as error:
        raise SettingValueError(
            f"there is no folder for files of the local broker and of local pods: {error} Name one "
            f"in K8SFUTURES_CACHE_DIR (which is {given!r} now)"
            if given
            else "this user has no home folder (no HOME, and no entry among the machine's users), "
            "so there is none for files of the local broker and of local pods: name one in "
            "K8SFUTURES_CACHE_DIR"
        ) from error


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


def process_space() -> str:
    """Among which processes a pid names this one: equal where two see each other by their pids.

    It is made of this start of the machine, the namespace of pids (pid_namespaces(7)) and the user,
    since ``/proc`` can be mounted so that it shows a user's own processes alone (``hidepid``).

    Returns:
        8 hexadecimal digits. Where the kernel says nothing of either, it is the host's name that
        counts.
    """
    told = [platform.node(), str(os.geteuid())]
    with contextlib.suppress(OSError):  # a sandbox need not have it
        told.append(_BOOT.read_text())
    with contextlib.suppress(OSError):
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(told).encode("utf-8", "surrogateescape")).hexdigest()[:8]


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
