"""Plain kubeconfigs mean what they mean to Kubernetes' own client; all others are left to it."""

from __future__ import annotations

import base64
import itertools
import json
import ssl
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from kubernetes.client import Configuration
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from k8sfutures.errors import ClusterError
from k8sfutures.pods.kubernetes import plain
from k8sfutures.pods.kubernetes.api import KubeApi
from k8sfutures.pods.kubernetes.plain import Plain, Token, plain_kubeconfig, plain_service_account

AUTHORITY = "-----BEGIN CERTIFICATE-----\nauthority\n-----END CERTIFICATE-----\n"
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nours\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nours\n-----END PRIVATE KEY-----\n"

PROXIES = tuple(f"{kind}_proxy" for kind in ("http", "https", "all", "no"))


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def kubeconfig(cluster: dict[str, Any], user: dict[str, Any], **context: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [
            {"name": "there", "context": {"cluster": "none", "user": "none"}},
            {"name": "here", "context": {"cluster": "c", "user": "u", **context}},
        ],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }


def written(folder: Path, whole: dict[str, Any]) -> str:
    for name, text in (("ca.pem", AUTHORITY), ("cert.pem", CERTIFICATE), ("key.pem", KEY)):
        (folder / name).write_text(text, "ascii")
    (folder / "token").write_text("from-a-file", "ascii")
    file = folder / "config"
    file.write_text(yaml.safe_dump(whole), "utf-8")
    return str(file)


def of_the_client(file: str) -> Configuration:
    configuration = Configuration()
    whole = KubeConfigMerger(file).config
    KubeConfigLoader(whole, config_base_path=None).load_and_set(configuration)
    return configuration


def text_of(file: str | None) -> str | None:
    return None if file is None else Path(file).read_text("ascii")


PLAIN_CLUSTERS = st.fixed_dictionaries(
    {"server": st.sampled_from(["https://k8s.example:6443", "https://10.0.0.1/", "https://[::1]"])},
    optional={
        "certificate-authority": st.just("ca.pem"),
        "certificate-authority-data": st.just(encoded(AUTHORITY + "# data")),
        "tls-server-name": st.just("other.example"),
    },
)
CERTIFICATES = st.sampled_from(
    [
        {},
        {"client-certificate": "cert.pem", "client-key": "key.pem"},
        {"client-certificate-data": encoded(CERTIFICATE), "client-key-data": encoded(KEY)},
        {"client-certificate": "cert.pem", "client-key-data": encoded(KEY)},
    ]
)
TOKENS = st.sampled_from([{}, {"token": "abc"}, {"tokenFile": "token"}])


@given(PLAIN_CLUSTERS, CERTIFICATES, TOKENS)
def test_a_plain_kubeconfig_means_what_it_means_to_kubernetes_client(
    tmp_path_factory: pytest.TempPathFactory,
    cluster: dict[str, Any],
    certificate: dict[str, Any],
    token: dict[str, Any],
) -> None:
    folder = tmp_path_factory.mktemp("kubeconfig")
    file = written(folder, kubeconfig(cluster, certificate | token, namespace="mine"))

    found = plain_kubeconfig(file, None)

    assert found is not None
    theirs = of_the_client(file)
    assert found.server == theirs.host
    assert found.authority == text_of(theirs.ssl_ca_cert)
    assert found.server_name == theirs.tls_server_name
    both = (text_of(theirs.cert_file), text_of(theirs.key_file))
    assert found.certificate == (None if both == (None, None) else f"{both[0]}\n{both[1]}\n")
    log_in = Token(found).current()
    assert (log_in and f"Bearer {log_in}") == theirs.get_api_key_with_prefix("BearerToken")
    assert (found.namespace, found.context) == ("mine", "here")


@pytest.mark.parametrize(
    ("cluster", "user"),
    [
        ({"server": "http://k8s.example"}, {}),
        ({}, {}),
        ({"insecure-skip-tls-verify": True}, {}),
        ({"proxy-url": "http://proxy.example"}, {}),
        ({"certificate-authority": "missing.pem"}, {}),
        ({"certificate-authority-data": "no base64!"}, {}),
        ({"something-new": "x"}, {}),
        ({}, {"exec": {"command": "log-in"}}),
        ({}, {"auth-provider": {"name": "oidc"}}),
        ({}, {"username": "a", "password": "b"}),
        ({}, {"client-certificate": "cert.pem"}),
        ({}, {"as": "somebody"}),
        ({}, {"token": 5}),
    ],
    ids=str,
)
def test_what_is_not_plain_is_left_to_kubernetes_client(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any]
) -> None:
    server = {} if cluster == user == {} else {"server": "https://k8s.example"}
    file = written(tmp_path, kubeconfig(server | cluster, user))
    assert plain_kubeconfig(file, None) is None


@pytest.mark.parametrize("name", PROXIES)
def test_a_proxy_of_the_environment_is_left_to_kubernetes_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    file = written(tmp_path, kubeconfig({"server": "https://k8s.example"}, {}))
    assert plain_kubeconfig(file, None) is not None
    monkeypatch.setenv(name.upper(), "http://proxy.example")
    assert plain_kubeconfig(file, None) is None


@pytest.mark.parametrize("text", ["", "[]", "a: [", "current-context: here", "\x00", "contexts: 1"])
def test_what_is_no_kubeconfig_is_refused_in_words(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text, "utf-8")
    with pytest.raises(ClusterError, match="cannot be used"):
        KubeApi(str(file))


@pytest.mark.parametrize("text", ["root:x:0:0", "contexts"])
def test_what_has_not_the_form_of_one_is_told_so(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config"
    file.write_text(text, "utf-8")
    with pytest.raises(ClusterError, match="cannot be used: it does not have the form of one; see"):
        KubeApi(str(file))


@pytest.mark.parametrize("command", ["no-such-command", "false"])
def test_a_command_that_fails_to_log_in_is_named(tmp_path: Path, command: str) -> None:
    """Kubernetes' client would go on as nobody, and nobody may do anything."""
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": command,
        "interactiveMode": "Never",
    }
    file = written(tmp_path, kubeconfig({"server": "https://127.0.0.1:1"}, {"exec": login}))
    with pytest.raises(ClusterError, match=f"the command '{command}', which is to log user '"):
        KubeApi(file)


def test_a_command_that_logs_in(tmp_path: Path) -> None:
    token = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "abc"},
    }
    login = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "echo",
        "args": [json.dumps(token)],
        "interactiveMode": "Never",
    }
    file = written(tmp_path, kubeconfig({"server": "https://127.0.0.1:1"}, {"exec": login}))
    assert KubeApi(file).server == "https://127.0.0.1:1"


def test_several_files_are_left_to_kubernetes_client(tmp_path: Path) -> None:
    file = written(tmp_path, kubeconfig({"server": "https://k8s.example"}, {}))
    assert plain_kubeconfig(f"{file}:{file}", None) is None
    assert KubeApi(f"{file}:{file}").server == "https://k8s.example"


def test_a_context_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    file = written(tmp_path, kubeconfig({"server": "https://k8s.example"}, {}))
    with pytest.raises(ClusterError, match=r"context='nowhere' is not in .*: here, there"):
        KubeApi(file, context="nowhere")


def test_kubernetes_client_is_not_imported_for_a_plain_kubeconfig(tmp_path: Path) -> None:
    file = written(tmp_path, kubeconfig({"server": "https://k8s.example"}, {"token": "abc"}))
    program = (
        "import sys; from k8sfutures.pods.kubernetes.api import KubeApi\n"
        f"assert KubeApi({file!r}).origin == 'context here of ' + {file!r}\n"
        "print('kubernetes' in sys.modules, 'urllib3' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert said.stdout.split() == [b"False", b"True"], said.stderr.decode()


def test_a_token_that_cannot_be_sent_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object) -> None:
        raise ValueError("Invalid header value b'Bearer SECRET'")  # as http.client does

    api = KubeApi(written(tmp_path, kubeconfig({"server": "https://127.0.0.1:1"}, {})))
    monkeypatch.setattr(api._transport, "request", refuse)
    with pytest.raises(ClusterError, match="a token, or another part") as raised:
        api.list("/api/v1/nodes")
    assert "SECRET" not in "".join(traceback.format_exception(raised.value))


def test_the_newline_that_a_block_of_yaml_ends_with_is_no_part_of_a_token(tmp_path: Path) -> None:
    user = {"token": "abc\n"}
    found = plain_kubeconfig(
        written(tmp_path, kubeconfig({"server": "https://k8s.example"}, user)), None
    )
    assert found is not None
    assert found.token == "abc"


def test_the_file_of_a_token_that_is_not_there_is_named_at_once(tmp_path: Path) -> None:
    whole = kubeconfig({"server": "https://k8s.example"}, {"tokenFile": "missing"})
    with pytest.raises(ClusterError, match="missing"):
        KubeApi(written(tmp_path, whole))


# --- service accounts


def service_account(
    folder: Path, monkeypatch: pytest.MonkeyPatch, host: str = "10.96.0.1"
) -> Plain | None:
    monkeypatch.setattr(plain, "ACCOUNT", folder)
    return plain_service_account(
        {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "443"}
    )


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.96.0.1", "https://10.96.0.1:443"), ("fd00::1", "https://[fd00::1]:443")],
)
def test_a_pod_reaches_its_cluster_with_its_service_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, server: str
) -> None:
    (tmp_path / "ca.crt").write_text(AUTHORITY, "ascii")
    (tmp_path / "token").write_text("abc\n", "ascii")
    (tmp_path / "namespace").write_text("science\n", "ascii")
    found = service_account(tmp_path, monkeypatch, host)
    assert found is not None
    assert (found.server, found.authority, found.namespace) == (server, AUTHORITY, "science")
    assert Token(found).current() == "abc"


@pytest.mark.parametrize("missing", ["ca.crt", "token"])
def test_a_pod_without_all_of_it_is_left_to_kubernetes_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    for name in {"ca.crt", "token"} - {missing}:
        (tmp_path / name).write_text("text", "ascii")
    assert service_account(tmp_path, monkeypatch) is None


def test_a_token_that_has_been_renewed_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0.0, plain.TOKEN_AGE)
    monkeypatch.setattr(plain.time, "monotonic", lambda: next(clock))
    file = tmp_path / "token"
    file.write_text("first", "ascii")
    token = Token(Plain("https://k8s.example", "here", token_file=file))  # 0
    assert token.current() == "first"  # 60
    file.write_text("second", "ascii")
    assert token.current() == "first"  # 120: as old as it may be
    assert token.current() == "second"  # 180


def test_a_certificate_that_is_none_is_told_of_by_name(tmp_path: Path) -> None:
    whole = kubeconfig(
        {"server": "https://k8s.example"},
        {"client-certificate": "cert.pem", "client-key": "key.pem"},
    )
    file = written(tmp_path, whole)
    with pytest.raises((ClusterError, ssl.SSLError, OSError)) as raised:
        KubeApi(file).list("/api/v1/nodes")
    assert isinstance(raised.value, ClusterError)
