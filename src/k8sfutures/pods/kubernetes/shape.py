"""From settings to what shapes a pod: pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...address import parse_amqp_url
from ...config import Settings
from ...errors import SettingValueError
from ...image_name import default_image
from ...messages import Versions
from ...quantities import quantity
from .capacity import millicores, requests
from .fields import check_fields
from .labels import CONTAINER
from .library import fields_of
from .manifests import PodSpec
from .placement import Size


def pod_spec(settings: Settings, pool: str) -> PodSpec:
    """What all pods of the pool have in common.

    Args:
        settings: the executor's.
        pool: the pool's name.

    Raises:
        SettingValueError: ``pod_template`` is no part of a pod's manifest, or is misspelt.
    """
    template: Mapping[str, Any] = settings.pod_template or {}
    strange = sorted(set(template) - {"apiVersion", "kind", "metadata", "spec"})
    if strange:
        raise SettingValueError(
            f"pod_template has {', '.join(map(repr, strange))} at its top; it is a part of a pod's "
            "manifest, so that is metadata and spec"
        )
    for part in ("metadata", "spec"):
        if not isinstance(template.get(part, {}), Mapping):
            raise SettingValueError(f"{part} of pod_template must be a dict")
    check_fields(template, fields_of)
    return PodSpec(
        pool=pool,
        shape={
            **settings.shape("kubernetes"),
            "image": default_image(settings),
            "versions": str(Versions.ours()),
        },
        image=default_image(settings),
        pull_policy=settings.image_pull_policy,
        memory=None if settings.memory is None else str(settings.memory),
        warm_for=settings.warm_for_seconds("kubernetes"),
        node_selector=settings.node_selector or {},
        tolerations=settings.tolerations or (),
        template=template,
    )


def size_of(settings: Settings) -> Size:
    """How large a pod is."""
    template = settings.pod_template or {}
    others = [
        container
        for container in (template.get("spec") or {}).get("containers") or ()
        if container.get("name") != CONTAINER
    ]
    try:
        extra_cpu, extra_memory = requests({**(template.get("spec") or {}), "containers": others})
    except (ValueError, AttributeError, TypeError) as error:
        raise SettingValueError(f"resources in pod_template cannot be read: {error}") from None
    return Size(
        extra_cpu=extra_cpu,
        extra_memory=extra_memory,
        processes=settings.worker_processes,
        cpu=None if settings.cpu is None else millicores(settings.cpu),
        memory=0 if settings.memory is None else int(quantity(settings.memory)),
    )


def registry_of(settings: Settings) -> tuple[str, str, str] | None:
    """Server, user and password of the image's registry, where they are given.

    Raises:
        SettingValueError: some are given, and others not.
    """
    given = (settings.registry_server, settings.registry_user, settings.registry_password)
    server, user, password = given
    if user is None and password is None:
        return None
    if server is None or user is None or password is None:
        names = ("registry_server", "registry_user", "registry_password")
        missing = [name for name, value in zip(names, given, strict=True) if value is None]
        raise SettingValueError(
            f"{' and '.join(missing)} must be given, too: an image is pulled with a server, a "
            "user and a password"
        )
    return server, user, password


def broker_urls(settings: Settings) -> tuple[str, str]:
    """The broker's URL for the client, and as pods on Kubernetes see it.

    Raises:
        SettingValueError: there is none that a pod can reach.
    """
    if settings.amqp_url is None:
        raise SettingValueError(
            "amqp_url is not set, and pods on Kubernetes cannot reach a broker of this machine's "
            "own: give amqp_url (or K8SFUTURES_AMQP_URL) the URL of a RabbitMQ that they can "
            "reach, as worker/rabbitmq.yaml starts one for a trial; or set pods='local' to run "
            "on this machine"
        )
    pod_url = settings.pod_amqp_url or settings.amqp_url
    address = parse_amqp_url(pod_url)
    if _is_loopback(address.host):
        name = "pod_amqp_url" if settings.pod_amqp_url else "amqp_url"
        raise SettingValueError(
            f"{name}={address.safe} is an address of each machine's own, where a pod on "
            "Kubernetes would find itself: give pod_amqp_url (or K8SFUTURES_POD_AMQP_URL) the URL "
            "of the same broker as pods see it"
        )
    return settings.amqp_url, pod_url


def _is_loopback(host: str) -> bool:
    return host in {"localhost", "::1", "0.0.0.0"} or host.startswith("127.")  # noqa: S104
