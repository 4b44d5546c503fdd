"""The address of a broker: an AMQP URL, taken apart, and what of it can be shown."""

from __future__ import annotations

import contextlib
import re
from dataclasses import field
from typing import Final
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from .values import dataclass

_BARE: Final = re.compile(r"[A-Za-z0-9.-]+:\d{1,5}(/[A-Za-z0-9._%-]*)?")
"""A host and a port without a scheme; nothing in it can be a password."""

_RANGES: Final = {
    "blocked_connection_timeout": (1, 86_400),
    "channel_max": (1, 65_535),
    "connection_attempts": (1, 1_000),
    "frame_max": (4_096, 131_072),
    "heartbeat": (0, 65_535),
    "retry_delay": (0, 86_400),
    "socket_timeout": (1, 86_400),
    "stack_timeout": (1, 86_400),
}
"""Options of pika's that are numbers. Of those, `amqp` sets most itself: they must not be wrong."""
_WHOLE: Final = {"channel_max", "connection_attempts", "frame_max", "heartbeat"}

_DEFAULT_PORTS: Final = {"amqp": 5672, "amqps": 5671}


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a broker is and how to log in, decoded from an AMQP URL by `parse_amqp_url`.

    The host is a name or an address (IPv6 without brackets); the options are the URL's query.
    """

    scheme: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)
    virtual_host: str
    options: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def safe(self) -> str:
        """The URL for messages and logs: without the password and the options."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = quote(self.virtual_host, safe="")
        return f"{self.scheme}://{quote(self.user, safe='')}@{host}:{self.port}/{vhost}"


def parse_amqp_url(url: str) -> BrokerAddress:
    """Takes an AMQP URL apart.

    Args:
        url: ``amqp://user:password@host:port/virtual-host?option=value``; all but the scheme and
            the host can be left out. Special characters in its parts are percent-encoded.

    Returns:
        The address, its parts decoded.

    Raises:
        ValueError: it is not such a URL. The text says why, and never holds any of its password.
    """
    if any(character.isspace() or not character.isprintable() for character in url):
        raise ValueError("an AMQP URL has no spaces and no control characters")
    read = _read(url)
    if read is None:
        raise ValueError(
            "its host or port (1 to 65535) cannot be read; in a user or password, write special "
            "characters percent-encoded: / is %2F, @ is %40, # is %23"
        )
    parts, host, port = read
    if parts.scheme not in _DEFAULT_PORTS:
        if _BARE.fullmatch(url):
            raise ValueError(
                f"this AMQP URL has no scheme: write amqp://{url}, or amqps://{url} for TLS"
            )
        raise ValueError("an AMQP URL begins with amqp:// or amqps://")
    if not host or port == 0:
        raise ValueError("an AMQP URL names a host, and a port from 1 to 65535 or none")
    if parts.fragment:
        raise ValueError("an AMQP URL has no # in it: in a password, write %23")
    vhost = parts.path.removeprefix("/")
    if "/" in vhost:
        raise ValueError("an AMQP URL names one virtual host: for a / in its name, write %2F")
    options = tuple(parse_qsl(parts.query, keep_blank_values=True))
    if any(name == "ssl_options" for name, _ in options):
        raise ValueError(
            "an AMQP URL has no ssl_options here: TLS is set up by tls_ca, tls_certificate and "
            "tls_key, and certificates are always checked"
        )
    return BrokerAddress(
        scheme=parts.scheme,
        host=host,
        port=port or _DEFAULT_PORTS[parts.scheme],
        user=unquote(parts.username or "guest"),
        password="guest" if parts.password is None else unquote(parts.password),
        virtual_host=unquote(vhost) or "/",
        options=options,
    )


def check_options(address: BrokerAddress) -> None:
    """Refuse options that pika would refuse, before a thread meets them.

    Args:
        address: whose.

    Raises:
        ValueError: an option is unknown, there twice, or out of range.
    """
    options = address.options
    for name, value in options:
        if name in _RANGES:
            least, most = _RANGES[name]
            try:
                fits = least <= float(value) <= most
            except ValueError:
                fits = False
            if not fits or (name in _WHOLE and not value.isdecimal()):
                words = f"an AMQP URL has {name}={value}: a number from {least} to {most} is wanted"
                raise ValueError(words)
        elif name not in {"locale", "tcp_options"}:
            known = ", ".join(sorted({*_RANGES, "locale", "tcp_options"}))
            raise ValueError(f"an AMQP URL has no option {name!r}; it may have {known}")
    names = [name for name, _ in options]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"an AMQP URL has option {min(twice)!r} more than once")


def _read(url: str) -> tuple[SplitResult, str | None, int | None] | None:
    # What urllib says can quote the whole authority, and with it the password: so it must not
    # even be the context of our own error.
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        return parts, parts.hostname, parts.port
    return None


def without_password(url: str) -> str:
    """What can be shown of an AMQP URL, or of anything that was meant to be one.

    Args:
        url: whatever was given as one.

    Returns:
        It, without what may be a password.
    """
    with contextlib.suppress(ValueError):
        return parse_amqp_url(url).safe
    if _BARE.fullmatch(url):
        return url
    scheme, separator, rest = url.partition("://") if "://" in url else ("", "", url)
    user, colon, secret = rest.partition(":")
    _, at, host = secret.rpartition("@")
    return f"{scheme}{separator}{user}{colon and ':***'}{at}{host if at else ''}"
