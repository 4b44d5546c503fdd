"""Projects whose code is the user's own and whose name is installed: ``pip install -e``.

Such code asks for its own version, or for its plugins, with `importlib.metadata`. So what an
installer has noted about a project goes along with its modules.
"""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .own_modules import is_installed

# Neither a pod nor most clients ever ask: `importlib.metadata` and `urllib` are slow to import.
if TYPE_CHECKING:
    from importlib import metadata

_NOTES: Final = ("METADATA", "PKG-INFO", "entry_points.txt", "top_level.txt")


def notes_about(path: str) -> tuple[tuple[str, str], ...]:
    """What is noted about the projects that a file or folder belongs to.

    Args:
        path: absolute.

    Returns:
        Files of ``.dist-info`` folders, as (path in the bundle, text).
    """
    found: dict[str, str] = {}
    if is_installed(path):  # in a virtual environment of the project, perhaps
        return ()
    for folder, distribution in _projects(tuple(sys.path)):
        if path.startswith(folder):
            # One that setuptools has installed is noted about in the working tree as well.
            found = dict(_notes(distribution)) | found
    return tuple(found.items())


def _notes(distribution: metadata.Distribution) -> Iterator[tuple[str, str]]:
    # Where the name has a hyphen, only its part before that would be found.
    name = re.sub(r"[-_./]+", "_", distribution.metadata["Name"])
    for note in _NOTES:
        text = distribution.read_text(note)
        if text:
            # The older name means the same.
            yield (
                f"{name}-{distribution.version}.dist-info/{note.replace('PKG-INFO', 'METADATA')}",
                text,
            )


@functools.lru_cache(4)
def _projects(_path: tuple[str, ...]) -> list[tuple[str, metadata.Distribution]]:
    """The folder of each project on ``sys.path`` whose code is not installed; with a slash."""
    from importlib import metadata

    found = []
    for distribution in metadata.distributions():
        folder = _folder(distribution)
        if folder is not None:
            found.append((f"{folder}/", distribution))
    return found


def _folder(distribution: metadata.Distribution) -> str | None:
    try:
        origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return None
    if origin.get("dir_info", {}).get("editable"):
        from urllib.parse import urlsplit
        from urllib.request import url2pathname

        return url2pathname(urlsplit(origin["url"]).path).rstrip("/")
    # An ``.egg-info`` in the working tree.
    place = str(Path(str(distribution.locate_file(""))).absolute())
    return None if is_installed(f"{place}/") else place
