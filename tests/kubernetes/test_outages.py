"""The broker or the Kubernetes API goes away in the middle of work, and comes back."""

from __future__ import annotations

import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes_cluster import wait_until
from tcp_proxy import TcpProxy

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]


def square(number):
    time.sleep(0.005)
    return number * number


@pytest.fixture
def api(kube, tmp_path):
    """A way to the API that can be cut, and a kubeconfig that takes it."""
    whole = yaml.safe_load(Path(kube.kubeconfig).read_text("utf-8"))
    (cluster,) = whole["clusters"]
    server = urlsplit(cluster["cluster"]["server"])
    proxy = TcpProxy((server.hostname, server.port))
    cluster["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    cluster["cluster"]["tls-server-name"] = server.hostname
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(whole))
    yield proxy, str(path)
    proxy.go_away()


@pytest.mark.slow
def test_without_the_api_the_pods_that_are_there_go_on(kube, api, caplog):
    proxy, kubeconfig = api
    total = sum(kube.nodes().values())
    with kube.executor(pool="api", kubeconfig=kubeconfig) as ex:
        wait_until(lambda: ex.submit(pow, 2, 2).result(60) and f"{total} CPUs" in repr(ex), 40)
        wait_until(lambda: len(kube.running("api")) == len(kube.nodes()), 20)
        proxy.go_away()
        kube.kill_container(kube.running("api")[0])
        assert list(ex.map(square, range(500))) == [n * n for n in range(500)]
        assert "the Kubernetes API at" in caplog.text, "the user is told"
        proxy.come_back()
        # What was missing is looked for again, as long as work waits.
        deadline = time.monotonic() + 60
        while f"{total} CPUs" not in repr(ex):
            assert time.monotonic() < deadline
            list(ex.map(time.sleep, [0.2] * 20))


def test_a_broker_that_is_restarted_loses_no_call(kube):
    if kube.broker is None:
        pytest.skip("needs a broker of the tests' own")
    with kube.executor(pool="broker") as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        futures = [ex.submit(square, number) for number in range(1000)]
        futures[100].result(60)
        kube.broker.restart()
        assert [future.result(90) for future in futures] == [n * n for n in range(1000)]
