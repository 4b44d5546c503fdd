"""A user's own modules, made for a test, and gone after it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

from k8sfutures.own_modules import folders_of


class Project:
    """A folder on ``sys.path``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **files: str | bytes) -> None:
        """Write modules, by name."""
        self.files({f"{name}.py": text for name, text in files.items()})

    def files(self, files: dict[str, str | bytes]) -> None:
        """Write files, by path."""
        for path, content in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())
        importlib.invalidate_caches()


@contextlib.contextmanager
def project(folder: Path) -> Iterator[Project]:
    """Have a folder's modules importable, and none of them loaded afterwards."""
    loaded, path, finders = dict(sys.modules), list(sys.path), list(sys.meta_path)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield Project(folder)
    finally:
        sys.path[:], sys.meta_path[:] = path, finders
        for name, module in list(sys.modules.items()):
            if name in loaded:
                continue
            places = [getattr(module, "__file__", None)]
            places += folders_of(getattr(module, "__path__", None))
            if any(str(place).startswith(str(folder)) for place in places):
                del sys.modules[name]
        sys.modules.update(loaded)
        importlib.invalidate_caches()
