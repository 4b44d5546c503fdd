"""Under which conditions figures were measured."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import multiprocessing
import os
import platform
from typing import Any

import pika

import k8sfutures

PACKAGES = ("pika", "msgpack", "cloudpickle", "numpy")


def conditions(url: str, workers: int) -> dict[str, Any]:
    """What to know of machine, versions and load before comparing figures with others."""
    return {
        "date": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "cpus": len(os.sched_getaffinity(0)),
        "cpu_model": _cpu_model(),
        "workers": workers,
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "start_method": multiprocessing.get_start_method(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "rabbitmq": _rabbitmq_version(url),
        "k8sfutures": k8sfutures.__version__,
        **{name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _rabbitmq_version(url: str) -> str:
    """As the broker says it when a connection opens; pika keeps that to itself."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        properties = connection._impl.server_properties  # type: ignore[attr-defined]  # noqa: SLF001
        version = properties.get("version", b"unknown")
    return version.decode() if isinstance(version, bytes) else str(version)
