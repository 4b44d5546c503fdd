"""Where a pod keeps the bundles that it has unpacked: one folder, which its CPU processes share.

``<temporary folder>/k8sfutures-modules-<random>/<hash>/``, each written elsewhere and then renamed,
so that nobody sees half of one. Whoever uses a bundle holds a shared lock on ``<hash>.lock``;
who gets the exclusive one removes it, since nobody uses it. The kernel lets go of the locks of a
process that died.

The folder goes with its pod. What a pod has left behind that was killed is removed by the next
one, as nobody holds the lock of such a folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ..bundles import FOLDER_PREFIX, NAME_FILE, unpack
from ..values import dataclass

logger = logging.getLogger(__name__)

_LOCK: Final = "lock"

Body = Callable[[str], bytes | memoryview]
"""Gives the body of a bundle, by its hash."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """A bundle that is there for as long as this process holds its lock.

    Attributes:
        name: of the module or package; "" for files.
        hash: of the bundle.
        root: the folder that it is in.
        lock: the descriptor that holds the lock.
    """

    name: str
    hash: str
    root: Path
    lock: int


class Folder:
    """The folder of a pod.

    Args:
        path: of it; made by `make_folder`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def take(self, digest: str, body: Body) -> Unpacked:
        """Unpack a bundle, unless another process of the pod has done so.

        Args:
            digest: the hash of the bundle.
            body: gives what has come of it.

        Returns:
            It; give it to `release` when it is not used any more.

        Raises:
            OSError: there is no room, or no right, to write it.
            LookupError: it has not come.
            ValueError: it is no bundle, or another one.
        """
        lock = self._open_lock(digest)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            root = self._path / digest
            if not root.is_dir():
                self._unpack(root, body(digest))
            name = (root / NAME_FILE).read_text("utf-8")
        except BaseException:
            os.close(lock)
            raise
        return Unpacked(name, digest, root, lock)

    def _unpack(self, root: Path, body: bytes | memoryview) -> None:
        draft = Path(tempfile.mkdtemp(prefix="new-", dir=self._path))
        try:
            unpack(body, root.name, draft)
            draft.rename(root)
        except OSError:
            if not root.is_dir():  # else another process was faster
                raise
        finally:
            if draft.is_dir():
                shutil.rmtree(draft)

    def release(self, unpacked: Unpacked) -> None:
        """Let go of a bundle; it is removed if nobody else uses it."""
        self._remove_if_unused(unpacked.lock, unpacked.root)

    def sweep(self) -> None:
        """Remove what processes have left behind that died."""
        for root in self._path.iterdir():
            if root.is_dir() and not root.name.startswith("new-"):
                self._remove_if_unused(self._open_lock(root.name), root)

    def _open_lock(self, digest: str) -> int:
        return _open(self._path / f"{digest}.{_LOCK}")

    def _remove_if_unused(self, lock: int, root: Path) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if root.is_dir():
                shutil.rmtree(root)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)


# --- the pod's


class PodsFolder:
    """The folder of this pod, made by the parent of the CPU processes, which inherit it."""

    def __init__(self) -> None:
        self._made: tuple[Path, int] | None = None
        self._failure: OSError | None = None

    def make(self) -> None:
        """Make it; where that fails, `get` says so to those who need it."""
        try:
            self._made = make_folder()
        except OSError as error:
            self._failure = error

    def get(self) -> Folder:
        """The folder.

        Raises:
            OSError: it could not be made.
        """
        if self._made is None:
            raise OSError(
                f"this pod has no folder to unpack the client's modules in: {self._failure}"
            )
        return Folder(self._made[0])

    def remove(self) -> None:
        """Remove it, at the pod's end."""
        if self._made is not None:
            folder, lock = self._made
            self._made = None
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


pods_folder: Final = PodsFolder()


def make_folder() -> tuple[Path, int]:
    """Make the folder of this pod, and remove those of pods that are gone.

    Returns:
        Its path, and a descriptor to hold for as long as the pod lives. Every process that
        inherits it keeps the folder.

    Raises:
        OSError: the temporary folder cannot be written to.
    """
    folder, lock = _locked_folder()
    for other in folder.parent.glob(f"{FOLDER_PREFIX}*"):
        if other != folder:
            with contextlib.suppress(OSError):  # one that is used, or another user's
                _remove_if_left(other)
    return folder, lock


def _locked_folder() -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))
        lock = _open(folder / _LOCK)
        fcntl.flock(lock, fcntl.LOCK_SH)
        if (folder / _LOCK).exists():
            return folder, lock
        os.close(lock)  # another pod found it just before it was locked, and has removed it


def _remove_if_left(folder: Path) -> None:
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder)
        logger.info("removed %s, which a pod has left behind", folder)
    finally:
        os.close(lock)


def _open(lock: Path) -> int:
    return os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
