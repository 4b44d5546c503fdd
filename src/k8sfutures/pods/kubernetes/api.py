"""The Kubernetes API: the only module that imports its client, and only once it is needed.

That client finds the cluster and logs in (kubeconfig files, plug-ins, service accounts); objects
are the API's own JSON, since its model classes cost more to make than all that we do with them.
Everything that can go wrong is a `ClusterError` with words of ours.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from ...errors import ClusterError
from .timestamps import of_header

NO_ANSWER: Final = 0
"""Status of a `ClusterError` where the API did not answer."""


def passes(error: ClusterError) -> bool:
    """Whether what has failed may work later: no answer, overload, a new leader."""
    status = error.status
    return status in {NO_ANSWER, 410, 429} or (status is not None and status >= 500)


CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 30.0
WATCH_SECONDS: Final = 240
"""How long the API server keeps a watch open, before we ask for it again."""

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A connection that has been silent for so many seconds is probed, so often, before it is lost."""

_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


def fields_of(kind: str) -> frozenset[str]:
    """The fields of an object, as the installed client of Kubernetes knows them.

    Args:
        kind: name of its model class.
    """
    from kubernetes import client

    return frozenset(getattr(client, kind).attribute_map.values())


class KubeApi:
    """A cluster's API, and the namespace to work in. Its methods may be called from any thread.

    Args:
        kubeconfig: path of a kubeconfig file; else ``KUBECONFIG`` (which may name several),
            ``~/.kube/config``, and the service account of the pod that we are in are tried.
        context: which of the kubeconfig's contexts; its current one by default.
        namespace: the context's, or the service account's, by default.

    Raises:
        ClusterError: there is no configuration, or it cannot be used.
    """

    def __init__(
        self,
        kubeconfig: str | None = None,
        context: str | None = None,
        namespace: str | None = None,
    ) -> None:
        from kubernetes.client import ApiClient, Configuration
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        self.failures = (HTTPError, OSError, ApiException, ConfigException)
        configuration = Configuration()
        found = _load(configuration, kubeconfig, context)
        # We say when to try again, and for how long.
        configuration.retries = False
        configuration.socket_options = _socket_options()
        configuration.connection_pool_maxsize = 16
        self.server = str(configuration.host)
        self.origin = found.origin
        self.context = found.context
        """Name of the kubeconfig's context, or None."""
        self.namespace = namespace or found.namespace or "default"
        self.time = ""
        """By the server's clock, when it last answered: ours may be wrong. "" for unknown."""
        self._client = ApiClient(configuration)

    def close(self) -> None:
        """Close idle connections."""
        self._client.close()

    def list(self, path: str, **query: str) -> tuple[list[dict[str, Any]], str]:
        """The items of a collection, and the version to watch it from.

        Args:
            path: such as ``/api/v1/nodes``.
            **query: parameters.

        Raises:
            ClusterError: it cannot be had.
        """
        items: list[dict[str, Any]] = []
        query = {"limit": "1000", **query}
        while True:
            page = self._ask("GET", path, query)
            items += page.get("items") or []
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                return items, str(page["metadata"].get("resourceVersion", ""))

    def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object.

        Raises:
            ClusterError: it was refused; with status 409 where there is one of this name.
        """
        # Servers as of 1.25 refuse fields that they do not know; others drop them without a word.
        return self._ask("POST", path, {"fieldValidation": "Strict"}, body)

    def delete(self, path: str, uid: str = "") -> bool:
        """Delete an object, and in the background what it owns.

        Args:
            path: the object's.
            uid: the object's; "" for whichever has this path.

        Returns:
            Whether it was there.

        Raises:
            ClusterError: it was refused.
        """
        try:
            options: dict[str, Any] = {"propagationPolicy": "Background"}
            if uid:
                options["preconditions"] = {"uid": uid}
            self._ask("DELETE", path, body=options)
        except ClusterError as error:
            if error.status == 404:
                return False
            raise
        return True

    def watch(self, path: str, version: str, **query: str) -> Watch:
        """What changes in a collection from a version on.

        Raises:
            ClusterError: it cannot be watched.
        """
        query |= {
            "watch": "true",
            "resourceVersion": version,
            "timeoutSeconds": str(WATCH_SECONDS),
            "allowWatchBookmarks": "true",
        }
        return Watch(self, self._open("GET", path, query, read_timeout=WATCH_SECONDS + 30.0))

    # --- one request

    def _ask(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        response = self._open(method, path, query, body)
        try:
            answer: dict[str, Any] = json.loads(response.data)
        except (*self.failures, ValueError) as error:
            raise self.unreachable(error) from error
        return answer

    def _open(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        read_timeout: float = READ_TIMEOUT,
    ) -> Any:
        try:
            request = self._client.param_serialize(
                method,
                path,
                query_params=[(key, value) for key, value in (query or {}).items() if value],
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
            )
            answer = self._client.call_api(
                *request, _request_timeout=(CONNECT_TIMEOUT, read_timeout)
            )
        except self.failures as error:
            raise self.unreachable(error) from error
        response = answer.response
        self.time = of_header(response.headers.get("Date")) or self.time
        if not 200 <= response.status <= 299:
            raise self._refused(method, path, response)
        return response

    def unreachable(self, error: BaseException) -> ClusterError:
        """Words for an API server that does not answer."""
        return ClusterError(
            f"the Kubernetes API at {self.server} ({self.origin}) does not answer: "
            f"{_innermost(error)}; is the cluster up, and is this the right one "
            "(settings kubeconfig and context)?",
            status=NO_ANSWER,
        )

    def _refused(self, method: str, path: str, response: Any) -> ClusterError:
        try:
            message = str(json.loads(response.data)["message"])
        except (*self.failures, ValueError, KeyError, TypeError):
            message = f"{method} {path}: {response.reason}"
        where = f"the Kubernetes API at {self.server} ({self.origin})"
        status = response.status
        if status == 401:
            text = f"{where} does not accept our credentials: {message}"
        elif status == 403 and "is forbidden: User" in message:
            text = (
                f"{where} does not allow this client what it needs: {message}. "
                "worker/role.yaml of k8sfutures has the rights that it needs: have it applied, "
                "and bound to this user"
            )
        else:
            text = f"{where} refused: {message}"
        return ClusterError(text, status=status)


def _socket_options() -> list[tuple[int, int, int]]:
    """Have the kernel notice a server that is gone without a word: a watch only ever listens."""
    return [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), seconds)
            for name, seconds in _KEEPALIVE.items()
            if hasattr(socket, name)  # not on every system, nor by these names
        ),
    ]


class Watch:
    """What changes: an iterator over the API's watch events, that another thread can end."""

    def __init__(self, api: KubeApi, response: Any) -> None:
        self._api = api
        self._response = response
        self._stopped = threading.Event()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        buffer = b""
        try:
            for data in self._response.stream(1 << 16):
                *lines, buffer = (buffer + data).split(b"\n")
                yield from (json.loads(line) for line in lines if line)
        except (*self._api.failures, ValueError) as error:
            if not self._stopped.is_set():
                raise self._api.unreachable(error) from error
        finally:
            self._response.close()

    def stop(self) -> None:
        """End the iteration; from any thread."""
        self._stopped.set()
        try:
            self._response.shutdown()
        except (ValueError, RuntimeError, OSError):
            self._response.close()  # it has ended by itself


class _Found:
    """Where the configuration came from, its namespace, and its context."""

    def __init__(self, origin: str, namespace: str | None, context: str | None) -> None:
        self.origin = origin
        self.namespace = namespace
        self.context = context


def _load(configuration: Any, kubeconfig: str | None, context: str | None) -> _Found:
    """Fill in the configuration from the first place that has one."""
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    given = kubeconfig or os.environ.get("KUBECONFIG")
    if given is None:
        usual = Path("~/.kube/config").expanduser()
        given = str(usual) if usual.is_file() else None
    if given is None:
        return _load_service_account(configuration)
    if not any(Path(one).expanduser().is_file() for one in given.split(os.pathsep) if one):
        raise ClusterError(
            f"there is no kubeconfig {given} (setting kubeconfig, or KUBECONFIG in the environment)"
        )
    try:
        whole = KubeConfigMerger(given).config
        there = sorted(str(one["name"]) for one in whole.value.get("contexts") or ())
        if context is not None and context not in there:
            raise ClusterError(
                f"context={context!r} is not in {given}; there are: {', '.join(there) or 'none'}"
            )
        loader = KubeConfigLoader(whole, active_context=context, config_base_path=None)
        loader.load_and_set(configuration)
        current = loader.current_context
    except ClusterError:
        raise
    except Exception as error:
        # The client's own, PyYAML's, a missing file's, and those of plug-ins that log in.
        raise ClusterError(
            f"the kubeconfig {given} cannot be used: {_innermost(error)}; "
            "see the settings kubeconfig and context"
        ) from error
    name = current["name"]
    return _Found(f"context {name} of {given}", current["context"].get("namespace"), name)


def _load_service_account(configuration: Any) -> _Found:
    from kubernetes.config import ConfigException
    from kubernetes.config.incluster_config import load_incluster_config

    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException as error:
        raise ClusterError(
            "no Kubernetes configuration is found: neither the setting kubeconfig, nor KUBECONFIG, "
            f"nor ~/.kube/config, nor the service account of a pod ({_innermost(error)})"
        ) from error
    namespace = _ACCOUNT / "namespace"
    text = namespace.read_text(encoding="utf-8").strip() if namespace.is_file() else None
    return _Found("this pod's service account", text or None, None)


def _innermost(error: BaseException) -> str:
    """The words of the error that started it, without what each layer has put around it."""
    seen: set[int] = set()
    reason: BaseException = error
    while id(reason) not in seen:
        seen.add(id(reason))
        deeper = getattr(reason, "reason", None)
        deeper = deeper if isinstance(deeper, BaseException) else reason.__cause__
        if isinstance(deeper, BaseException):
            reason = deeper
    text = str(getattr(reason, "reason", None) or reason).strip()
    return f"{type(reason).__name__}: {text}" if text else type(reason).__name__
