"""Where an executor's pods run, from its settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import Final

from ..config import Pods, Settings
from ..errors import SettingValueError
from ..machine import expanded
from . import PodSource

logger = logging.getLogger(__name__)

_OF_KUBERNETES: Final = (
    *("cpu", "memory", "node_selector", "tolerations", "pod_template"),
    *("image", "image_pull_policy"),
)
"""Settings that say how pods are to be, and of which local ones have nothing."""

_told: Final[set[tuple[str, ...]]] = set()
"""Settings that this process has been warned of."""


def pod_source(settings: Settings, pods: Pods, pool: str) -> PodSource:
    """The source of an executor's pods.

    Args:
        settings: the executor's.
        pods: where they run.
        pool: the pool's name.

    Raises:
        SettingValueError: the settings cannot work there.
    """
    if pods == "local":
        from .local import LocalPods

        _warn_of_what_is_not_used(settings)
        return LocalPods(settings, pool)
    from .kubernetes.source import KubernetesPods

    if settings.pods is None:
        check_kubeconfig(settings, os.environ)
    return KubernetesPods(settings, pool)


def _warn_of_what_is_not_used(settings: Settings) -> None:
    names = tuple(name for name in _OF_KUBERNETES if getattr(settings, name) is not None)
    if not names or names in _told:
        return
    _told.add(names)
    logger.warning(
        "%s no effect on local pods, which are ordinary processes of this machine: %s",
        *("these settings have" if len(names) > 1 else "this setting has", ", ".join(names)),
    )


def check_kubeconfig(settings: Settings, environ: Mapping[str, str]) -> None:
    """Refuse to take Kubernetes for what was meant only because a file is named that is not there.

    Args:
        settings: of an executor for which nothing else says where pods run.
        environ: the environment.

    Raises:
        SettingValueError: none of the files that are named exists.
    """
    named = settings.kubeconfig or environ.get("KUBECONFIG", "")
    files = [expanded(name) for name in named.split(os.pathsep) if name]
    if not files or any(file.exists() for file in files):
        return
    where = "kubeconfig" if settings.kubeconfig else "the environment variable KUBECONFIG"
    raise SettingValueError(
        f"{where}={named!r} says that pods run on Kubernetes, and there is no such file: mend it, "
        "leave it out, or set pods='local' to run on this machine"
    )
