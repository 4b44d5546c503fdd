"""The settings as keyword arguments, for type checkers and editors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, TypedDict


class Keywords(TypedDict, total=False):
    """Settings of an executor; None stands for one that is not given. `config` checks them."""

    amqp_url: str | None
    pod_amqp_url: str | None
    tls_ca: str | Path | None
    tls_certificate: str | Path | None
    tls_key: str | Path | None
    pods: Literal["kubernetes", "local"] | None
    pool: str | None
    worker_processes: int | None
    image: str | None
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None
    registry_server: str | None
    registry_user: str | None
    registry_password: str | None
    kubeconfig: str | Path | None
    context: str | None
    namespace: str | None
    cpu: float | str | None
    memory: int | str | None
    node_selector: Mapping[str, str] | None
    tolerations: Sequence[Mapping[str, Any]] | None
    pod_template: Mapping[str, Any] | None
    warm_for: float | None
    retries: int | None
    startup_timeout: float | None
    secret: str | None
    flush_window: float | None
    output: Literal["marked", "plain", "off"] | None
    ship: Sequence[str | Path | ModuleType] | None
    environment: Mapping[str, str] | None
