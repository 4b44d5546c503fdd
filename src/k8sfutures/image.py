"""The pods' image: its name, how it is built from the very code that runs here, and its push.

What a build is given is a new folder with the layout of a clone, so `worker/Dockerfile` builds
from either::

    worker/Dockerfile          the project's own, see `shipped_file`
    worker/constraints.txt     what a pod imports, in the versions that are installed here
    worker/requirements.txt    what the user wants in the image besides
    dist/k8sfutures-*.whl      this package, as it lies on the disk: see `write_wheel`

docker, podman or buildah does the rest: the first of them that is installed and works.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import importlib.metadata
import logging
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ._version import __version__
from .config import Settings
from .container_tools import Log, Login, find_tool, run
from .errors import ImageError
from .image_name import default_image, registry_at, this_python

logger = logging.getLogger("k8sfutures.image")

DEPENDENCIES: Final = ("cloudpickle", "cryptography", "dill", "msgpack", "pika", "tblib")
"""What a pod imports: each in the client's version, as they must understand each other's pickles.
A pod does not talk to Kubernetes, so of the package's dependencies that client stays out."""

_PROJECT: Final = "k8sfutures"

_MINOR: Final = re.compile(r"3\.(\d+)")
_WRONG_PYTHON: Final = re.compile(r"base image has (Python \d+\.\d+|no Python)")


def shipped_file(name: str) -> Path:
    """Finds a file of the project's `worker` folder, such as ``Dockerfile``.

    Args:
        name: the file's name.

    Returns:
        Where it is: in the clone that this package runs from, or else where the installation of
        the package has put it.

    Raises:
        ImageError: in neither.
    """
    root = Path(__file__).resolve().parents[2]
    in_clone = root / "worker" / name
    if in_clone.is_file() and (root / "src" / _PROJECT).is_dir():
        return in_clone
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files(_PROJECT) or ():
            if file.parts[-3:] == ("share", _PROJECT, name):
                return Path(str(file.locate())).resolve()
    raise ImageError(
        f"{name} is not there: neither in {in_clone.parent} nor in share/{_PROJECT} of an "
        f"installation. Install {_PROJECT} again, from a wheel or a clone"
    )


def write_wheel(folder: Path) -> Path:
    """Makes a wheel of this package from its own files; that takes no build tool and no network.

    The same files always make the same bytes, so that a build can tell whether anything changed.

    Args:
        folder: where to write it.

    Returns:
        The wheel.
    """
    info = f"{_PROJECT}-{re.sub(r'[^A-Za-z0-9_.+]', '_', __version__)}.dist-info"
    contents = dict(_package_files())
    contents.update({f"{info}/{name}": data for name, data in _metadata_files()})
    record = "".join(
        f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in sorted(contents.items())
    )
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{info.removesuffix('.dist-info')}-py3-none-any.whl"
    # Not compressed: what zlib makes of the same bytes differs between its versions.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        for name, data in contents.items():
            entry = zipfile.ZipInfo(name)  # Of 1980, the earliest that there can be.
            entry.external_attr = 0o100644 << 16
            wheel.writestr(entry, data)
    return path


def _package_files() -> Iterator[tuple[str, bytes]]:
    folder = Path(__file__).resolve().parent
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder.parent).parts
        # Without caches, and what editors leave behind.
        if "__pycache__" in parts or any(part.startswith((".", "#")) for part in parts):
            continue
        if path.is_file() and not path.name.endswith((".pyc", ".pyo", "~")):
            yield "/".join(parts), path.read_bytes()


def _metadata_files() -> Iterator[tuple[str, bytes]]:
    """Of the installation where there is one; the version is that of the code, as it runs."""
    metadata = f"Metadata-Version: 2.1\nName: {_PROJECT}\nVersion: {__version__}\n"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        installed = importlib.metadata.distribution(_PROJECT)
        text = installed.read_text("METADATA") or installed.read_text("PKG-INFO") or metadata
        metadata = re.sub(r"(?m)^Version: .*$", f"Version: {__version__}", text, count=1)
        for name in ("entry_points.txt", "licenses/LICENSE", "top_level.txt"):
            if content := installed.read_text(name):
                yield name, content.encode()
    yield "METADATA", metadata.encode()
    wheel = (
        f"Wheel-Version: 1.0\nGenerator: {_PROJECT} ({__version__})\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n"
    )
    yield "WHEEL", wheel.encode()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def build_image(
    settings: Settings,
    *,
    name: str | None = None,
    python: str | None = None,
    base: str | None = None,
    requirements: Sequence[str] = (),
    requirements_files: Sequence[Path] = (),
    tool: str | None = None,
    arguments: Sequence[str] = (),
    log: Log = logger.info,
) -> str:
    """Builds the pods' image from this installation.

    Args:
        settings: decide the image's name, see `default_image`.
        name: the name to build it under instead.
        python: the minor version of its Python, by default the one that runs here.
        base: the image to build upon, one that has that Python; by default the official one.
        requirements: what to install besides, as pip is told: ``pandas==2.3``.
        requirements_files: files of such lines.
        tool: one of `container_tools.TOOLS`, by default the first that works.
        arguments: more arguments for the tool's ``build``.
        log: is called with each line to show.

    Returns:
        The image's name.

    Raises:
        ImageError: no tool works, or the build failed; the text says why, and what to do.
        SettingValueError: see `default_image`.
    """
    python = python or this_python()
    minor = _MINOR.fullmatch(python)
    if minor is None or int(minor[1]) < 11:
        raise ImageError(f"python={python!r} must be a minor version from 3.11 on, such as 3.12")
    name = name or default_image(settings, python)
    base = base or f"docker.io/library/python:{python}-slim-bookworm"
    own = [*requirements, *map(_requirements_of, requirements_files)]
    tool = find_tool(tool, log)
    with tempfile.TemporaryDirectory(prefix="k8sfutures-image-") as folder:
        context = Path(folder)
        (context / "dist").mkdir()
        (context / "worker").mkdir()
        write_wheel(context / "dist")
        shutil.copyfile(shipped_file("Dockerfile"), context / "worker" / "Dockerfile")
        (context / "worker" / "constraints.txt").write_text(_pinned(), encoding="utf-8")
        (context / "worker" / "requirements.txt").write_text(
            "".join(f"{lines}\n" for lines in own), encoding="utf-8"
        )
        log(f"building {name} with {tool}, from {base}")
        command = [
            *(tool, "build", "--tag", name, "--file", f"{context}/worker/Dockerfile"),
            *("--build-arg", f"PYTHON={python}", "--build-arg", f"BASE={base}"),
            # Only buildah must be told to start from the layers of the last time, and to leave
            # no container behind where it fails.
            *(["--layers", "--force-rm"] if tool == "buildah" else []),
            *(*arguments, str(context)),
        ]
        status, output = run(command, log)
    if status:
        raise ImageError(_why_build_failed(output, tool, status, name, base, python))
    return name


def _requirements_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").rstrip()
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"the requirements in {path} cannot be read: {error}") from error


def _pinned() -> str:
    try:
        return "".join(f"{name}=={importlib.metadata.version(name)}\n" for name in DEPENDENCIES)
    except importlib.metadata.PackageNotFoundError as error:
        raise ImageError(
            f"{error.name} is not installed here, and pods must have the version that clients "
            f"have: install {_PROJECT} with its dependencies"
        ) from error


def _why_build_failed(
    output: str, tool: str, status: int, name: str, base: str, python: str
) -> str:
    if found := _WRONG_PYTHON.search(output):
        wanted = f"Python {python}, as this client has"
        if python != this_python():
            wanted = f"Python {python}, as was asked for (this client has {this_python()})"
        return (
            f"{name} was not built: the base image {base} has {found[1]}, and must have {wanted}. "
            "Choose a base with that Python, or run the client with the base's and build with it"
        )
    return (
        f"{name} was not built: {tool} build ended with exit code {status}. Its last lines:\n\n"
        f"{output}\n\nWhat follows '--' goes to {tool} build; in a sandbox it may need "
        "'-- --network host', and buildah and podman '--isolation chroot' too"
    )


def push_image(
    settings: Settings,
    *,
    name: str | None = None,
    python: str | None = None,
    tool: str | None = None,
    arguments: Sequence[str] = (),
    log: Log = logger.info,
) -> str:
    """Pushes the pods' image to its registry.

    Where ``registry_user`` and ``registry_password`` are set, it logs in with them, for this push
    alone; otherwise the tool's own logins count.

    Args:
        settings: decide the image's name, see `default_image`, and how to log in.
        name: the image to push instead.
        python: the minor version of the image's Python, where the name follows from it.
        tool: the one that has built it, by default the first of them that works.
        arguments: more arguments for the tool's ``push``.
        log: is called with each line to show.

    Returns:
        The image's name.

    Raises:
        ImageError: the name has no registry, no tool works, or login or push failed.
        SettingValueError: see `default_image`.
    """
    name = name or default_image(settings, python)
    registry = _registry_of(name)
    if registry is None:
        raise ImageError(
            f"{name} cannot be pushed, as its name says no registry: set registry_server (and "
            "registry_user, registry_password), or give a name such as docker.io/ada/worker:1"
        )
    tool = find_tool(tool, log)
    user, password = settings.registry_user, settings.registry_password
    server = settings.registry_server
    # Nobody else's registry ever gets the password.
    is_meant = server is None or registry_at(server).partition("/")[0] == registry
    with tempfile.TemporaryDirectory(prefix="k8sfutures-login-") as folder:
        login = Login(tool, Path(folder))
        if user and password and is_meant:
            login.log_in(registry, user, password, arguments)
            log(f"logged in at {registry} as {user}")
        else:
            log(f"the settings have no login for {registry}: those that {tool} knows count")
        log(f"pushing {name} with {tool}")
        command = [tool, "push", *login.options, *arguments, name]
        status, output = run(command, log, login.environment)
    if status:
        raise ImageError(
            f"{name} was not pushed: {tool} push ended with exit code {status}. Its last lines:"
            f"\n\n{output}\n\nWas it built with {tool} under this name (k8sfutures image build), "
            f"and may the user push to {registry}?"
        )
    return name


def _registry_of(name: str) -> str | None:
    """The registry in an image's name, or None; localhost without a port is this machine."""
    first, slash, _ = name.partition("/")
    return first if slash and ("." in first or ":" in first) else None
