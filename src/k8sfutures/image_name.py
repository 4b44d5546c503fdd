"""What the pods' image is called, where nobody has given it a name."""

from __future__ import annotations

import re
import sys
from typing import Final

from ._version import __version__
from .config import Settings
from .errors import SettingValueError

_PROJECT: Final = "k8sfutures"
_REPOSITORY: Final = "k8sfutures-worker"

_DOCKER_HUB: Final = frozenset(
    ("docker.io", "hub.docker.com", "index.docker.io", "registry-1.docker.io")
)
_SHARED: Final = frozenset(("docker.io", "ghcr.io", "quay.io", "registry.gitlab.com"))
"""Registries in which anybody can have any name: there, one without an owner is a stranger's."""

_OWNER: Final = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*")


def this_python() -> str:
    """The minor version of the Python that runs, such as ``3.11``: pods must have the same."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def default_image(settings: Settings, python: str | None = None) -> str:
    """The name of the pods' image.

    Args:
        settings: ``image`` is the name; else ``registry_server`` and ``registry_user`` are where
            the image lies under its usual name.
        python: minor version of the image's Python, by default this one's.

    Returns:
        The name. Without those settings it begins with ``localhost/``, which no node pulls from
        anywhere.

    Raises:
        SettingValueError: the registry is one that strangers share, and no user is set.
    """
    if settings.image:
        return settings.image
    version = re.sub(r"[^A-Za-z0-9_.-]", "-", __version__)
    name = f"{_REPOSITORY}:{version}-py{python or this_python()}"
    if not settings.registry_server:
        return f"localhost/{name}"
    registry = registry_at(settings.registry_server)
    if "/" in registry:  # It says where in the registry.
        return f"{registry}/{name}"
    owner = (settings.registry_user or "").lower()
    if not _OWNER.fullmatch(owner):  # None, or an address, or a robot's name.
        if registry in _SHARED:
            raise SettingValueError(
                f"registry_user={settings.registry_user!r} names no owner of images at {registry}, "
                f"where {_PROJECT}/{_REPOSITORY} could be a stranger's: set registry_user to the "
                "owner, or image to the image's whole name"
            )
        owner = _PROJECT
    return f"{registry}/{owner}/{name}"


def registry_at(server: str) -> str:
    """The registry as it stands in an image's name, whatever form the setting has it in."""
    server = re.sub(r"^https?://|(/v[12])?/*$", "", server)
    host, slash, path = server.partition("/")
    host = host.lower()
    return f"{'docker.io' if host in _DOCKER_HUB else host}{slash}{path}"
