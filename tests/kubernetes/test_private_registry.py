"""An image in a private registry: the settings registry_* become what nodes pull it with."""

from __future__ import annotations

import os
import shutil

import pytest
from private_registry import PASSWORD, USER, PrivateRegistry

from k8sfutures import PodsUnavailable

pytestmark = [
    pytest.mark.kubernetes,
    pytest.mark.timeout(120),
    pytest.mark.skipif(
        "K8SFUTURES_TEST_CONTAINERD" not in os.environ or shutil.which("buildah") is None,
        reason="needs nodes that share this machine's loopback interface, and buildah",
    ),
]


@pytest.fixture(scope="module")
def registry(kubernetes, tmp_path_factory):
    running = PrivateRegistry(kubernetes.image, tmp_path_factory.mktemp("registry"))
    yield running
    running.close()


def private(kube, registry, password, pool):
    # Each test has a pool of its own: Kubernetes 1.20 may take 30 s to end a container whose pod is
    # deleted right after its start, and until then it would answer the next client.
    return kube.executor(
        1,
        pool=pool,
        image=registry.image,
        image_pull_policy="Always",
        registry_server=registry.address,
        registry_user=USER,
        registry_password=password,
    )


def test_nodes_pull_with_the_password_of_the_settings(kube, registry):
    with private(kube, registry, PASSWORD, "right") as ex:
        assert ex.submit(pow, 2, 8).result(60) == 256
        kinds = sorted(secret.type for secret in kube.secrets())
        assert kinds == ["Opaque", "kubernetes.io/dockerconfigjson"]
    assert registry.served


def test_a_registry_that_refuses_the_password_is_named_and_the_password_is_not(kube, registry):
    with private(kube, registry, "a-wrong-password", "wrong") as ex:
        error = ex.submit(pow, 2, 8).exception(60)
    assert isinstance(error, PodsUnavailable)
    assert registry.image in str(error)
    assert "401" in str(error) or "authorization failed" in str(error)
    assert "a-wrong-password" not in str(error)


def test_without_a_password_the_registry_refuses(kube, registry):
    with kube.executor(1, pool="none", image=registry.image, image_pull_policy="Always") as ex:
        error = ex.submit(pow, 2, 8).exception(60)
    assert isinstance(error, PodsUnavailable)
    assert registry.image in str(error)
