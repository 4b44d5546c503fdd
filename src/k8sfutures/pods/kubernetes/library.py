"""Access to a cluster through Kubernetes' own client, for whatever is not `plain`.

The only module that imports that client, and only once it is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from ...errors import ClusterError
from ...machine import expanded, is_file
from .plain import ACCOUNT
from .transport import CONNECT_TIMEOUT, CONNECTIONS, HEADERS, Found, innermost, socket_options


def fields_of(kind: str) -> frozenset[str]:
    """The fields of an object, as the installed client of Kubernetes knows them.

    Args:
        kind: name of its model class.
    """
    from kubernetes import client

    return frozenset(getattr(client, kind).attribute_map.values())


class LibraryTransport:
    """With Kubernetes' own client.

    Args:
        configuration: a ``kubernetes.client.Configuration``.
    """

    def __init__(self, configuration: Any) -> None:
        from kubernetes.client import ApiClient
        from kubernetes.client.exceptions import ApiException
        from kubernetes.config import ConfigException
        from urllib3.exceptions import HTTPError

        failures = HTTPError, OSError, ApiException, ConfigException
        self.failures: tuple[type[Exception], ...] = failures
        self.server = str(configuration.host)
        configuration.retries = False
        configuration.socket_options = socket_options()
        configuration.connection_pool_maxsize = CONNECTIONS
        self._client = ApiClient(configuration)

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        read_timeout: float,
    ) -> Any:
        """See `Transport.request`."""
        request = self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=dict(HEADERS),
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request, _request_timeout=(CONNECT_TIMEOUT, read_timeout))
        return answer.response

    def close(self) -> None:
        """See `Transport.close`."""
        self._client.close()


def load_kubeconfig(given: str, context: str | None) -> Found:
    """A kubeconfig of any kind.

    Args:
        given: its path, or several with the system's separator.
        context: which of its contexts; None for its current one.

    Raises:
        ClusterError: it is not there, or cannot be used.
    """
    from kubernetes.client import Configuration
    from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

    if not any(is_file(expanded(one)) for one in given.split(os.pathsep) if one):
        raise ClusterError(
            f"there is no kubeconfig file {given} (setting kubeconfig, or KUBECONFIG in the "
            "environment)"
        )
    configuration = Configuration()
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
        _check_login(whole.value.get("users") or (), current["context"].get("user"), configuration)
    except ClusterError:
        raise
    except Exception as error:
        # The client's own, PyYAML's, a missing file's, and those of plug-ins that log in.
        no_form = isinstance(error, TypeError | AttributeError)
        words = "it does not have the form of one" if no_form else innermost(error)
        raise ClusterError(
            f"the kubeconfig {given} cannot be used: {words}; "
            "see the settings kubeconfig and context"
        ) from error
    name = current["name"]
    transport = LibraryTransport(configuration)
    return Found(transport, f"context {name} of {given}", current["context"].get("namespace"), name)


def _check_login(users: Iterable[Any], name: str | None, configuration: Any) -> None:
    """See that a command that logs in has done so.

    Where it fails, Kubernetes' client writes why into the log, and goes on as nobody: what the API
    then says is that ``system:anonymous`` may do nothing.

    Args:
        users: of the kubeconfig.
        name: of the one that counts.
        configuration: what came of it.

    Raises:
        ClusterError: there is nothing to log in with.
    """
    if configuration.api_key or configuration.cert_file or configuration.username:
        return
    for user in users:
        if user["name"] == name and "exec" in (user["user"] or ()):
            login = user["user"]["exec"]
            command = login["command"] if "command" in login else None  # noqa: SIM401 - no dict
            raise ClusterError(
                f"the command {command!r}, which is to log user {name!r} of the kubeconfig in, "
                "gave nothing to log in with: install it, or run it to see what it says"
            )


def load_service_account() -> Found:
    """The service account of the pod that we are in.

    Raises:
        ClusterError: we are in none.
    """
    from kubernetes.client import Configuration
    from kubernetes.config import ConfigException
    from kubernetes.config.incluster_config import load_incluster_config

    configuration = Configuration()
    try:
        load_incluster_config(client_configuration=configuration)
    except ConfigException as error:
        raise ClusterError(
            "no Kubernetes configuration is found: neither the setting kubeconfig, nor KUBECONFIG, "
            f"nor ~/.kube/config, nor the service account of a pod ({innermost(error)})"
        ) from error
    namespace = ACCOUNT / "namespace"
    text = namespace.read_text(encoding="utf-8").strip() if namespace.is_file() else None
    transport = LibraryTransport(configuration)
    return Found(transport, "this pod's service account", text or None, None)
