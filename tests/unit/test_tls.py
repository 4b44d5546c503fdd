"""The settings for TLS: read, tried, never shown; and what OpenSSL finds, in words."""

from __future__ import annotations

import json
import ssl
import traceback

import pytest
from cryptography.hazmat.primitives import serialization
from tls_broker import Authority

from k8sfutures import K8sRabbitExecutor
from k8sfutures.config import load_settings
from k8sfutures.errors import BrokerRefused, BrokerUntrusted, SettingValueError
from k8sfutures.pods.kubernetes.manifests import broker_secret
from k8sfutures.pods.local import LocalPods
from k8sfutures.tls import Tls, refusal, tls_of

URL = "amqps://u:p@broker.example/"
SHOWN = "amqps://u@broker.example:5671/%2F"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def pair(authority):
    return authority.issue("client", client=True)


def secret_lines(pem):
    return [line for line in pem.splitlines() if line and not line.startswith("-----")]


def refused(*args):
    with pytest.raises(SettingValueError) as caught:
        tls_of(*args)
    return "".join(map(str, _chain(caught.value)))


def _chain(error):
    """It, and whatever can be found through it."""
    while error is not None:
        yield "".join(traceback.format_exception(error))
        yield repr(error)
        error = error.__cause__ or error.__context__


class TestSettings:
    def test_without_tls_there_is_none(self):
        assert tls_of(None, None, None, ("amqp://broker/",)) is None
        assert tls_of(None, None, None, (None,)) is None

    def test_the_authorities_of_the_system_are_trusted_where_none_is_given(self):
        context = tls_of(None, None, None, (URL,)).context()
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
        assert context.minimum_version >= ssl.TLSVersion.TLSv1_2

    def test_no_other_authority_is_trusted_where_one_is_given(self, authority):
        context = tls_of(authority.pem, None, None, (URL,)).context()
        (trusted,) = context.get_ca_certs()
        assert trusted["subject"] == ((("commonName", "tests"),),)

    def test_files_and_texts_are_the_same(self, authority, pair, tmp_path):
        for name, text in (("ca", authority.pem), ("cert", pair.certificate), ("key", pair.key)):
            (tmp_path / name).write_text(text)
        of_files = tls_of(*(str(tmp_path / name) for name in ("ca", "cert", "key")), (URL,))
        assert of_files == tls_of(authority.pem, *pair, (URL,))
        assert of_files == Tls(authority.pem, *pair)

    def test_a_certificate_may_have_its_key_with_it(self, pair):
        assert tls_of(None, pair.certificate + pair.key, None, (URL,)).key is None

    def test_they_come_from_the_usual_places(self, tmp_path, authority):
        (tmp_path / "k8sfutures.toml").write_text(f"tls_ca = '''{authority.pem}'''")
        environ = {"K8SFUTURES_TLS_CERTIFICATE": "~/cert.pem"}
        settings = load_settings(
            {"tls_key": tmp_path / "key"}, environ=environ, start=tmp_path, home=tmp_path
        )
        assert settings.tls_ca == authority.pem
        assert settings.tls_certificate.endswith("/cert.pem")
        assert "~" not in settings.tls_certificate
        assert settings.tls_key == str(tmp_path / "key")

    def test_a_plain_url_is_not_taken_for_a_safe_one(self, authority):
        text = refused(authority.pem, None, None, ("amqp://broker/",))
        assert "tls_ca can be of use with amqps:// only" in text

    def test_one_of_two_urls_is_enough(self, authority):
        assert tls_of(authority.pem, None, None, ("amqp://127.0.0.1/", URL)) is not None

    def test_nor_is_the_local_broker(self, monkeypatch, authority, pair):
        message = refused(authority.pem, *pair, (None,))
        assert "tls_ca and tls_certificate and tls_key can be of use with amqps:// only" in message
        assert "amqp_url is not given: the local broker has no TLS; have amqp_url begin" in message
        monkeypatch.setenv("K8SFUTURES_TLS_CA", authority.pem)
        with pytest.raises(SettingValueError, match="tls_ca can be of use with amqps:// only"):
            K8sRabbitExecutor(pods="local")

    def test_a_key_without_its_certificate(self, pair):
        assert "without tls_certificate" in refused(None, None, pair.key, (URL,))

    @pytest.mark.parametrize("name", ["tls_ca", "tls_certificate", "tls_key"])
    def test_a_file_that_is_not_there(self, pair, name):
        values = {"tls_ca": None, "tls_certificate": pair.certificate, "tls_key": pair.key}
        text = refused(*(values | {name: "/no/such/file"}).values(), (URL,))
        assert f"{name} must be a PEM text, or the path of a file" in text
        assert "No such file" in text

    def test_a_key_that_has_lost_its_first_line_is_not_shown(self, pair):
        lost = "".join(secret_lines(pair.key))
        text = refused(None, pair.certificate, lost, (URL,))
        assert "tls_key must be a PEM text" in text
        assert lost not in text

    def test_no_certificates_in_tls_ca(self):
        text = refused(
            "-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----", None, None, (URL,)
        )
        assert "tls_ca has no certificates in PEM form" in text

    def test_the_key_of_another_certificate(self, authority, pair):
        other = authority.issue("other")
        text = refused(None, pair.certificate, other.key, (URL,))
        assert "not a certificate and its key" in text
        assert not any(line in text for line in secret_lines(other.key))

    def test_a_key_with_a_passphrase_asks_nobody(self, pair):
        key = serialization.load_pem_private_key(pair.key.encode(), None)
        locked = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"hidden"),
        ).decode()
        assert "passphrase" in refused(None, pair.certificate, locked, (URL,))

    def test_they_are_refused_when_an_executor_is_made(self):
        settings = load_settings({"amqp_url": URL, "tls_ca": "/no/such/file"}, environ={})
        with pytest.raises(SettingValueError, match="tls_ca"):
            LocalPods(settings, "pool")

    @pytest.mark.parametrize(
        "query", ["ssl_options={'cert_reqs':0}", "heartbeat=5&ssl_options=None"]
    )
    def test_an_url_cannot_turn_the_checks_off(self, query):
        with pytest.raises(SettingValueError, match="always checked"):
            load_settings({"amqp_url": f"{URL}?{query}"}, environ={})


class TestSecrecy:
    def test_no_repr_shows_any_of_it(self, authority, pair):
        settings = load_settings(
            {"tls_ca": authority.pem, "tls_certificate": pair.certificate, "tls_key": pair.key},
            environ={},
        )
        assert "tls_ca='PEM', tls_certificate='PEM', tls_key='***'" in repr(settings)
        assert repr(Tls(authority.pem, *pair)) == "Tls(...)"

    def test_it_is_in_the_secret_of_a_pod(self, authority, pair):
        tls = Tls(authority.pem, *pair)
        owner = {"metadata": {"name": "job", "uid": "uid"}}
        secret = broker_secret("name", "pool", owner, URL, b"key", tls)
        import base64

        content = json.loads(base64.b64decode(secret["data"]["broker.json"]))
        assert Tls.of_dict(content["tls"]) == tls

    def test_nothing_of_another_type(self):
        with pytest.raises(TypeError):
            Tls.of_dict({"ca": 5})


def verification(code, message="as OpenSSL says"):
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code, error.verify_message = code, message
    return error


def ssl_error(reason):
    error = ssl.SSLError(1, reason)
    error.reason = reason
    return error


class TestWords:
    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (20, "not signed by the authorities of this system: give"),
            (18, "not signed by the authorities of this system: give"),
            (62, "is for other names"),
            (64, "is for other names"),
            (10, "has expired"),
            (9, "not valid yet"),
            (7, "cannot be trusted"),
        ],
    )
    def test_which_check_failed(self, code, words):
        told = refusal(verification(code), SHOWN, Tls())
        assert type(told) is BrokerUntrusted
        assert words in str(told)
        assert "[as OpenSSL says]" in str(told)
        assert SHOWN in str(told)

    def test_one_that_the_given_authority_has_not_signed(self, authority):
        told = refusal(verification(20), SHOWN, Tls(authority.pem))
        assert "not signed by the authority in tls_ca" in str(told)

    def test_where_to_look_for_the_names(self):
        told = refusal(verification(62), SHOWN, Tls())
        assert "-connect broker.example:5671 " in str(told)

    def test_no_tls_at_all(self):
        told = refusal(ssl_error("WRONG_VERSION_NUMBER"), SHOWN, Tls())
        assert type(told) is BrokerUntrusted
        assert "does not speak TLS" in str(told)

    @pytest.mark.parametrize(
        "reason",
        [
            "TLSV13_ALERT_CERTIFICATE_REQUIRED",
            "TLSV1_ALERT_UNKNOWN_CA",
            "SSLV3_ALERT_BAD_CERTIFICATE",
            "SSLV3_ALERT_CERTIFICATE_EXPIRED",
        ],
    )
    @pytest.mark.parametrize("shown", [True, False])
    def test_a_client_certificate_that_the_broker_refuses(self, reason, shown, pair):
        told = refusal(ssl_error(reason), SHOWN, Tls(None, *pair) if shown else Tls())
        assert type(told) is BrokerRefused
        assert ("the certificate that tls_certificate has" in str(told)) == shown

    @pytest.mark.parametrize(
        "error", [OSError("no"), ssl_error("UNEXPECTED_EOF"), ssl_error("ALERT_CLOSE_NOTIFY")]
    )
    def test_what_may_pass_is_no_refusal(self, error):
        assert refusal(error, SHOWN, Tls()) is None
