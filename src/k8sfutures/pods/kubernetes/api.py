"""The Kubernetes API, as the rest of the program sees it.

Plain access is read by `plain`; for every other kind, Kubernetes' own client finds the cluster and
logs in (plug-ins, proxies, several kubeconfigs), and it is imported only then. Objects are the
API's own JSON, since that client's model classes cost more to make than all that we do with them.
Everything that can go wrong is a `ClusterError` with words of ours.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ...errors import ClusterError
from ...machine import home_folder, is_file
from .library import load_kubeconfig, load_service_account
from .plain import Plain, plain_kubeconfig, plain_service_account
from .timestamps import of_header
from .transport import DirectTransport, Found, innermost

NO_ANSWER: Final = 0
"""Status of a `ClusterError` where the API did not answer."""


def passes(error: ClusterError) -> bool:
    """Whether what has failed may work later: no answer, overload, a new leader."""
    status = error.status
    return status in {NO_ANSWER, 410, 429} or (status is not None and status >= 500)


READ_TIMEOUT: Final = 30.0
"""Seconds."""

WATCH_SECONDS: Final = 240
"""How long the API server keeps a watch open, before we ask for it again."""


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
        found = _find(kubeconfig, context)
        self._transport = found.transport
        self.failures = found.transport.failures
        self.unreadable: tuple[type[Exception], ...] = (*self.failures, ValueError)
        """What may come of reading an answer's body."""
        self.server = found.transport.server
        self.origin = found.origin
        self.context = found.context
        """Name of the kubeconfig's context, or None."""
        self.namespace = namespace or found.namespace or "default"
        self.time = ""
        """By the server's clock, when it last answered: ours may be wrong. "" for unknown."""

    def close(self) -> None:
        """Close idle connections."""
        self._transport.close()

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
        except self.unreadable as error:
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
            given = {key: value for key, value in (query or {}).items() if value}
            response = self._transport.request(method, path, given, body, read_timeout)
        except self.failures as error:
            raise self.unreachable(error) from error
        except ValueError:  # whose text may be what cannot be sent: a token
            raise ClusterError(
                f"the Kubernetes API at {self.server} ({self.origin}) was not asked: a token, or "
                "another part of the request, has characters that HTTP does not allow there"
            ) from None
        self.time = of_header(response.headers.get("Date")) or self.time
        if not 200 <= response.status <= 299:
            raise self._refused(method, path, response)
        return response

    def unreachable(self, error: BaseException) -> ClusterError:
        """Words for an API server that does not answer."""
        return ClusterError(
            f"the Kubernetes API at {self.server} ({self.origin}) does not answer: "
            f"{innermost(error)}; is the cluster up, and is this the right one "
            "(settings kubeconfig and context)?",
            status=NO_ANSWER,
        )

    def _refused(self, method: str, path: str, response: Any) -> ClusterError:
        try:
            said = json.loads(response.data)
        except self.unreadable:
            said = None
        message = f"{method} {path}: {response.reason}"
        if isinstance(said, dict) and "message" in said:
            message = str(said["message"])
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
        except self._api.unreadable as error:
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


def _find(kubeconfig: str | None, context: str | None) -> Found:
    """The first place that says where the cluster is."""
    given = kubeconfig or os.environ.get("KUBECONFIG")
    if given is None:
        home = home_folder()
        given = str(usual) if home and is_file(usual := home / ".kube" / "config") else None
    if given is None:
        return _direct(plain_service_account(os.environ)) or load_service_account()
    return _direct(plain_kubeconfig(given, context)) or load_kubeconfig(given, context)


def _direct(access: Plain | None) -> Found | None:
    if access is None:
        return None
    try:
        transport = DirectTransport(access)
    except (ValueError, OSError):  # ssl.SSLError, for one: as the client will say as well
        return None
    return Found(transport, access.origin, access.namespace, access.context)
