"""Bundles: how the user's own modules and files travel.

A bundle is the files of one module, package or folder, under a hash of their names and contents.
The client packs it, each pod unpacks it once. What it holds, before compression: msgpack
``[FORMAT, name, [[path, executable, content], ...]]``, sorted by path, so that equal files
make equal bundles. Paths are relative, with ``/``, and lead nowhere outside of the folder that
they are unpacked in.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import field
from pathlib import Path
from typing import Final

import msgpack

from .values import dataclass

FORMAT: Final = 1

FOLDER_PREFIX: Final = "k8sfutures-modules-"
"""How the names of the folders begin that pods unpack bundles in."""

NAME_FILE: Final = ".k8sfutures-bundle"
"""In an unpacked bundle: what it is called."""

_HASH_LENGTH: Final = 32  # hexadecimal digits, so 128 bits

File = tuple[str, bool, bytes]
"""(path, whether it can be executed, content)."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Bundle:
    """A bundle at the client.

    Attributes:
        name: of the module or package that it makes importable; "" for files, which calls find
            in their working directory.
        hash: of what it holds; names the bundle to pods.
        body: what travels.
        size: bytes of the files.
        origins: where each file is at the client, by its path in the bundle.
        requires: names of the user's other modules that its modules import.
    """

    name: str
    hash: str
    body: bytes = field(repr=False)
    size: int
    origins: Mapping[str, str] = field(repr=False)
    requires: frozenset[str]


def pack(name: str, files: Iterable[File]) -> tuple[str, bytes]:
    """Pack a bundle.

    Args:
        name: see `Bundle`.
        files: in any order.

    Returns:
        Its hash and its body.
    """
    packed = msgpack.packb([FORMAT, name, sorted(files)])
    # Source shrinks to a quarter even at the fastest level.
    return _hash_of(packed), zlib.compress(packed, 1)


def _hash_of(packed: bytes) -> str:
    return hashlib.sha256(packed).hexdigest()[:_HASH_LENGTH]


def unpack(body: bytes | memoryview, digest: str, folder: Path) -> str:
    """Unpack a bundle.

    Args:
        body: from `pack`.
        digest: likewise.
        folder: an empty one, to put the files in. They cannot be written to, as many processes
            share them.

    Returns:
        The bundle's name.

    Raises:
        ValueError: it is not that bundle, or one of its paths leads out of the folder.
        OSError: a file cannot be written.
    """
    try:
        packed = zlib.decompress(body)
        version, name, files = msgpack.unpackb(packed)
    except (ValueError, TypeError, zlib.error, msgpack.UnpackException) as error:
        raise ValueError(f"not a bundle of modules: {error}") from error
    if version != FORMAT:
        raise ValueError(f"a bundle of modules of format {version}, where {FORMAT} is known")
    if _hash_of(packed) != digest:
        raise ValueError(f"a bundle of modules that is not {digest}, but {_hash_of(packed)}")
    made: set[str] = set()
    for path, executable, content in files:
        _check_path(path)
        parent = path.rpartition("/")[0]
        if parent not in made:
            (folder / parent).mkdir(parents=True, exist_ok=True)
            made.add(parent)
        mode = 0o555 if executable else 0o444
        descriptor = os.open(folder / path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
    (folder / NAME_FILE).write_text(name, "utf-8")
    return str(name)


def _check_path(path: object) -> None:
    parts = path.split("/") if isinstance(path, str) else []
    if not parts or any(part in {"", ".", "..", NAME_FILE} or "\0" in part for part in parts):
        raise ValueError(f"a bundle of modules has a file {path!r}, which leads out of its folder")
