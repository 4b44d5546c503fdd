"""A RabbitMQ that speaks TLS alone: who gets in, who does not, and what each of them is told."""

from __future__ import annotations

import concurrent.futures
import os
import time

import pytest
from tls_broker import Authority, TlsBroker, tls_server

from k8sfutures import BrokerRefused, BrokerUnreachable, BrokerUntrusted
from k8sfutures.broker import ensure_local_broker
from k8sfutures.link import LinkDown, LinkUp

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def authority():
    return Authority("private")


@pytest.fixture(scope="module")
def other():
    return Authority("other")


@pytest.fixture(scope="module")
def brokers(tmp_path_factory, authority):
    """One takes clients without a certificate, and one does not."""
    folder = tmp_path_factory.mktemp("tls")
    with concurrent.futures.ThreadPoolExecutor() as threads:
        running = list(
            threads.map(
                lambda demanding: TlsBroker(
                    "127.0.0.1", folder / str(demanding), authority, demanding=demanding
                ),
                (False, True),
            )
        )
    yield running
    for broker in running:
        broker.stop()


@pytest.fixture
def broker(brokers):
    return brokers[0]


@pytest.fixture
def demanding(brokers):
    return brokers[1]


def error_of(rabbitmq, **settings):
    with rabbitmq.executor(**settings) as ex:
        return ex.submit(pow, 2, 3).exception(60)


def test_client_and_pods_over_tls(rabbitmq, broker, authority):
    with rabbitmq.executor(amqp_url=broker.url, tls_ca=authority.pem) as ex:
        assert list(ex.map(pow, range(50), [2] * 50)) == [n * n for n in range(50)]
        data = os.urandom(5_000_000)
        assert ex.submit(bytes.upper, data).result() == data.upper()
    with rabbitmq.executor(amqp_url=broker.url, tls_ca=authority.pem) as ex:
        assert ex.submit(pow, 2, 3).result() == 8
    assert len(rabbitmq.pids()) == 1, "the second client has found the pods of the first"


def test_with_a_certificate_of_the_client(rabbitmq, demanding, authority, tmp_path):
    pair = authority.issue("client", client=True)
    paths = [tmp_path / name for name in ("ca", "certificate", "key")]
    for path, text in zip(paths, (authority.pem, *pair), strict=True):
        path.write_text(text)
    settings = dict(zip(("tls_ca", "tls_certificate", "tls_key"), paths, strict=True))
    with rabbitmq.executor(amqp_url=demanding.url, **settings) as ex:
        assert ex.submit(pow, 2, 3).result() == 8


def test_many_authorities(rabbitmq, broker, authority, other):
    """More than a pipe takes at once."""
    bundle = other.pem * (200_000 // len(other.pem)) + authority.pem
    with rabbitmq.executor(amqp_url=broker.url, tls_ca=bundle) as ex:
        assert ex.submit(pow, 2, 3).result() == 8


@pytest.mark.parametrize(
    ("ca", "words"),
    [
        ("", "is not signed by the authorities of this system: give the certificate"),
        ("other", "is not signed by the authority in tls_ca"),
    ],
)
def test_an_unknown_authority(rabbitmq, broker, other, ca, words):
    error = error_of(rabbitmq, amqp_url=broker.url, tls_ca=other.pem if ca else None)
    assert type(error) is BrokerUntrusted
    assert words in str(error)
    assert broker.password not in str(error)


def test_a_name_that_the_certificate_is_not_for(rabbitmq, broker, authority):
    url = broker.url.replace("127.0.0.1", "localhost")
    error = error_of(rabbitmq, amqp_url=url, tls_ca=authority.pem)
    assert type(error) is BrokerUntrusted
    assert f"amqps://tests@localhost:{broker.port}/%2F is for other names" in str(error)


@pytest.mark.parametrize(
    ("days", "words"), [((-5, -1), "has expired"), ((1, 5), "is not valid yet")]
)
def test_a_certificate_at_the_wrong_time(rabbitmq, authority, tmp_path, days, words):
    with tls_server(authority.issue("127.0.0.1", days=days), tmp_path) as port:
        url = f"amqps://u:hidden@127.0.0.1:{port}/"
        error = error_of(rabbitmq, amqp_url=url, tls_ca=authority.pem)
    assert type(error) is BrokerUntrusted
    assert words in str(error)


def test_a_broker_without_tls(rabbitmq, authority):
    url = ensure_local_broker().replace("amqp:", "amqps:")
    error = error_of(rabbitmq, amqp_url=url, tls_ca=authority.pem)
    assert type(error) is BrokerUntrusted
    assert "does not speak TLS" in str(error)


def test_no_tls_where_the_broker_wants_it(rabbitmq, broker):
    url = broker.url.replace("amqps:", "amqp:")
    error = error_of(rabbitmq, amqp_url=url, startup_timeout=3)
    assert type(error) is BrokerUnreachable
    assert "the URL begins with amqps://" in str(error)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("none", "refused to go on without one (certificate required)"),
        ("of another authority", "refused the certificate that tls_certificate has (unknown ca)"),
        ("expired", "refused the certificate that tls_certificate has (certificate expired)"),
    ],
)
def test_a_client_that_the_broker_does_not_know(rabbitmq, demanding, authority, other, what, words):
    pairs = {
        "none": (None, None),
        "of another authority": other.issue("client", client=True),
        "expired": authority.issue("client", days=(-5, -1), client=True),
    }
    certificate, key = pairs[what]
    error = error_of(
        rabbitmq,
        amqp_url=demanding.url,
        tls_ca=authority.pem,
        tls_certificate=certificate,
        tls_key=key,
    )
    assert type(error) is BrokerRefused
    assert words in str(error)


@pytest.mark.slow
def test_a_broker_that_fails_the_checks_later_is_waited_for(tmp_path, authority, other):
    """Its certificate is exchanged for a wrong one, and set right again: nobody lost anything."""
    from k8sfutures.amqp import AmqpLink
    from k8sfutures.tls import Tls

    broker = TlsBroker("127.0.0.1", tmp_path / "broker", authority)
    events = []
    link = AmqpLink(broker.url, "pool", "client", events.append, Tls(authority.pem))

    def wait_for(kind, error=None):
        deadline = time.monotonic() + 30
        while not any(
            isinstance(one, kind) and isinstance(getattr(one, "error", error), error or object)
            for one in events
        ):
            assert time.monotonic() < deadline, events
            time.sleep(0.05)
        events.clear()

    try:
        link.start()
        wait_for(LinkUp)
        broker.certify(other)
        wait_for(LinkDown, BrokerUntrusted)
        broker.certify(authority)
        wait_for(LinkUp)
    finally:
        link.close()
        link.join(10)
        broker.stop()
