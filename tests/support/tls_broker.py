"""A RabbitMQ that speaks nothing but TLS, and the certificates for it and its clients."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cluster_broker import ClusterBroker
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = dt.timedelta(days=1)


class Pair(NamedTuple):
    """A certificate and its key, as PEM texts."""

    certificate: str
    key: str


class Authority:
    """A private certificate authority.

    Args:
        name: its common name.
    """

    def __init__(self, name: str = "tests") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        self._public = self._key.public_key()
        made = (
            x509.CertificateBuilder(self._name, self._name, self._public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * DAY)
            .not_valid_after(now + 30 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._public), False)
            .add_extension(_usage(sign_certificates=True), critical=True)
        )
        self.pem = _pem(made.sign(self._key, hashes.SHA256()))

    def issue(self, *names: str, days: tuple[int, int] = (-1, 1), client: bool = False) -> Pair:
        """A certificate for these names and addresses, valid from and to so many days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        use = ExtendedKeyUsageOID.CLIENT_AUTH if client else ExtendedKeyUsageOID.SERVER_AUTH
        made = (
            x509.CertificateBuilder(
                self._name,
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]),
                key.public_key(),
            )
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + days[0] * DAY)
            .not_valid_after(now + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([_name(one) for one in names]), False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._public), False)
            .add_extension(_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        )
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ).decode()
        return Pair(_pem(made.sign(self._key, hashes.SHA256())), text)


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    rest = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "crl_sign",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return x509.KeyUsage(digital_signature=True, key_cert_sign=sign_certificates, **rest)


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _name(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


class TlsBroker(ClusterBroker):
    """One node, whose only port is for TLS.

    Args:
        host: the address that it listens at, and that its certificate is for.
        folder: for its files.
        authority: signs its certificate; clients may show one that it has signed.
        demanding: whether they must.
    """

    def __init__(
        self, host: str, folder: Path, authority: Authority, *, demanding: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        self._write_certificate(host, folder, authority)
        more = (
            # The last word on a key of the configuration is the one that counts.
            "listeners.tcp = none\n"
            f"listeners.ssl.1 = {host}:{{port}}\n"
            f"ssl_options.cacertfile = {folder}/ca.pem\n"
            f"ssl_options.certfile = {folder}/cert.pem\n"
            f"ssl_options.keyfile = {folder}/key.pem\n"
            "ssl_options.verify = verify_peer\n"
            f"ssl_options.fail_if_no_peer_cert = {str(demanding).lower()}\n"
        )
        super().__init__(host, folder, more)

    @staticmethod
    def _write_certificate(host: str, folder: Path, authority: Authority) -> None:
        server = authority.issue(host)
        for name, text in (("ca", authority.pem), ("cert", server[0]), ("key", server[1])):
            (folder / f"{name}.pem").write_text(text)

    def certify(self, authority: Authority) -> None:
        """Start again, at the same address, with a certificate that this authority has signed."""
        self._write_certificate(self.host, self.folder, authority)
        self.restart()

    @property
    def url(self) -> str:
        return super().url.replace("amqp:", "amqps:")

    def _answers(self, connection: socket.socket) -> bool:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with contextlib.suppress(ssl.SSLError):  # one that wants a certificate
            context.wrap_socket(connection).close()
        return True


@contextlib.contextmanager
def tls_server(pair: Pair, folder: Path) -> Iterator[int]:
    """A server that does the handshake with this certificate, and no more; yields its port."""
    chain = folder / "server.pem"
    chain.write_text(pair.certificate + pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(connection, True) as encrypted:
                encrypted.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, name="tls server", daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
