"""Which modules are the user's own: a pod that has never seen the user's code lacks them.

A module is *installed* where it lies in a folder that installers fill (``site-packages``), or is
part of Python. Everything else is the user's own: beside the script, in the working tree, of an
editable install. Own modules are of two kinds:

* one that Python has loaded from a source file, in the ordinary way, is *shipped*: it travels as
  its source, is imported on the pod under its own name, and pickles refer to it by name;
* any other (made by hand in a notebook, or by a loader that has changed the source, as pytest
  does with tests) travels *by value*: definition by definition, with cloudpickle.
"""

from __future__ import annotations

import os
import re
import site
import sys
import sysconfig
import threading
import types
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any, Final, TypeGuard

NEVER_OWN: Final = frozenset(
    {"__main__", "__mp_main__", "k8sfutures", "cloudpickle", "dill", "msgpack", "pika", "tblib"}
) | frozenset(sys.stdlib_module_names)
"""Top-level names that are never the user's own: programs of ours and pods run on these."""

_INSTALLERS: Final = re.compile(r"[/\\](?:site|dist)-packages[/\\]")


def _installed_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    folders.update(site.getsitepackages())
    folders.add(site.getusersitepackages())
    folders |= {str(Path(folder).resolve()) for folder in folders}
    return tuple(folder.rstrip(os.sep) + os.sep for folder in folders)


_PREFIXES: Final = _installed_prefixes()


def is_installed(path: str) -> bool:
    """Whether a file or folder is where installers and Python itself put modules.

    Args:
        path: absolute.
    """
    return path.startswith(_PREFIXES) or _INSTALLERS.search(path) is not None


def is_module(thing: object) -> TypeGuard[types.ModuleType]:
    """Whether it is a module, and does not only say so."""
    return issubclass(type(thing), types.ModuleType)


def attributes(module: types.ModuleType) -> dict[str, Any]:
    """A module's attributes, without waking one that is loaded when it is first used."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found


def folders_of(path: Iterable[object] | None) -> list[str]:
    """The folders on a package's path, as far as they are texts.

    Args:
        path: the package's; that of a namespace package cannot be read without its parent.
    """
    try:
        return [one for one in path or () if isinstance(one, str)]
    except KeyError:  # the parent is not loaded any more
        return []


def is_plain_source(spec: ModuleSpec) -> bool:
    """Whether a module is what its source file says, no more and no less."""
    return isinstance(spec.loader, SourceFileLoader) and isinstance(spec.origin, str)


class OwnModules:
    """The user's own modules among those that are loaded. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen: tuple[int, str] = (0, "")
        self._known: dict[str, types.ModuleType] = {}
        self._by_value: dict[bytes, types.ModuleType] = {}
        self._shipped: dict[bytes, str] = {}

    def by_value(self) -> dict[bytes, types.ModuleType]:
        """Those whose definitions travel by value, by encoded name."""
        self._refresh()
        return self._by_value

    def shipped(self) -> dict[bytes, str]:
        """The top-level names of those that are shipped, by their encoded form."""
        self._refresh()
        return self._shipped

    def _refresh(self) -> None:
        """Look at the modules that have come or gone since the last time."""
        # The newest is the last one, as `sys.modules` is a dict.
        seen = (len(sys.modules), next(reversed(sys.modules), ""))
        if seen == self._seen:
            return
        with self._lock:
            modules = dict(sys.modules)
            known = self._known
            by_value = {name: m for name, m in self._by_value.items() if _is_same(modules, name, m)}
            shipped: dict[bytes, str] = {}
            for name, module in modules.items():
                if known.get(name) is module:
                    continue
                kind = _kind_of(name, module, modules)
                if kind == _BY_VALUE:
                    by_value[name.encode()] = module
                elif kind == _SHIPPED:
                    top = name.partition(".")[0]
                    shipped[top.encode()] = top
            # A name that was shipped before stays: it costs a search, and no more.
            self._shipped = self._shipped | shipped
            self._by_value = by_value
            self._known = modules
            self._seen = seen


_BY_VALUE: Final = "by value"
_SHIPPED: Final = "shipped"


def _is_same(modules: dict[str, Any], name: bytes, module: types.ModuleType) -> bool:
    return modules.get(name.decode()) is module


def _kind_of(name: str, module: object, modules: dict[str, Any]) -> str | None:
    """How an own module travels; None for one that is not the user's own."""
    top = name.partition(".")[0]
    if top in NEVER_OWN or not is_module(module):
        return None
    known = attributes(module)
    file, spec = known.get("__file__"), known.get("__spec__")
    if not isinstance(file, str):
        # Made by hand; or by an installed package, which makes it on the pod as well.
        parent = modules.get(top)
        made_by_hand = spec is None and (parent is module or parent is None)
        return _BY_VALUE if made_by_hand else None
    if not file.endswith(".py") or is_installed(file) or not Path(file).is_absolute():
        return None
    if (
        isinstance(spec, ModuleSpec)
        and spec.name == name
        and is_plain_source(spec)
        and Path(file).is_file()
    ):
        return _SHIPPED
    return _BY_VALUE


own_modules: Final = OwnModules()


# --- reloads

reloads: Final[dict[str, object]] = {"last": object()}
"""``reloads["last"]`` is another object after each `importlib.reload`, of any module."""


class _ReloadWatch:
    """Finds nothing; is asked about each module that is loaded again, with that as the target."""

    @staticmethod
    def find_spec(_name: str, _path: object = None, target: object = None) -> None:
        if target is not None:
            reloads["last"] = object()


def watch_reloads() -> None:
    """Keep `reloads` up to date from now on."""
    if not any(isinstance(finder, _ReloadWatch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _ReloadWatch())
