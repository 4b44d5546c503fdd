"""docker, podman and buildah: which of them works here, their runs, and their logins."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from .errors import ImageError

Log = Callable[[str], None]

TOOLS: Final = ("docker", "podman", "buildah")
"""The programs that can build and push images, in the order in which they are tried."""

_PROBES: Final[Mapping[str, Sequence[str]]] = {
    # docker is a client: only its server's version says that there is an engine behind it.
    "docker": ("version", "--format", "{{.Server.Version}}"),
    "podman": ("info",),
    "buildah": ("info",),
}
_PROBE_SECONDS: Final = 30.0
_LOGIN_SECONDS: Final = 60.0
_LAST_LINES: Final = 40  # BuildKit shows the Dockerfile once more after what failed.
_OF_REGISTRIES: Final = ("--tls-verify", "--cert-dir")
"""Arguments of a push that say how to reach the registry, so they count for its login too."""


def find_tool(wanted: str | None, log: Log) -> str:
    """Finds a tool that is installed and works.

    Args:
        wanted: the only one to try, or None for any of `TOOLS`.
        log: is called with a line for each that is installed and does not work.

    Returns:
        The tool.

    Raises:
        ImageError: there is none; the text says of each why it was not taken.
    """
    if wanted not in (None, *TOOLS):
        raise ImageError(f"tool={wanted!r} must be one of {', '.join(TOOLS)}")
    reasons = []
    for tool in TOOLS if wanted is None else [wanted]:
        installed = shutil.which(tool) is not None
        reason = _why_not(tool) if installed else "it is not installed"
        if reason is None:
            return tool
        if installed:
            log(f"{tool} does not work here: {reason}")
        reasons.append(f"{tool}: {reason}")
    raise ImageError(
        f"no tool to build or push an image with works here ({'; '.join(reasons)}). Install and "
        "start one of them; buildah alone needs no service: apt-get install buildah"
    )


def _why_not(tool: str) -> str | None:
    try:
        probe = _finished([tool, *_PROBES[tool]], {}, _PROBE_SECONDS)
    except subprocess.TimeoutExpired:
        return f"it did not answer within {_PROBE_SECONDS:.0f} s"
    except OSError as error:
        return str(error)
    if probe.returncode == 0:
        return None
    lines = probe.stdout.split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it fails")


def run(
    command: Sequence[str], log: Log, environment: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """Runs a tool, and shows what it prints as it comes.

    Args:
        command: program and arguments.
        log: is called with each line that it prints.
        environment: variables for it besides ours.

    Returns:
        Its exit code, and the last lines that it printed.
    """
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, **_piped(environment or {})
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            log(line.rstrip())
            last.append(line.rstrip())
    return process.returncode, "\n".join(last)


class Login:
    """A login of one command's own: nothing of it stays with the tool.

    Args:
        tool: one of `TOOLS`.
        folder: an empty one for it, which the caller removes.

    Attributes:
        options: what the command needs among its arguments.
        environment: what it needs among its variables.
    """

    def __init__(self, tool: str, folder: Path) -> None:
        self._tool = tool
        self._folder = folder
        self.options: list[str] = []
        self.environment: dict[str, str] = {}

    def log_in(self, registry: str, user: str, password: str, arguments: Sequence[str]) -> None:
        """Logs in, with the password on stdin alone.

        Args:
            registry: its host and port.
            user: its user.
            password: the user's.
            arguments: the command's, of which some count here too.

        Raises:
            ImageError: the registry refused, or cannot be reached.
        """
        more: list[str] = []
        if self._tool == "docker":
            self._copy_docker_config()
            self.environment = {"DOCKER_CONFIG": str(self._folder)}
        else:
            self.options = ["--authfile", str(self._folder / "auth.json")]
            more = [text for text in arguments if text.startswith(_OF_REGISTRIES)]
        command = [
            *(self._tool, "login", "--username", user, "--password-stdin"),
            *(*self.options, *more, registry),
        ]
        done = None
        with contextlib.suppress(subprocess.TimeoutExpired):  # it holds what was written to stdin
            done = _finished(command, self.environment, _LOGIN_SECONDS, f"{password}\n")
        if done is None:
            raise ImageError(f"{registry} did not answer a login within {_LOGIN_SECONDS:.0f} s")
        if done.returncode:
            said = done.stdout.replace(password, "***").strip()
            raise ImageError(
                f"{self._tool} could not log in at {registry} as {user}:\n\n{said}\n\nCheck the "
                "settings registry_server, registry_user and registry_password"
            )

    def _copy_docker_config(self) -> None:
        """Which engine to talk to stays as it is; only logins are others."""
        given = os.environ.get("DOCKER_CONFIG")
        theirs = Path(given) if given else Path("~/.docker").expanduser()
        config: dict[str, Any] = {}
        if (theirs / "config.json").is_file():
            try:
                config = json.loads((theirs / "config.json").read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise ImageError(f"{theirs}/config.json cannot be read: {error}") from error
        for logins in ("auths", "credsStore", "credHelpers"):
            config.pop(logins, None)
        (self._folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        if (theirs / "contexts").is_dir():
            (self._folder / "contexts").symlink_to((theirs / "contexts").absolute())


def _finished(
    command: Sequence[str], environment: Mapping[str, str], seconds: float, text: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, timeout=seconds, check=False, **_piped(environment))


def _piped(environment: Mapping[str, str]) -> dict[str, Any]:
    """One stream of text comes back; and what our settings hold is none of the tool's business."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("K8SFUTURES_")}
    return {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
        "encoding": "utf-8",
        "errors": "replace",
        "env": {**ours, **environment},
    }
