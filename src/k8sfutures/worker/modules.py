"""Which modules calls see in a CPU process: their own client's, under their own names.

Clients may have different modules of one name, and one client may have changed a module. So each
call says which bundles it needs, and runs in an *environment*: bundles of one client of which no
two have the same name, with the modules that were imported from them. One environment is active
at a time; its modules are in ``sys.modules``, and those of the others are put aside with all that
they hold, so that a class stays one class for as long as its client is there. A call whose bundles
fit into an environment of its client runs there; one with a changed bundle gets a new environment.

The working directory is a client's own as well: that of its program, where the pod is on its
machine and has a folder of that name, or that of its files (setting ``ship``); and then what its
calls make of it.

To an environment belongs, too, what its calls have imported that is not installed in the pod. A
local pod finds such modules where the client's program was started; another client may have
edited them.

What is installed stays for all. Extension modules stay as well: most cannot be loaded twice.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import os
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ExtensionFileLoader, ModuleSpec, PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..own_modules import NEVER_OWN, attributes, folders_of, is_installed, is_module
from .unpacked import Body, Folder, Unpacked

if TYPE_CHECKING:
    from importlib import metadata

_ENVIRONMENTS: Final = 3
"""Environments that are kept of one client. It has more than one only if it has reloaded modules,
and calls from before and after that are under way at the same time."""


class _Environment:
    """Bundles that fit together, and what was imported from them."""

    def __init__(self) -> None:
        self.bundles: dict[str, Unpacked] = {}  # by name
        self.tops: set[str] = set()  # top-level names of what they make importable
        self.entered = False  # its files have been the working directory
        self.modules: dict[str, Any] = {}  # put aside while it is not active
        self.hidden: dict[str, Any] = {}  # the pod's own, put aside while it is

    def fits(self, unpacked: Sequence[Unpacked]) -> bool:
        """Whether it has no other bundle of the same name as one of these."""
        mine = self.bundles
        return all(mine[one.name].hash == one.hash for one in unpacked if one.name in mine)

    def add(self, unpacked: Sequence[Unpacked]) -> list[Unpacked]:
        """Take bundles in that fit; those that are new."""
        new = [one for one in unpacked if one.name not in self.bundles]
        for one in new:
            self.bundles[one.name] = one
            if one.name:
                self.tops.add(one.name.partition(".")[0])
        return new

    def provides(self, name: str) -> bool:
        """Whether a module is in one of its bundles, or is a namespace package above one."""
        return any(_is_within(name, one) or _is_within(one, name) for one in self.bundles if one)

    @property
    def files(self) -> Path | None:
        """Where its files are that are not modules: the working directory of its calls."""
        unpacked = self.bundles.get("")
        return None if unpacked is None else unpacked.root


class _Client:
    """The environments of a client, the newest first, and what is in them.

    Args:
        directory: the working directory of its calls; None for that of the pod.
    """

    def __init__(self, directory: str | None = None) -> None:
        self.directory = directory
        self.unpacked: dict[str, Unpacked] = {}
        self.environments: list[_Environment] = []


class Environments:
    """The environments of a CPU process.

    Args:
        folder: where bundles are unpacked; or what raises the reason why there is none.
    """

    def __init__(self, folder: Callable[[], Folder]) -> None:
        self._folder = folder
        self._clients: dict[str, _Client] = {}
        self._active: tuple[str, _Environment] | None = None
        self._last: tuple[str, Sequence[str]] = ("", ())
        self._base: set[str] | None = None  # names of modules that stay
        self._home = ""
        self._finder = _Finder()

    def begin(self, client: str, directory: str | None) -> None:
        """A client is new here.

        Args:
            client: its name.
            directory: the working directory of its calls, or None for that of the pod; so it is
                where there is none of that name.
        """
        self._clients[client] = _Client(directory)

    def activate(self, client: str, needs: Sequence[str], body: Body) -> None:
        """Have the modules of a client in place for one of its calls.

        Args:
            client: whose call it is.
            needs: the hashes of the bundles that the call needs. Of two with the same name, the
                last one counts.
            body: gives what has come of a bundle, by its hash.

        Raises:
            LookupError: one of them has not come.
            OSError: one cannot be unpacked.
            ValueError: one is no bundle.
        """
        last_client, last_needs = self._last
        if client == last_client and (needs is last_needs or needs == last_needs):
            return
        self._last = ("", ())
        environment, new = self._environment(client, needs, body)
        if self._active is None or self._active[1] is not environment:
            self._put_aside()
            self._put_in_place(client, environment)
        elif new:
            self._hide(environment)
            self._enter(environment)
        for one in new:
            _extend_namespaces(one)
        self._last = (client, needs)

    def forget(self, client: str) -> None:
        """A client has left: its modules go, and so do bundles that nobody else uses."""
        if self._active is not None and self._active[0] == client:
            self._put_aside()
        self._last = ("", ())
        known = self._clients.pop(client, None)
        if known is not None and known.unpacked:
            known.environments.clear()
            self._release(known)
            self._folder().sweep()

    # --- which environment

    def _environment(
        self, client: str, needs: Sequence[str], body: Body
    ) -> tuple[_Environment, list[Unpacked]]:
        known = self._clients.get(client)
        if known is None:
            known = self._clients[client] = _Client()
        by_name = {one.name: one for one in [self._unpacked(known, one, body) for one in needs]}
        unpacked = list(by_name.values())
        for environment in known.environments:
            if environment.fits(unpacked):
                return environment, environment.add(unpacked)
        environment = _Environment()
        new = environment.add(unpacked)
        known.environments.insert(0, environment)
        for old in known.environments[_ENVIRONMENTS:]:
            if self._active is not None and self._active[1] is old:
                self._put_aside()
        del known.environments[_ENVIRONMENTS:]
        self._release(known)
        return environment, new

    def _unpacked(self, client: _Client, digest: str, body: Body) -> Unpacked:
        unpacked = client.unpacked.get(digest)
        if unpacked is None:
            unpacked = client.unpacked[digest] = self._folder().take(digest, body)
        return unpacked

    def _release(self, client: _Client) -> None:
        """Let go of the bundles that are in no environment of a client any more."""
        used = {one.hash for each in client.environments for one in each.bundles.values()}
        for digest in client.unpacked.keys() - used:
            unpacked = client.unpacked.pop(digest)
            _forget_paths(unpacked.root)
            self._folder().release(unpacked)

    # --- putting modules in place, and aside

    def _put_in_place(self, client: str, environment: _Environment) -> None:
        if self._base is None:
            self._base = set(sys.modules)
        self._home = self._home or _working_directory()
        self._active = (client, environment)
        directory = self._clients[client].directory
        if directory is not None:
            with contextlib.suppress(OSError):  # gone, or not on this machine
                os.chdir(directory)
        self._hide(environment)
        sys.modules.update(environment.modules)
        environment.modules = {}
        self._enter(environment)

    def _hide(self, environment: _Environment) -> None:
        """Put aside what the pod has of the same names; what is not the pod's goes for good."""
        if not environment.tops:
            return
        for name, module in list(sys.modules.items()):
            if (
                name.partition(".")[0] in environment.tops
                and environment.provides(name)
                and not _is_from(environment, module)
            ):
                del sys.modules[name]
                if self._base is not None and name in self._base:
                    environment.hidden[name] = module

    def _enter(self, environment: _Environment) -> None:
        finder = self._finder
        finder.environment = environment if environment.tops else None
        if environment.tops and (not sys.meta_path or sys.meta_path[0] is not finder):
            if finder in sys.meta_path:
                sys.meta_path.remove(finder)
            sys.meta_path.insert(0, finder)
        files = environment.files
        if files is not None:
            if str(files) not in sys.path:
                sys.path.insert(0, str(files))
            if not environment.entered:
                environment.entered = True
                os.chdir(files)

    def _put_aside(self) -> None:
        if self._active is None:
            return
        client, environment = self._active
        self._active = None
        self._finder.environment = None
        files = environment.files
        if files is not None and str(files) in sys.path:
            sys.path.remove(str(files))
        directory = _working_directory()
        if client in self._clients:
            self._clients[client].directory = directory
        if directory != self._home:
            os.chdir(self._home if Path(self._home).is_dir() else os.sep)
        base = self._base if self._base is not None else set()
        hidden = environment.hidden
        for name in [*(sys.modules.keys() - base), *hidden]:
            module = sys.modules.get(name)
            if module is None:
                continue
            if name not in hidden and self._stays(name, module, environment):
                base.add(name)
            else:
                environment.modules[name] = sys.modules.pop(name)
        sys.modules.update(hidden)
        environment.hidden = {}

    def _stays(self, name: str, module: object, environment: _Environment) -> bool:
        """Whether a module that was imported since is the pod's, and not the client's."""
        top = name.partition(".")[0]
        if top in NEVER_OWN:
            return True
        if not is_module(module):
            return top in (self._base or ())
        if top in environment.tops:
            return False  # its package goes, and would not know it when it comes back
        known = attributes(module)
        spec, file = known.get("__spec__"), known.get("__file__")
        if isinstance(spec, ModuleSpec) and isinstance(spec.loader, ExtensionFileLoader):
            return True
        if isinstance(file, str):
            return is_installed(file)
        # Built in, made by another module, or a namespace package.
        if isinstance(spec, ModuleSpec) and spec.submodule_search_locations is not None:
            folders = folders_of(spec.submodule_search_locations)
            return all(is_installed(f"{folder}{os.sep}") for folder in folders)
        return top != name or isinstance(spec, ModuleSpec)


def _working_directory() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - at each turn of a client
    except FileNotFoundError:  # removed meanwhile
        return os.sep


def _extend_namespaces(unpacked: Unpacked) -> None:
    """Let the namespace packages above a bundle that were imported before it find it, too."""
    parts = unpacked.name.split(".")[:-1]
    for depth in range(1, len(parts) + 1):
        module = sys.modules.get(".".join(parts[:depth]))
        path = getattr(module, "__path__", None)
        location = str(Path(unpacked.root, *parts[:depth]))
        if isinstance(path, list) and location not in path:
            path.insert(0, location)


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def _is_from(environment: _Environment, module: object) -> bool:
    """Whether a module was imported from an environment's bundles."""
    spec = attributes(module).get("__spec__") if is_module(module) else None
    if not isinstance(spec, ModuleSpec):
        return False
    places = [spec.origin or "", *folders_of(spec.submodule_search_locations)]
    roots = tuple(f"{one.root}{os.sep}" for one in environment.bundles.values())
    return any(place.startswith(roots) for place in places)


def _forget_paths(root: Path) -> None:
    """Drop what Python remembers of folders that are about to go."""
    for path in [one for one in sys.path_importer_cache if _is_below(one, root)]:
        del sys.path_importer_cache[path]


def _is_below(path: str, root: Path) -> bool:
    return path == str(root) or path.startswith(f"{root}{os.sep}")


# --- finding


class _Finder:
    """At the front of ``sys.meta_path``: finds what the bundles of the active environment have."""

    def __init__(self) -> None:
        self.environment: _Environment | None = None
        self._busy = False

    def __reduce__(self) -> tuple[Any, ...]:
        """For a process that a call starts by `multiprocessing`; see `spawned`."""
        bundles = {} if self.environment is None else self.environment.bundles
        return _finder_of, (tuple(bundles.values()),)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: object = None
    ) -> ModuleSpec | None:
        """What the import system asks, for a module and the ``__path__`` of its package."""
        environment = self.environment
        if environment is None or self._busy or name.partition(".")[0] not in environment.tops:
            return None
        for bundle in environment.bundles.values():
            if bundle.name and _is_within(name, bundle.name):
                return self._find_in(bundle, name, path)
        if environment.provides(name):
            return self._namespace(environment, name, path)
        return None

    def find_distributions(
        self, context: metadata.DistributionFinder.Context | None = None
    ) -> Iterable[metadata.Distribution]:
        """What `importlib.metadata` asks: which projects are installed, so to speak."""
        from importlib import metadata  # which is slow to import, and asks itself

        environment = self.environment
        if environment is None or context is None:
            return
        within = [str(bundle.root) for bundle in environment.bundles.values() if bundle.name]
        context = metadata.DistributionFinder.Context(name=context.name, path=within)
        yield from metadata.MetadataPathFinder.find_distributions(context)

    def _find_in(
        self, bundle: Unpacked, name: str, path: Sequence[str] | None
    ) -> ModuleSpec | None:
        if name == bundle.name:
            parent = Path(bundle.root, *name.split(".")[:-1])
            return PathFinder.find_spec(name, [str(parent)])
        spec = PathFinder.find_spec(name, None if path is None else list(path))
        if spec is None:
            return self._compiled(name)
        if spec.loader is None:
            # A folder without an ``__init__.py``: Python's own kind of path wants its parent to
            # be in place whenever it is looked at.
            spec.submodule_search_locations = folders_of(spec.submodule_search_locations)
        return spec

    def _namespace(
        self, environment: _Environment, name: str, path: Sequence[str] | None
    ) -> ModuleSpec:
        """A package that has no ``__init__.py``: what is in bundles, then what the pod has."""
        spec = ModuleSpec(name, _NamespaceLoader(), is_package=True)
        parts = name.split(".")
        locations = [
            str(Path(bundle.root, *parts))
            for bundle in environment.bundles.values()
            if bundle.name.startswith(f"{name}.")
        ]
        installed = self._elsewhere(name, path)
        if installed is not None and installed.submodule_search_locations is not None:
            locations += folders_of(installed.submodule_search_locations)
        spec.submodule_search_locations = list(dict.fromkeys(locations))
        return spec

    def _compiled(self, name: str) -> ModuleSpec | None:
        """An extension module, which does not travel, of a package that the pod has as well."""
        parts = name.split(".")
        spec = self._elsewhere(parts[0], None)
        for depth in range(1, len(parts)):
            if spec is None or spec.submodule_search_locations is None:
                return None
            locations = folders_of(spec.submodule_search_locations)
            spec = PathFinder.find_spec(".".join(parts[: depth + 1]), locations)
        return spec if spec is not None and isinstance(spec.loader, ExtensionFileLoader) else None

    def _elsewhere(self, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
        """What the pod has of that name, but for bundles."""
        self._busy = True
        try:
            for finder in sys.meta_path:
                if finder is not self and hasattr(finder, "find_spec"):
                    spec = finder.find_spec(name, path)
                    if spec is not None:
                        return spec
        finally:
            self._busy = False
        return None


def _finder_of(bundles: Sequence[Unpacked]) -> _Finder:
    finder = _Finder()
    finder.environment = _Environment()
    finder.environment.add(bundles)
    return finder


class _NamespaceLoader(importlib.abc.Loader):
    """Makes a namespace package, to which members belong that the pod has loaded already."""

    def create_module(self, _spec: ModuleSpec) -> None:
        """Have Python make the module."""

    def exec_module(self, module: types.ModuleType) -> None:
        package = module.__name__
        for name, member in list(sys.modules.items()):
            parent, _, last = name.rpartition(".")
            if parent == package:
                setattr(module, last, member)
