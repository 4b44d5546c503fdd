"""The user's own modules at the client: which a pickle needs, and the bundles that they are in.

A pickle refers to own modules by name, and the name of every module that it refers to stands in
it in plain text; code that travels by value may import more (see `imports`). What those import
in turn is read from their sources. Each is bundled as a whole (see `parcels`), and a call takes
along the bundles of all of them. What is installed at the client is looked for in the image.

Which version
    An executor ships a module as its files are when it is first needed, and does not look
    again, so that every call runs the same code; a new executor looks anew. `importlib.reload`
    of anything makes every executor look anew, since the client then runs other code, too.

What cannot be shipped
    It may be in the image, or not be needed after all. So it is no error here: where a call
    misses it on a pod, `missing` says what there is to know.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import weakref
from collections.abc import Iterable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

from .bundles import FOLDER_PREFIX, Bundle, pack
from .editable import notes_about
from .errors import SettingValueError
from .imports import imports, likely_imports
from .own_modules import is_installed, own_modules, reloads, watch_reloads
from .parcels import (
    Parcel,
    ParcelFile,
    TooBig,
    extensions_of,
    files_of,
    find,
    is_compiled,
    is_namespace,
    locate,
    members_of,
    parcel_of,
    search_path,
)
from .pod_files import find_files_with

logger = logging.getLogger(__name__)

MOST_BYTES: Final = 64 << 20
"""Bytes of a module or package that is shipped because a call refers to it."""

MOST_BYTES_ASKED: Final = 1 << 30
"""Bytes of what the setting ``ship`` names."""

MOST_FILES: Final = 20_000
"""Files of one bundle."""

REFERENCE: Final = b"\x93"
"""In every pickle that refers to a module; see `serialization`."""
_SHORT_TEXT: Final = 0x8C  # SHORT_BINUNICODE; its length follows, in one byte
_DOT: Final = ord(".")

Bundles = tuple[Bundle, ...]


class Shipper:
    """The bundles of one executor. Safe to use from any thread.

    Args:
        ship: what every call takes along: names of modules and packages, installed or not, and
            paths of files and folders.

    Raises:
        SettingValueError: one of them cannot be shipped.
    """

    def __init__(self, ship: Sequence[str] = ()) -> None:
        watch_reloads()
        find_files_with(at_client)
        self._lock = threading.Lock()
        self._asked: list[Parcel] = []
        self._looked: object = None
        self._bundles: dict[Parcel, Bundle | None] = {}
        self._parcels: dict[str, Parcel | None] = {}
        self._always: Bundles = ()
        self._fixed: dict[str, Bundle] = {}
        self._by_names: dict[frozenset[str], Bundles] = {}
        self._by_hashes: dict[frozenset[str], Bundles] = {}
        try:
            check(ship)
            self._asked = [parcel for entry in ship for parcel in parcels_to_ship(entry)]
            self._look_anew()
        except (OSError, TooBig, ValueError) as error:
            raise SettingValueError(f"ship={list(ship)!r}: {error}") from error

    def needs(self, data: bytes, imported: Iterable[str] = ()) -> Bundles:
        """What must be on a pod that loads a pickle.

        Args:
            data: the pickle.
            imported: names of the modules that code in it imports.

        Returns:
            The bundles; for the same ones, the same tuple.
        """
        if self._looked is not reloads["last"]:
            with self._lock:
                self._look_anew()
        names: set[str] = set(imported)
        if data.find(REFERENCE) >= 0:
            for encoded in own_modules.shipped():
                if data.find(encoded) >= 0:
                    names |= _names_at(data, encoded)
        if not names:
            return self._always
        key = frozenset(names)
        known = self._by_names.get(key)
        if known is None:
            with self._lock:
                known = self._by_names[key] = self._closure(key)
        return known

    def always_ship(self, bundles: Bundles) -> None:
        """Have every call need these, as they are now.

        What an initializer has set up in a module is there for as long as that is the same one.

        Args:
            bundles: from `needs`.
        """
        with self._lock:
            self._fixed |= {bundle.name: bundle for bundle in bundles}
            self._look_anew()

    def _look_anew(self) -> None:
        self._looked = reloads["last"]
        self._bundles.clear()
        self._parcels.clear()
        self._by_names.clear()
        self._by_hashes.clear()
        asked: dict[str, Bundle] = {}
        files = [parcel for parcel in self._asked if not parcel.name]
        for parcel in self._asked:
            if parcel.name:
                bundle = _bundle_of(parcel, MOST_BYTES_ASKED)
                asked[parcel.name] = self._bundles[parcel] = bundle
                self._parcels[parcel.name] = parcel
        if files:
            # One bundle, as calls have one working directory.
            paths = tuple(path for parcel in files for path in parcel.paths)
            places = tuple(place for parcel in files for place in parcel.places)
            asked[""] = _bundle_of(Parcel("", paths, places), MOST_BYTES_ASKED)
        self._always = self._same(self._with_required(asked | self._fixed))

    def _closure(self, names: frozenset[str]) -> Bundles:
        found = {bundle.name: bundle for bundle in self._always}
        for name in names:
            bundle = self._bundle_for(name)
            if bundle is not None:
                found[bundle.name] = bundle
        return self._same(self._with_required(found))

    def _same(self, bundles: Bundles) -> Bundles:
        """The same tuple for the same bundles, whatever names have led to them."""
        return self._by_hashes.setdefault(frozenset(bundle.hash for bundle in bundles), bundles)

    def _with_required(self, found: dict[str, Bundle]) -> Bundles:
        """These and what they import, and what that imports."""
        todo = list(found.values())
        while todo:
            for name in todo.pop().requires:
                bundle = self._bundle_for(name)
                if bundle is not None and bundle.name not in found:
                    found[bundle.name] = bundle
                    todo.append(bundle)
        return tuple(found[name] for name in sorted(found))

    def _bundle_for(self, name: str) -> Bundle | None:
        """The bundle of the parcel that a module is in; None where it is not shipped."""
        if name not in self._parcels:
            spec = locate(name)
            self._parcels[name] = None if spec is None else parcel_of(spec)
        parcel = self._parcels[name]
        if parcel is None:
            return None
        if parcel.name in self._fixed:
            return self._fixed[parcel.name]
        # What was asked for has its name here, and its own limit.
        parcel = self._parcels.setdefault(parcel.name, parcel) or parcel
        if parcel not in self._bundles:
            try:
                self._bundles[parcel] = _bundle_of(parcel, MOST_BYTES)
            except TooBig as error:
                reason = (
                    f"{parcel.name!r} in {parcel.paths[0]} is not shipped to pods, as {error}; "
                    f"ship={[parcel.name]!r} ships it nevertheless, up to {MOST_BYTES_ASKED >> 20} "
                    "MiB; what pods need is better put into their image or a volume"
                )
                logger.warning("%s", reason)
                too_big[parcel] = reason
                self._bundles[parcel] = None
        return self._bundles[parcel]


too_big: Final[dict[Parcel, str]] = {}
"""Why a parcel was not shipped; see `missing`."""


def _names_at(data: bytes, encoded: bytes) -> set[str]:
    """The texts in a pickle that name a module: this top-level one, or one within."""
    found: set[str] = set()
    at = data.find(encoded)
    while at >= 0:
        if at >= 2 and data[at - 2] == _SHORT_TEXT:
            length = data[at - 1]
            text = data[at : at + length]
            if length == len(encoded):
                found.add(text.decode())
            elif length > len(encoded) and text[len(encoded)] == _DOT:
                name = text.decode("utf-8", "replace")
                if name in sys.modules:
                    found.add(name)
        at = data.find(encoded, at + 1)
    return found


# --- bundles, which executors share while one of them lives

_lock: Final = threading.Lock()
Notes = tuple[tuple[str, str], ...]
_cache: Final[weakref.WeakValueDictionary[tuple[Parcel, tuple[ParcelFile, ...], Notes], Bundle]] = (
    weakref.WeakValueDictionary()
)
_by_hash: Final[weakref.WeakValueDictionary[str, Bundle]] = weakref.WeakValueDictionary()


def _bundle_of(parcel: Parcel, most_bytes: int) -> Bundle:
    """The bundle of a parcel as its files are now; read again only if one has changed."""
    files = files_of(parcel, most_bytes=most_bytes, most_files=MOST_FILES)
    notes = notes_about(parcel.paths[0]) if parcel.name else ()
    with _lock:
        known = _cache.get((parcel, files, notes))
        if known is None:
            known = _read(parcel, files, notes)
            _by_hash[known.hash] = _cache[parcel, files, notes] = known
    return known


def _read(parcel: Parcel, files: tuple[ParcelFile, ...], notes: Notes) -> Bundle:
    contents = [(place, False, text.encode()) for place, text in notes]
    for file in files:
        try:
            contents.append((file.place, file.executable, Path(file.path).read_bytes()))
        except OSError as error:  # removed meanwhile, or not for us: nor can the module read it
            logger.warning("left out of what is shipped: %s", error)
    digest, body = pack(parcel.name, contents)
    requires: set[str] = set()
    for place, _, content in contents:
        if place.endswith(".py"):
            requires |= _required(parcel.name, place, content)
    origins = {file.place: file.path for file in files}
    size = sum(file.size for file in files)
    return Bundle(parcel.name, digest, body, size, origins, frozenset(requires))


def _required(parcel: str, place: str, source: bytes) -> set[str]:
    """Names of own modules, outside of its parcel, that a source imports."""
    parts = place.removesuffix(".py").split("/")
    package = ".".join(parts[:-1])  # what ``.`` is, in an ``__init__`` as well
    likely = likely_imports(source)
    if not any(_may_be_own(name, parcel) for name in likely):
        return set()
    return {name for name in imports(source, package) if _is_own(name, parcel)}


def _may_be_own(name: str, parcel: str) -> bool:
    if name.startswith("."):
        return "." in parcel  # a sibling in a namespace package; else it is in the parcel
    spec = None if _is_within(name, parcel) else locate(name)
    return spec is not None and (is_namespace(spec) or parcel_of(spec) is not None)


def _is_own(name: str, parcel: str) -> bool:
    spec = None if _is_within(name, parcel) else locate(name)
    return spec is not None and parcel_of(spec) is not None


def _is_within(name: str, parcel: str) -> bool:
    return bool(parcel) and (name == parcel or name.startswith(f"{parcel}."))


_UNPACKED: Final = re.compile(rf"{FOLDER_PREFIX}[^/]+/([0-9a-f]+)/(.+)")


def at_client(path: str) -> str:
    """Where a file is at the client that a pod has unpacked.

    Args:
        path: of a file, as a traceback from a pod has it.

    Returns:
        The client's file; the path itself where it is none that was shipped from here.
    """
    if FOLDER_PREFIX not in path:
        return path
    match = _UNPACKED.search(path)
    bundle = None if match is None else _by_hash.get(match[1])
    return path if match is None or bundle is None else bundle.origins.get(match[2], path)


def beside_at_client(path: str) -> tuple[Bundle, str] | None:
    """Where a file would be at the client that a call has looked for beside a shipped module.

    Args:
        path: of a file, as a call on a pod has it.

    Returns:
        The bundle of that module, and the path; None where it is not beside one from here.
    """
    match = _UNPACKED.search(path)
    bundle = None if match is None else _by_hash.get(match[1])
    if match is None or bundle is None:
        return None
    for place, origin in bundle.origins.items():
        if origin.endswith(f"/{place}"):
            return bundle, origin.removesuffix(place) + match[2]
    return None


# --- the setting ``ship``


def check(ship: Sequence[str]) -> None:
    """Whether an executor could ship these; nothing is read.

    Args:
        ship: entries of the setting.

    Raises:
        ValueError: one of them cannot be shipped.
    """
    _check_places([parcel for entry in ship for parcel in parcels_to_ship(entry)])


def parcels_to_ship(entry: str) -> list[Parcel]:
    """What an entry of the setting ``ship`` stands for.

    Args:
        entry: the name of a module or package, or the path of a file or folder.

    Returns:
        Its parcel; those of all members of a namespace package, unless that is a folder in the
        working directory. One of files has no name, and keeps its path below that.

    Raises:
        ValueError: there is no such thing, or it cannot be shipped.
    """
    path = Path(entry).expanduser().absolute()
    if not path.is_file() and all(part.isidentifier() for part in entry.split(".")):
        spec = find(entry)
        if spec is not None and not is_namespace(spec):
            return [_module_to_ship(entry, spec)]
        if spec is not None and not path.exists():
            return _members_to_ship(entry, spec)
    if not path.exists():
        raise ValueError(
            f"{entry!r} is neither a module that can be imported here nor a file or folder "
            f"(looked for at {path})"
        )
    try:
        place = path.relative_to(Path.cwd()).as_posix()
    except ValueError:  # elsewhere
        place = path.name
    return [Parcel("", (str(path),), ("" if place == "." else place,))]


def _members_to_ship(entry: str, spec: ModuleSpec) -> list[Parcel]:
    parcels = {parcel_of(member) for member in members_of(spec)} - {None}
    if not parcels:
        raise ValueError(
            f"{entry!r} is a package without an __init__.py, and none of its modules in "
            f"{', '.join(search_path(spec))} is source of your own; name what you want of it, "
            f"ship=['{entry}....']"
        )
    return sorted((one for one in parcels if one is not None), key=lambda one: one.name)


def _module_to_ship(entry: str, spec: ModuleSpec) -> Parcel:
    top = locate(entry) or spec
    parcel = parcel_of(top, even_installed=True)
    if parcel is None:
        raise ValueError(
            _compiled(entry, spec.origin)
            if is_compiled(spec)
            else f"{entry!r} has no source file of its own that could be shipped ({spec.origin})"
        )
    if is_installed(top.origin or ""):
        for extension in extensions_of(parcel):
            raise ValueError(_compiled(entry, extension))
    return parcel


def _compiled(entry: str, path: str | None) -> str:
    return (
        f"{entry!r} has compiled code ({path}), which runs where it was built for: put it into the "
        "pods' image instead (k8sfutures image build --requirement ...)"
    )


def _check_places(parcels: Sequence[Parcel]) -> None:
    """Files that would take each other's place in the working directory of calls are refused."""
    taken: dict[str, str] = {}
    for parcel in parcels:
        for path, place in zip(parcel.paths, parcel.places, strict=True):
            if not parcel.name and taken.setdefault(place, path) != path:
                raise ValueError(
                    f"{taken[place]} and {path} would both be {place!r} in the working directory "
                    "of calls; rename one, or ship a folder that holds both"
                )
