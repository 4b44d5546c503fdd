"""Planted secrets, and every place where they must not be found: local pods on a real broker."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import textwrap

import pytest
from eavesdropper import Eavesdropper
from tls_broker import Authority, TlsBroker

from k8sfutures.broker import ensure_local_broker
from k8sfutures.codec import derive_key

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

SECRET = "planted-secret-of-the-pool"
REGISTRY = "planted-password-of-the-registry"

PROGRAM = """
    import os
    PLANTED = os.environ.pop("PLANTED")  # a pod gets what its client has besides our settings
    import faulthandler, gc, io, logging, os, pickle, sys, traceback
    from pathlib import Path

    logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    import k8sfutures
    from k8sfutures import K8sRabbitExecutor

    logging.getLogger("pika").setLevel(logging.DEBUG)  # as somebody may who looks for a fault

    def look():
        "What a call can see without looking into files or memory that are not its own."
        def of(pid, name):
            return Path(f"/proc/{pid}/{name}").read_bytes().decode(errors="replace")

        seen = [repr(dict(os.environ)), repr(sys.argv)]
        pid = os.getpid()
        while "\\0-m\\0k8sfutures.worker" in of(pid, "cmdline"):
            seen += [of(pid, "cmdline"), of(pid, "environ")]
            pid = int(of(pid, "stat").rpartition(")")[2].split()[1])
        return len(seen), "\\n".join(seen)

    def fail():
        raise ValueError("as told")

    def ours():
        "What has a class of ours or of pika's, in words."
        for one in gc.get_objects():
            module = str(type(one).__module__)
            if module.partition(".")[0] in {"k8sfutures", "pika"}:
                yield repr(one)

    def show(error):
        if error is None:
            return
        print("".join(traceback.format_exception(error)))
        print(repr(error), vars(error))
        while error is not None:
            print(pickle.dumps((type(error), error.args, str(error))))
            error = error.__cause__ or error.__context__

    with K8sRabbitExecutor(pool=sys.argv[1]) as ex:
        count, seen = ex.submit(look).result()
        assert count >= 6, "the process, the zygote and the agent"
        print(seen)
        show(ex.submit(fail).exception())
        show(ex.submit(os._exit, 3).exception())
        show(ex.submit(lambda: open("/no")).exception())
        print(ex, ex.pool, *ours(), sep="\\n")
        faulthandler.dump_traceback(all_threads=True)

    os.environ["OWN"] = PLANTED
    with K8sRabbitExecutor(pool=sys.argv[1], environment={"NAMED": PLANTED}) as ex:
        for name in ("OWN", "NAMED"):
            assert ex.submit(os.getenv, name).result() == PLANTED
        show(ex.submit(fail).exception())
        show(ex.submit(os._exit, 3).exception())
        print(ex, *ours(), sep="\\n")
    del os.environ["OWN"]

    refused = os.environ["K8SFUTURES_AMQP_URL"].replace("tests:", "nobody:")
    for settings in (
        {"amqp_url": refused},
        {"amqp_url": refused.replace("127.0.0.1", "localhost")},
        {"amqp_url": "amqps://u:" + PLANTED + "@127.0.0.1:1/", "startup_timeout": 1},
        {"secret": PLANTED, "pool": sys.argv[1], "startup_timeout": 2},
    ):
        with K8sRabbitExecutor(**settings) as ex:
            show(ex.submit(look).exception())
    for wrong in (
        {"amqp_url": "amqps://u:" + PLANTED + "@h:x/"},
        {"tls_key": PLANTED},
        {"tls_certificate": "-----BEGIN " + PLANTED},
        {"registry_password": PLANTED.encode()},
        {"secret": [PLANTED]},
        {"environment": {"NAMED": PLANTED + "\\0"}},
        {"environment": [PLANTED]},
    ):
        try:
            K8sRabbitExecutor(**wrong)
        except (ValueError, TypeError) as error:
            show(error)
        else:
            raise AssertionError(wrong)
"""
PLANTED = "planted-in-all-that-goes-wrong"


@pytest.fixture(scope="module")
def authority():
    return Authority()


@pytest.fixture(scope="module")
def broker(tmp_path_factory, authority):
    running = TlsBroker(
        "127.0.0.1", tmp_path_factory.mktemp("tls") / "broker", authority, demanding=True
    )
    yield running
    running.stop()


def found_in(text, secrets):
    return [name for name, secret in secrets.items() if secret in text]


def test_no_secret_is_anywhere(rabbitmq, broker, authority, tmp_path):
    certificate, key = authority.issue("client", client=True)
    derived = derive_key(SECRET)
    secrets = {
        "the broker's password": broker.password,
        "secret": SECRET,
        "registry_password": REGISTRY,
        "the private key": key.splitlines()[1],
        "the signing key": derived.hex(),
        "the signing key, as bytes": repr(derived)[2:-1],
        "the signing key, in base64": base64.b64encode(derived).decode(),
        "what was wrong": PLANTED,
        "the login as it is sent": f"\\x00tests\\x00{broker.password}",
    }
    settings = {
        "PODS": "local",
        "AMQP_URL": broker.url,
        "SECRET": SECRET,
        "REGISTRY_PASSWORD": REGISTRY,
        "TLS_CA": authority.pem,
        "TLS_CERTIFICATE": certificate,
        "TLS_KEY": key,
    }
    # The pods of the program's other executors end soon.
    environ = {**os.environ, **{f"K8SFUTURES_{name}": text for name, text in settings.items()}}
    environ |= {"PLANTED": PLANTED, "K8SFUTURES_WARM_FOR": "5"}
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), rabbitmq.pool],
        env=environ,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "DEBUG:pika" in run.stderr, "pika's log is there"
    assert "DEBUG:k8sfutures" in run.stderr or "INFO:k8sfutures" in run.stderr
    assert "as told" in run.stdout
    assert found_in(run.stdout, secrets) == []
    assert found_in(run.stderr, secrets) == []
    for path in sorted(rabbitmq.cache.glob("pods/**/*")):
        if path.is_file():
            assert found_in(path.read_text(errors="replace"), secrets) == [], path
    for command in ("broker status", "pods list", "pool list", "pods stop"):
        done = subprocess.run(
            [sys.executable, "-m", "k8sfutures", *command.split()],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
        )
        assert found_in(done.stdout + done.stderr, secrets) == [], command


def test_files_that_have_secrets_are_their_owners(rabbitmq):
    with rabbitmq.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
    for name in ("pods", "broker"):
        folder = rabbitmq.cache / name
        assert folder.stat().st_mode & 0o077 == 0, folder
    for path in rabbitmq.cache.glob("broker/*/state.json"):
        assert path.stat().st_mode & 0o077 == 0
        password = json.loads(path.read_text())["password"]
        for record in rabbitmq.cache.glob("pods/*/*"):
            assert password not in record.read_text(errors="replace")
    for path in rabbitmq.cache.glob(f"pods/{rabbitmq.pool}@*"):
        assert path.stat().st_mode & 0o077 == 0


def digest_of(name):
    return hashlib.sha256(os.environ.get(name, "").encode()).hexdigest()


def test_the_environment_goes_readable_through_no_tunnel(rabbitmq, monkeypatch):
    """A loopback address can be the end of one; who listens at the other end sees what goes by."""
    with contextlib.closing(Eavesdropper(ensure_local_broker())) as tunnel:
        assert "@127.0.0.1:" in tunnel.url
        for value in ("planted-1", "planted-2"):  # one starts the pods, and one finds them there
            monkeypatch.setenv("PLANTED_VARIABLE", value)
            with rabbitmq.executor(amqp_url=tunnel.url) as ex:
                seen = ex.submit(digest_of, "PLANTED_VARIABLE").result()
            assert seen == hashlib.sha256(value.encode()).hexdigest()
        assert len(tunnel.captured) > 4
        assert not [one for one in tunnel.captured if b"planted-" in one.body]


def test_nor_are_pods_that_a_client_of_the_private_broker_has_started_without_the_key(
    rabbitmq, monkeypatch
):
    with rabbitmq.executor() as ex:
        ex.submit(pow, 2, 3).result()
    pods = rabbitmq.pids()
    monkeypatch.setenv("PLANTED_VARIABLE", "planted")
    with rabbitmq.executor(amqp_url=ensure_local_broker()) as ex:
        seen = ex.submit(digest_of, "PLANTED_VARIABLE").result()
    assert seen == hashlib.sha256(b"planted").hexdigest()
    assert rabbitmq.pids() == pods
