"""TLS on the way to the broker: whom to trust, and what to show; and what went wrong, in words.

Certificates and the key are kept as texts (PEM), since pods need them too and have other files.
Both sides check the broker's certificate, and that it is for the host in their URL; there is no
setting that turns this off.
"""

from __future__ import annotations

import os
import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from .errors import BrokerRefused, BrokerUntrusted, ExecutorBroken, SettingValueError
from .values import dataclass

PEM: Final = "-----BEGIN "
"""What is in every PEM text, and in no path."""


@dataclass(frozen=True, slots=True, repr=False)
class Tls:
    """What a side needs for ``amqps://``, as PEM texts.

    Attributes:
        ca: certificates of the authorities to trust; None for those of the system.
        certificate: shown to the broker, with those that lead to its authority; or None.
        key: the certificate's private key; None where there is none, or it is in ``certificate``.
    """

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None

    def __repr__(self) -> str:
        return "Tls(...)"

    def as_dict(self) -> dict[str, str | None]:
        """For a pod's configuration; `of_dict` reads it."""
        return {"ca": self.ca, "certificate": self.certificate, "key": self.key}

    @classmethod
    def of_dict(cls, given: Mapping[str, Any]) -> Tls:
        """What `as_dict` has made."""
        return cls(*(_text(given.get(name)) for name in ("ca", "certificate", "key")))

    def context(self) -> ssl.SSLContext:
        """What pika needs; TLS 1.2 at least, certificates and host names checked.

        Raises:
            SettingValueError: one of the texts is not what it should be. It shows none of them.
        """
        try:
            context = ssl.create_default_context(cadata=self.ca)
        except (OSError, ValueError) as error:  # of OpenSSL's, or of text that is not ASCII
            raise SettingValueError(
                f"tls_ca has no certificates in PEM form: {_reason(error)}"
            ) from error
        if self.certificate is not None:
            _show(context, f"{self.certificate}\n{self.key or ''}")
        return context


def tls_of(
    ca: str | None, certificate: str | None, key: str | None, urls: tuple[str | None, ...]
) -> Tls | None:
    """What the settings say, with files read, and tried.

    Args:
        ca: the setting ``tls_ca``: a path, or a PEM text.
        certificate: ``tls_certificate``, likewise.
        key: ``tls_key``, likewise.
        urls: the broker's, as given.

    Returns:
        What is needed where any of the URLs is ``amqps://``; else None.

    Raises:
        SettingValueError: a file cannot be read, or holds something else; or they are given for
            URLs that are all without TLS, or for the local broker.
    """
    texts = {"tls_ca": ca, "tls_certificate": certificate, "tls_key": key}
    names = [name for name, text in texts.items() if text is not None]
    if not any(url is not None and url.startswith("amqps:") for url in urls):
        if names:
            given = any(urls)
            but = "begins with amqp://" if given else "is not given: the local broker has no TLS"
            raise SettingValueError(
                f"{' and '.join(names)} can be of use with amqps:// only, and amqp_url {but}; have "
                "amqp_url begin with amqps://, or leave out what is for that alone"
            )
        return None
    if key is not None and certificate is None:
        raise SettingValueError("tls_key is given without tls_certificate, whose key it is")
    read = Tls(*(_read(name, text) for name, text in texts.items()))
    read.context()
    return read


def _read(name: str, value: str | None) -> str | None:
    if value is None or PEM in value:
        return value
    try:
        return Path(value).read_text("utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
    # Not in there: such an error has the value, which may be a key that lacks its first line.
    raise SettingValueError(
        f"{name} must be a PEM text, or the path of a file that has one, and cannot be read as "
        f"either: {why}"
    )


def _text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError("a PEM text")
    return value


def _show(context: ssl.SSLContext, chain: str) -> None:
    """Have a context show a certificate. It only reads files, so this is one in memory."""
    if "ENCRYPTED" in chain:
        raise SettingValueError(
            "the key of tls_certificate has a passphrase, which nobody would be there to type: "
            "give tls_key one without (openssl pkey -in KEY)"
        )
    descriptor = os.memfd_create("k8sfutures")
    try:
        os.write(descriptor, chain.encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except OSError as error:
        raise SettingValueError(
            f"tls_certificate and tls_key are not a certificate and its key, in PEM form: "
            f"{_reason(error)}"
        ) from error
    finally:
        os.close(descriptor)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(reason).lower().replace("_", " ")


# --- what went wrong

# Of X509_verify_cert_error_string(3): what OpenSSL found, as numbers that stay.
_NOT_YET, _EXPIRED, _NAME, _ADDRESS = 9, 10, 62, 64
_UNKNOWN: Final = frozenset({2, 18, 19, 20, 21})

_PLAIN: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
"""Reasons of OpenSSL's for bytes that are not TLS."""

# With TLS 1.3 it comes after the handshake, when pika waits for the broker's first frame; all that
# pika keeps of it is the text.
_ALERT: Final = re.compile(r"ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED)")


def refusal(error: BaseException, url: str, tls: Tls | None) -> ExecutorBroken | None:
    """What to tell the user of an error of TLS that trying again does not mend.

    Args:
        error: any exception.
        url: the broker's, without the password.
        tls: as it was used; None without TLS.

    Returns:
        The error for the user; None where it is another.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return BrokerUntrusted(_untrusted(error, url, tls))
    if isinstance(error, ssl.SSLError) and error.reason in _PLAIN:
        return BrokerUntrusted(
            f"what answers at {url} does not speak TLS ({_reason(error)}): give the port of the "
            "broker's TLS listener (5671 unless it was changed), or a URL that begins with amqp://"
        )
    if alert := _ALERT.search(str(error)):
        shown = tls is not None and tls.certificate is not None
        what = "the certificate that tls_certificate has" if shown else "to go on without one"
        return BrokerRefused(
            f"the broker at {url} wants a certificate of its clients, and refused {what} "
            f"({alert[1].lower().replace('_', ' ')}): it must not have expired, and be signed by "
            "an authority that the broker knows (settings tls_certificate and tls_key)"
        )
    return None


def _untrusted(error: ssl.SSLCertVerificationError, url: str, tls: Tls | None) -> str:
    host = url.rpartition("@")[2].rpartition("/")[0]
    code = error.verify_code
    if code in _UNKNOWN:
        whom, then = "the authorities of this system", "give the certificate of its authority"
        if tls is not None and tls.ca is not None:
            whom, then = "the authority in tls_ca", "is that the one that it was signed by?"
        why = f"is not signed by {whom}: {then} (setting tls_ca)"
    elif code in (_NAME, _ADDRESS):
        why = (
            "is for other names: connect by one of those, or have one made that also has this name "
            f"(openssl s_client -connect {host} </dev/null | openssl x509 -noout "
            "-ext subjectAltName lists them)"
        )
    elif code == _EXPIRED:
        why = "has expired: have it renewed, and look at this machine's clock"
    elif code == _NOT_YET:
        why = "is not valid yet: look at this machine's clock"
    else:
        why = "cannot be trusted"
    return f"the certificate of the broker at {url} {why} [{error.verify_message}]"
