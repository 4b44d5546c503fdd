"""Requests to the API, through urllib3; see `library` for those that need Kubernetes' own client.

That client uses urllib3, too, so both give its responses, and fail with its errors.
"""

from __future__ import annotations

import json
import socket
import tempfile
from collections.abc import Mapping
from typing import Any, Final, Protocol
from urllib.parse import urlencode

from .plain import Plain, Token

CONNECT_TIMEOUT: Final = 5.0
"""Seconds."""

CONNECTIONS: Final = 16
"""That are kept open."""

_KEEPALIVE: Final = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
"""A connection that has been silent for so many seconds is probed, so often, before it is lost."""

HEADERS: Final = {"Accept": "application/json", "Content-Type": "application/json"}


class Transport(Protocol):
    """What sends requests; from any thread."""

    server: str
    """URL of the API."""

    failures: tuple[type[Exception], ...]
    """What is raised where there is no answer, or none that can be read."""

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        read_timeout: float,
    ) -> Any:
        """Send a request.

        Args:
            method: HTTP's.
            path: of the API's object or collection.
            query: parameters.
            body: JSON.
            read_timeout: seconds without a byte.

        Returns:
            urllib3's response, whatever its status, of which only the headers have been read.
        """
        ...

    def close(self) -> None:
        """Close idle connections."""
        ...


class Found:
    """A way to the cluster, where it was found, and the namespace and context there."""

    def __init__(
        self, transport: Transport, origin: str, namespace: str | None, context: str | None
    ) -> None:
        self.transport = transport
        self.origin = origin
        self.namespace = namespace
        self.context = context


class DirectTransport:
    """With nothing between us and urllib3, which is imported when this is made.

    Args:
        access: where the API is, and how to log in.

    Raises:
        ValueError: a certificate cannot be used.
    """

    def __init__(self, access: Plain) -> None:
        from urllib3 import PoolManager
        from urllib3.exceptions import HTTPError

        self.failures: tuple[type[Exception], ...] = (HTTPError, OSError)
        self.server = access.server
        self._token = Token(access)
        named: dict[str, Any] = {}
        if access.server_name is not None:
            named["server_hostname"] = access.server_name
        self._pool = PoolManager(
            ssl_context=_tls(access),
            maxsize=CONNECTIONS,
            socket_options=socket_options(),
            **named,
        )

    def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Mapping[str, Any] | None,
        read_timeout: float,
    ) -> Any:
        """See `Transport.request`."""
        from urllib3 import Timeout

        headers = dict(HEADERS)
        if token := self._token.current():
            headers["Authorization"] = f"Bearer {token}"
        return self._pool.request(
            method,
            f"{self.server}{path}?{urlencode(query)}" if query else f"{self.server}{path}",
            body=None if body is None else json.dumps(body),
            headers=headers,
            timeout=Timeout(connect=CONNECT_TIMEOUT, read=read_timeout),
            # We say when to try again, and for how long.
            retries=False,
            preload_content=False,
        )

    def close(self) -> None:
        """See `Transport.close`."""
        self._pool.clear()


def _tls(access: Plain) -> Any:
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context()  # which verifies by default, names too
    if access.authority is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cadata=access.authority)
    if access.certificate is not None:
        # OpenSSL takes it from a file only; nobody else can read this one while it is there.
        with tempfile.NamedTemporaryFile("w", encoding="ascii", prefix="k8sfutures-") as file:
            file.write(access.certificate)
            file.flush()
            context.load_cert_chain(file.name)
    return context


def socket_options() -> list[tuple[int, int, int]]:
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


def innermost(error: BaseException) -> str:
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
