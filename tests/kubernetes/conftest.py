"""What the tests on a cluster share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from journal import Journal
from kubernetes_cluster import KubernetesCluster


@pytest.fixture
def kube(
    kubernetes: KubernetesCluster, request: pytest.FixtureRequest
) -> Iterator[KubernetesCluster]:
    """The cluster, with no pool of ours on it before and after."""
    kubernetes.clear()
    yield kubernetes
    kubernetes.clear()


@pytest.fixture
def outside(kube: KubernetesCluster) -> Iterator[Journal]:
    """A journal that calls on the cluster reach."""
    with contextlib.closing(Journal(kube.host)) as journal:
        yield journal


@pytest.fixture
def account(kube: KubernetesCluster, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Makes kubeconfigs of service accounts, with the client's role or without any."""
    with contextlib.ExitStack() as stack:

        def make(name: str, *, role: bool) -> str:
            return stack.enter_context(kube.account(name, tmp_path, role=role))

        yield make
