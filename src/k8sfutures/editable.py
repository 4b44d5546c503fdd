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
from typing import Final
from urllib.parse import unquote, urlsplit

from .own_modules import is_installed

# Each client that ships a module of its own asks, and few have such a project: importlib.metadata
# and urllib.request, which are slow to import, are for those alone.

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
    for folder, info in _projects(tuple(sys.path)):
        if path.startswith(folder):
            # One that setuptools has installed is noted about in the working tree as well.
            found = dict(_notes(info)) | found
    return tuple(found.items())


def _notes(info: Path) -> Iterator[tuple[str, str]]:
    from importlib import metadata

    distribution = metadata.Distribution.at(info)
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
def _projects(path: tuple[str, ...]) -> list[tuple[str, Path]]:
    """The folder of each project on ``sys.path`` whose code is not installed, with a slash.

    And the folder of what is noted about it.
    """
    found = []
    for entry in dict.fromkeys(path):
        place = Path(entry).absolute()
        if not place.is_dir():  # it need not be there, and may be a zip file
            continue
        for info in (*place.glob("*.dist-info"), *place.glob("*.egg-info")):
            folder = _folder(info)
            if folder is not None:
                found.append((f"{folder}/", info))
    return found


def _folder(info: Path) -> str | None:
    try:
        origin = json.loads((info / "direct_url.json").read_text("utf-8"))
    except OSError:  # most have none
        origin = {}
    except ValueError:
        return None
    if origin.get("dir_info", {}).get("editable"):
        return unquote(urlsplit(origin["url"]).path).rstrip("/")
    # An ``.egg-info`` in the working tree; long ago one could be a file, which tells too little.
    place = str(info.parent)
    return None if is_installed(f"{place}/") or not info.is_dir() else place
