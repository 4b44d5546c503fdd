"""Where an executor's pods run, from its settings."""

from __future__ import annotations

from ..config import Pods, Settings
from . import PodSource


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

        return LocalPods(settings, pool)
    from .kubernetes.source import KubernetesPods

    return KubernetesPods(settings, pool)
