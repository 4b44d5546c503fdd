"""Access to a cluster that takes no more than certificates or a token: most kubeconfigs.

Kubernetes' own client reads every kind of configuration, and takes longer to be imported than a
cluster takes to accept our Jobs. So the plain kinds are read here, in the same places and by the
same rules [1]_; whatever else there is to see (plug-ins that log in, proxies, several files,
anything unknown or wrong) is left to that client, which also has the words for it.

.. [1] https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from ...machine import expanded, is_file
from ...values import dataclass

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its service account."""

TOKEN_AGE: Final = 60.0
"""Seconds after which a token's file is read again: the kubelet renews it."""

_CLUSTER: Final = frozenset(
    {"server", "certificate-authority", "certificate-authority-data", "tls-server-name"}
)
_USER: Final = frozenset(
    {
        *("client-certificate", "client-certificate-data", "client-key", "client-key-data"),
        *("token", "tokenFile"),
    }
)


class _Otherwise(Exception):
    """This is not plain."""


_OTHERWISE: Final = (_Otherwise, OSError, ValueError, KeyError, TypeError, AttributeError)
"""Whatever is wrong with a configuration is told, or dealt with, by Kubernetes' own client."""


@dataclass(frozen=True, slots=True)
class Plain:
    """What it takes to reach a cluster.

    Attributes:
        server: the API's URL, ``https`` always.
        origin: where this was found, for people.
        context: name of the kubeconfig's context, or None.
        namespace: the context's or the service account's, or None.
        authority: PEM certificates that sign the server's, or None for those of this machine.
        certificate: our own, PEM with its key, or None.
        server_name: that the server's certificate must have, or None for the URL's.
        token: to log in with, or None.
        token_file: has the token, and from time to time another one; or None.
    """

    server: str
    origin: str
    context: str | None = None
    namespace: str | None = None
    authority: str | None = None
    certificate: str | None = field(default=None, repr=False)
    server_name: str | None = None
    token: str | None = field(default=None, repr=False)
    token_file: Path | None = None


class Token:
    """A token that may come from a file.

    Args:
        access: has the token or its file.
    """

    def __init__(self, access: Plain) -> None:
        self._file = access.token_file
        self._token = access.token
        self._read_at = time.monotonic()

    def current(self) -> str | None:
        """The token as of now, or None where there is none.

        Raises:
            OSError: its file cannot be read.
        """
        if self._file is not None:
            now = time.monotonic()
            if self._token is None or now - self._read_at > TOKEN_AGE:
                self._token, self._read_at = self._file.read_text("utf-8").strip(), now
        return self._token


def plain_kubeconfig(file: str, context: str | None) -> Plain | None:
    """What a kubeconfig says, if it is plain.

    Args:
        file: its path, or several with the system's separator (which are not plain).
        context: which of its contexts; None for its current one.

    Returns:
        None where Kubernetes' own client has to look at it.
    """
    try:
        return _of_kubeconfig(file, context)
    except _OTHERWISE:
        return None


def plain_service_account(environ: Mapping[str, str]) -> Plain | None:
    """What a pod is given to reach its cluster, if we are in one.

    Args:
        environ: the environment.

    Returns:
        None where Kubernetes' own client has to look for it.
    """
    try:
        return _of_service_account(environ)
    except _OTHERWISE:
        return None


def _of_service_account(environ: Mapping[str, str]) -> Plain:
    _refuse_proxies()
    host = _text(environ, "KUBERNETES_SERVICE_HOST")
    port = _text(environ, "KUBERNETES_SERVICE_PORT")
    namespace = ACCOUNT / "namespace"
    found = Plain(
        server=f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
        origin="this pod's service account",
        namespace=namespace.read_text("utf-8").strip() or None if namespace.is_file() else None,
        authority=(ACCOUNT / "ca.crt").read_text("ascii"),
        token_file=ACCOUNT / "token",
    )
    if not found.authority or not Token(found).current():
        raise _Otherwise
    return found


def _refuse_proxies() -> None:
    # Now: with all that it imports in turn, it would hold up a client that needs no cluster.
    from urllib.request import getproxies

    if getproxies():
        raise _Otherwise


def _of_kubeconfig(file: str, context: str | None) -> Plain:
    import yaml

    path = expanded(file)
    if not is_file(path):  # nor are several of them one file
        raise _Otherwise
    _refuse_proxies()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        # The safe loader written in C, where there is one: the other takes 20 times as long.
        whole = yaml.load(path.read_text("utf-8"), Loader=loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise _Otherwise from error
    name = context or _text(whole, "current-context")
    chosen = _named(whole, "contexts", "context", name)
    cluster = _named(whole, "clusters", "cluster", chosen["cluster"])
    user = _named(whole, "users", "user", chosen["user"])
    cluster.pop("extensions", None)
    if cluster.keys() - _CLUSTER or user.keys() - _USER:
        raise _Otherwise
    server = _text(cluster, "server").rstrip("/")
    if not server.startswith("https://"):
        raise _Otherwise
    folder = path.absolute().parent
    certificate = _content(user, "client-certificate", folder)
    key = _content(user, "client-key", folder)
    if (certificate is None) != (key is None):
        raise _Otherwise
    file_of_token = user.get("tokenFile")
    found = Plain(
        server=server,
        origin=f"context {name} of {file}",
        context=name,
        namespace=chosen.get("namespace"),
        authority=_content(cluster, "certificate-authority", folder),
        certificate=None if certificate is None else f"{certificate}\n{key}\n",
        server_name=cluster.get("tls-server-name"),
        token=(user.get("token") or "").strip()
        or None,  # as a block of YAML, it ends with a newline
        token_file=folder / file_of_token if file_of_token and not user.get("token") else None,
    )
    Token(found).current()  # it can be read
    return found


def _text(mapping: Any, key: str) -> str:
    value = mapping[key]
    if type(value) is not str or not value:
        raise _Otherwise
    return value


def _named(whole: Any, collection: str, kind: str, name: str) -> dict[str, Any]:
    """The one entry of a list that has this name; more than one would have an order."""
    [entry] = [one for one in whole[collection] if one["name"] == name]
    value = dict(entry[kind])
    if not all(type(one) is str or key == "extensions" for key, one in value.items()):
        raise _Otherwise
    return value


def _content(entry: Mapping[str, str], key: str, folder: Path) -> str | None:
    """PEM, from the entry itself or from the file that it names; the former is the stronger."""
    data = entry.get(f"{key}-data")
    if data:
        return base64.b64decode(data, validate=True).decode("ascii")
    file = entry.get(key)
    return (folder / file).read_text("ascii") if file else None
