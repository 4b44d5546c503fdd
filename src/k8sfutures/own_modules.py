"""Which loaded modules are the user's own: a pod that has never seen the user's code lacks them."""

from __future__ import annotations

import site
import sys
import sysconfig
import types
from typing import Final

_OUR_PACKAGES: Final = frozenset({"k8sfutures", "cloudpickle", "dill", "tblib"})


def _installed_prefixes() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    prefixes = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    prefixes.update(site.getsitepackages())
    prefixes.add(site.getusersitepackages())
    return tuple(prefixes)


_PREFIXES: Final = _installed_prefixes()


class OwnModules:
    """The modules of the user's own that are loaded: neither installed nor part of Python."""

    def __init__(self) -> None:
        self._count = -1
        self._modules: dict[bytes, types.ModuleType] = {}

    def get(self) -> dict[bytes, types.ModuleType]:
        """Module by encoded name; looked up anew when the number of loaded modules changed."""
        if len(sys.modules) != self._count:
            modules = dict(sys.modules)
            self._count = len(modules)
            self._modules = {
                name.encode(): module for name, module in modules.items() if _is_own(name, module)
            }
        return self._modules


def _is_own(name: str, module: object) -> bool:
    if name == "__main__" or name.partition(".")[0] in _OUR_PACKAGES:
        return False
    if not isinstance(module, types.ModuleType):
        return False
    origin = getattr(module, "__file__", None)
    return isinstance(origin, str) and origin.endswith(".py") and not origin.startswith(_PREFIXES)


own_modules: Final = OwnModules()
