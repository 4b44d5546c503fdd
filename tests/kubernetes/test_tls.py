"""Pods on a cluster and a broker that speaks TLS alone, with a private authority."""

from __future__ import annotations

import base64
import json

import pytest
from tls_broker import Authority, TlsBroker

from k8sfutures import BrokerUntrusted

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def authority():
    return Authority("private")


@pytest.fixture(scope="module")
def broker(kubernetes, authority, tmp_path_factory):
    if kubernetes.broker is None:
        pytest.skip("the broker of K8SFUTURES_TEST_AMQP_URL is used: none is started here")
    running = TlsBroker(
        kubernetes.broker.host,
        tmp_path_factory.mktemp("tls") / "broker",
        authority,
        demanding=True,
    )
    yield running
    running.stop()


@pytest.fixture
def tls(authority):
    certificate, key = authority.issue("client", client=True)
    return {"tls_ca": authority.pem, "tls_certificate": certificate, "tls_key": key}


def test_client_and_pods_with_certificates_of_their_own(kube, broker, tls):
    with kube.executor(amqp_url=broker.url, pool="tls", **tls) as ex:
        assert list(ex.map(pow, range(20), [2] * 20)) == [n * n for n in range(20)]
        contents = [json.loads(base64.b64decode(one.data["broker.json"])) for one in kube.secrets()]
    given = {name.removeprefix("tls_"): text for name, text in tls.items()}
    assert contents
    assert all(one["tls"] == given for one in contents)
    # Nowhere but in the Secret.
    everything = json.dumps(
        [kube.core.api_client.sanitize_for_serialization(one) for one in kube.jobs() + kube.pods()]
    )
    for secret_text in (broker.password, contents[0]["key"], tls["tls_key"].splitlines()[1]):
        assert secret_text not in everything


def test_an_unknown_authority_is_refused_by_the_client(kube, broker):
    with kube.executor(amqp_url=broker.url, tls_ca=Authority("other").pem, pool="tls-no") as ex:
        error = ex.submit(pow, 2, 3).exception(60)
    assert isinstance(error, BrokerUntrusted)
    assert kube.pods("tls-no") == []
