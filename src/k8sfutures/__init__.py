"""``ProcessPoolExecutor``, but the processes are the CPUs of a Kubernetes cluster.

Use::

    from k8sfutures import K8sRabbitExecutor

    with K8sRabbitExecutor() as ex:
        results = list(ex.map(simulate, parameters))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._version import __version__
from .errors import (
    BrokerNotInstalled,
    BrokerRefused,
    BrokerUnreachable,
    BrokerUntrusted,
    CallCancelled,
    CallFailed,
    CallNotLoadable,
    CallTimeout,
    ClusterError,
    ExecutorBroken,
    ForkedExecutorError,
    ImageError,
    InitializerFailed,
    K8sFuturesError,
    PodLost,
    PodMismatch,
    PodsUnavailable,
    ResultNotLoadable,
    SettingTypeError,
    SettingValueError,
    ThreadDied,
    WorkerCrashed,
    WorkersTerminated,
)

if TYPE_CHECKING:
    from .executor import K8sRabbitExecutor

__all__ = [
    "BrokerNotInstalled",
    "BrokerRefused",
    "BrokerUnreachable",
    "BrokerUntrusted",
    "CallCancelled",
    "CallFailed",
    "CallNotLoadable",
    "CallTimeout",
    "ClusterError",
    "ExecutorBroken",
    "ForkedExecutorError",
    "ImageError",
    "InitializerFailed",
    "K8sFuturesError",
    "K8sRabbitExecutor",
    "PodLost",
    "PodMismatch",
    "PodsUnavailable",
    "ResultNotLoadable",
    "SettingTypeError",
    "SettingValueError",
    "ThreadDied",
    "WorkerCrashed",
    "WorkersTerminated",
    "__version__",
]


def __getattr__(name: str) -> object:
    # The executor brings pika along; a pod that imports this package for its errors does not.
    if name == "K8sRabbitExecutor":
        from .executor import K8sRabbitExecutor

        globals()[name] = K8sRabbitExecutor
        return K8sRabbitExecutor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
