"""What is shipped as one: a module, a package, or files; and which files it consists of.

The parcel is the topmost package that has an ``__init__.py``, or a module that is in none. A
namespace package has no files of its own, and may have members here and in the image: each of
its members is a parcel.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import stat
import sys
from collections.abc import Iterator
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    ExtensionFileLoader,
    ModuleSpec,
    PathFinder,
)
from pathlib import Path
from typing import Final

from .own_modules import (
    NEVER_OWN,
    attributes,
    folders_of,
    is_installed,
    is_module,
    is_plain_source,
)
from .values import dataclass

_LEFT_OUT: Final = frozenset(
    {"__pycache__", "node_modules", "site-packages", "dist-packages", "__pypackages__"}
)
_EXTENSION_ENDS: Final = (*EXTENSION_SUFFIXES, ".pyd")


@dataclass(frozen=True, slots=True)
class Parcel:
    """What is shipped as one.

    Attributes:
        name: of the module or package; "" for files.
        paths: the module's file, the package's folders, or files and folders.
        places: where each of them goes in the bundle; several folders may go to one place.
    """

    name: str
    paths: tuple[str, ...]
    places: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ParcelFile:
    """One file of a parcel, as it is now: of two that are equal, the content is the same.

    Attributes:
        place: in the bundle.
        path: at the client.
        version: modification time in ns, size in bytes, inode.
        executable: whether it can be run.
    """

    place: str
    path: str
    version: tuple[int, int, int]
    executable: bool

    @property
    def size(self) -> int:
        """Bytes."""
        return self.version[1]


class TooBig(Exception):
    """There is more to ship than may be."""


# --- from the name of a module to its parcel


def find_spec(name: str, path: list[str] | None = None) -> ModuleSpec | None:
    """The spec of a module, which is not imported, and neither are its parents.

    Args:
        name: its full name.
        path: of its parent package; None for a top-level module.

    Returns:
        It, or None where there is no such module.
    """
    module = sys.modules.get(name)
    if is_module(module):
        spec = attributes(module).get("__spec__")
        return spec if isinstance(spec, ModuleSpec) else None
    try:
        if path is None:
            return importlib.util.find_spec(name)
        return PathFinder.find_spec(name, path)
    except KeyError:  # a namespace package in one that is not loaded, where Python looks for it
        spec = ModuleSpec(name, None, is_package=True)
        folders = [Path(folder, name.rpartition(".")[2]) for folder in path or ()]
        spec.submodule_search_locations = [str(one) for one in folders if one.is_dir()]
        return spec
    except (ImportError, ValueError, AttributeError):  # finders of others may raise anything
        return None


def search_path(spec: ModuleSpec) -> list[str]:
    """The folders of a package: as it has them, if it is loaded, since it may have added some."""
    module = sys.modules.get(spec.name)
    path = attributes(module).get("__path__") if is_module(module) else None
    folders = folders_of(spec.submodule_search_locations if path is None else path)
    return [folder for folder in folders if Path(folder).is_dir()]


def is_namespace(spec: ModuleSpec) -> bool:
    """Whether it is a package without an ``__init__.py``."""
    return spec.submodule_search_locations is not None and not spec.has_location


def locate(name: str) -> ModuleSpec | None:
    """The spec of the parcel that a module belongs to, whatever it is.

    Args:
        name: the module's full name, or the name of something in it.

    Returns:
        The spec of the topmost module on the way that is no namespace package; where all of
        them are, that of the last one. None where nothing is found.
    """
    parts = name.split(".")
    path: list[str] | None = None
    spec = None
    for depth in range(1, len(parts) + 1):
        found = find_spec(".".join(parts[:depth]), path)
        if found is None:
            # ``a`` need not be loaded for ``a.b`` to be; and ``a.f`` may be a function's name.
            return _loaded(name) if depth == 1 and spec is None else spec
        spec = found
        if not is_namespace(spec):
            return spec
        path = search_path(spec)
    return spec


def _loaded(name: str) -> ModuleSpec | None:
    module = sys.modules.get(name)
    spec = attributes(module).get("__spec__") if is_module(module) else None
    return spec if isinstance(spec, ModuleSpec) else None


def find(name: str) -> ModuleSpec | None:
    """The spec of a module itself, which is not imported, and neither are its parents.

    Args:
        name: its full name.
    """
    spec = find_spec(name.partition(".")[0])
    for depth in range(1, name.count(".") + 1):
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = find_spec(".".join(name.split(".")[: depth + 1]), search_path(spec))
    return spec


def parcel_of(spec: ModuleSpec, *, even_installed: bool = False) -> Parcel | None:
    """What to ship of a module or package.

    Args:
        spec: see `locate`.
        even_installed: even if it is none of the user's own, or another module than its source
            says: the user has asked for it.

    Returns:
        The parcel; None where there is nothing to be shipped.
    """
    if not can_be_shipped(spec, any_loader=even_installed):
        return None
    origin = spec.origin or ""
    place = spec.name.replace(".", "/")
    if spec.submodule_search_locations is None:
        paths, places = [origin], [f"{place}.py"]
    else:
        paths = [str(Path(origin).parent)]
        paths += [folder for folder in search_path(spec) if folder not in paths]
        places = [place] * len(paths)
    if not even_installed and is_installed(origin):
        return None
    return Parcel(spec.name, tuple(paths), tuple(places))


def can_be_shipped(spec: ModuleSpec, *, any_loader: bool = False) -> bool:
    """Whether it is source of a kind that travels: neither ours, nor Python's, nor compiled."""
    if spec.name.partition(".")[0] in NEVER_OWN or not (any_loader or is_plain_source(spec)):
        return False
    return (spec.origin or "").endswith(".py") and Path(spec.origin or "").is_file()


def members_of(
    spec: ModuleSpec, above: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[ModuleSpec]:
    """What can be shipped of a namespace package: its modules and packages, and those within.

    Args:
        spec: of a namespace package; what is installed of it is left out.
        above: the folders that it is in, by device and inode: a link may lead back to one.
    """
    for folder in own_folders(spec):
        found = Path(folder).stat()
        identity = (found.st_dev, found.st_ino)
        if identity in above:
            continue
        for path in sorted(Path(folder).iterdir()):
            name = path.name.removesuffix(".py")
            if not name.isidentifier() or name in _LEFT_OUT:
                continue
            member = find_spec(f"{spec.name}.{name}", [folder])
            if member is None:
                continue
            if is_namespace(member):
                yield from members_of(member, above | {identity})
            elif can_be_shipped(member):
                yield member


def own_folders(spec: ModuleSpec) -> list[str]:
    """The folders of a package that are not installed."""
    return [folder for folder in search_path(spec) if not is_installed(f"{folder}{os.sep}")]


def is_compiled(spec: ModuleSpec) -> bool:
    """Whether it is an extension module."""
    return isinstance(spec.loader, ExtensionFileLoader)


# --- from a parcel to its files


def files_of(parcel: Parcel, *, most_bytes: int, most_files: int) -> tuple[ParcelFile, ...]:
    """The files of a parcel.

    Left out are bytecode, hidden files and folders, virtual environments, what is installed,
    and extension modules. A link is followed.

    Args:
        parcel: which.
        most_bytes: how much it may be.
        most_files: how many.

    Returns:
        The files, in a fixed order. Of two with the same place, the first one.

    Raises:
        TooBig: it is more than that; the text says how much, and what takes most.
    """
    found: dict[str, ParcelFile] = {}
    total = 0
    for path, place in zip(parcel.paths, parcel.places, strict=True):
        for file in _walk(path, place, frozenset()):
            if file.place in found or _is_extension(file):
                continue
            found[file.place] = file
            total += file.size
            if len(found) > most_files or total > most_bytes:
                raise TooBig(_too_big(found, total, most_bytes, most_files))
    return tuple(found[place] for place in sorted(found))


def _too_big(found: dict[str, ParcelFile], total: int, most_bytes: int, most_files: int) -> str:
    if len(found) > most_files:
        return f"it has more than {most_files} files"
    biggest = max(found.values(), key=lambda file: file.size)
    return (
        f"it has {total >> 20} MiB or more, where {most_bytes >> 20} MiB may be "
        f"({biggest.path} alone has {biggest.size >> 20} MiB)"
    )


def extensions_of(parcel: Parcel) -> Iterator[str]:
    """The paths of the extension modules in a parcel, none of which is shipped."""
    for path, place in zip(parcel.paths, parcel.places, strict=True):
        yield from (file.path for file in _walk(path, place, frozenset()) if _is_extension(file))


def _walk(path: str, place: str, above: frozenset[tuple[int, int]]) -> Iterator[ParcelFile]:
    """The files at a path, extension modules included: itself, or those below it.

    Args:
        path: of a file or a folder.
        place: in the bundle.
        above: the folders that it is in, by device and inode: a link may lead back to one.
    """
    try:
        found = os.stat(path)  # noqa: PTH116
        names = sorted(os.listdir(path)) if stat.S_ISDIR(found.st_mode) else []  # noqa: PTH208
    except OSError:  # a link to nowhere, or not for us: nor can the module use it
        return
    if stat.S_ISREG(found.st_mode):
        version = (found.st_mtime_ns, found.st_size, found.st_ino)
        yield ParcelFile(place, path, version, bool(found.st_mode & 0o100))
        return
    identity = (found.st_dev, found.st_ino)
    if not stat.S_ISDIR(found.st_mode) or identity in above:
        return
    if "pyvenv.cfg" in names:
        return
    for name in names:
        if not (name in _LEFT_OUT or name.startswith(".") or name.endswith((".pyc", ".egg-info"))):
            within = f"{place}/{name}" if place else name
            yield from _walk(f"{path}/{name}", within, above | {identity})


def _is_extension(file: ParcelFile) -> bool:
    """Whether a file is a compiled module, rather than a shared library that is data of one."""
    return file.path.endswith(_EXTENSION_ENDS) and _initializes(file.path, file.version)


@functools.lru_cache(1024)
def _initializes(path: str, _version: tuple[int, int, int]) -> bool:
    """Whether a shared library has what Python calls to make a module of it."""
    stem = os.path.basename(path).partition(".")[0]  # noqa: PTH119
    return f"PyInit_{stem}\0".encode() in Path(path).read_bytes()
