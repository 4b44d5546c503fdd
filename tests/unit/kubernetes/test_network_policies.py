"""worker/network-policies.yaml, read as Kubernetes reads it, for the pods that are really made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from k8sfutures.pods.kubernetes.manifests import PodSpec, job
from k8sfutures.pods.kubernetes.placement import Placement

WORKER = Path(__file__).parents[3] / "worker"
NAMESPACE = {"kubernetes.io/metadata.name": "k8sfutures"}
SYSTEM = {"kubernetes.io/metadata.name": "kube-system"}

Labels = dict[str, str]
Peer = tuple[Labels, Labels]
"""The labels of a pod, and of its namespace."""


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((WORKER / name).read_text("utf-8")))


def labels_of_a_pod() -> Labels:
    made = job(
        PodSpec(pool="p", shape={}, image="i", warm_for=1),
        Placement(node="n", ordinal=0, cpu_ids=(0,), cpu=1000),
        secret="s",
        pull_secret=None,
        pool_cpus=0,
    )
    return dict(made["spec"]["template"]["metadata"]["labels"])


def labels_of_the_broker() -> Labels:
    (deployment,) = (one for one in documents("rabbitmq.yaml") if one["kind"] == "Deployment")
    return dict(deployment["spec"]["template"]["metadata"]["labels"])


def labels_of_the_readmes_client() -> Labels:
    text = (WORKER / "README.md").read_text("utf-8")
    start = text.index("```yaml\n") + len("```yaml\n")
    manifest = yaml.safe_load(text[start : text.index("```", start)])
    return dict(manifest["spec"]["template"]["metadata"]["labels"])


POD = (labels_of_a_pod(), NAMESPACE)
BROKER = (labels_of_the_broker(), NAMESPACE)
CLIENT = (labels_of_the_readmes_client(), NAMESPACE)
DNS = ({"k8s-app": "kube-dns"}, SYSTEM)
OTHER = ({"app": "other"}, NAMESPACE)
ELSEWHERE = (labels_of_a_pod(), {"kubernetes.io/metadata.name": "other"})


def selects(selector: dict[str, Any], labels: Labels) -> bool:
    assert set(selector) <= {"matchLabels"}, "all that is used here"
    return selector.get("matchLabels", {}).items() <= labels.items()


def admits(rule: dict[str, Any], side: str, peer: Peer, protocol: str, port: int) -> bool:
    peers = any(
        selects(one.get("podSelector", {}), peer[0])
        # Without a namespaceSelector it is the policy's own namespace.
        and selects(one.get("namespaceSelector", {"matchLabels": NAMESPACE}), peer[1])
        for one in rule[side]
    )
    return peers and {"protocol": protocol, "port": port} in rule["ports"]


def allowed(kind: str, pod: Peer, peer: Peer, protocol: str, port: int) -> bool:
    """Whether a pod's policies let this pass; they do where none of them is of this kind."""
    policies = [
        policy["spec"]
        for policy in documents("network-policies.yaml")
        if selects(policy["spec"]["podSelector"], pod[0])
        and pod[1] == NAMESPACE
        and kind in policy["spec"]["policyTypes"]
    ]
    side = "from" if kind == "Ingress" else "to"
    return not policies or any(
        admits(rule, side, peer, protocol, port)
        for policy in policies
        for rule in policy[kind.lower()]
    )


def connects(source: Peer, target: Peer, protocol: str, port: int) -> bool:
    return allowed("Egress", source, target, protocol, port) and allowed(
        "Ingress", target, source, protocol, port
    )


@pytest.mark.parametrize(
    ("source", "target", "protocol", "port"),
    [
        (POD, BROKER, "TCP", 5672),
        (POD, BROKER, "TCP", 5671),
        (CLIENT, BROKER, "TCP", 5672),
        (CLIENT, BROKER, "TCP", 5671),
        (POD, DNS, "UDP", 53),
        (POD, DNS, "TCP", 53),
    ],
)
def test_what_is_needed_passes(source, target, protocol, port):
    assert connects(source, target, protocol, port)


@pytest.mark.parametrize(
    ("source", "target", "protocol", "port"),
    [
        (POD, POD, "TCP", 8080),
        (POD, OTHER, "TCP", 5672),
        (POD, BROKER, "TCP", 15672),
        (POD, BROKER, "TCP", 25672),
        (POD, DNS, "TCP", 443),
        (POD, OTHER, "UDP", 53),
        (OTHER, POD, "TCP", 8080),
        (OTHER, BROKER, "TCP", 5672),
        (ELSEWHERE, BROKER, "TCP", 5672),
        (CLIENT, POD, "TCP", 8080),
        (BROKER, OTHER, "TCP", 443),
        (BROKER, POD, "TCP", 8080),
    ],
)
def test_all_else_does_not(source, target, protocol, port):
    assert not connects(source, target, protocol, port)


def test_they_are_policies_that_kubernetes_takes():
    policies = documents("network-policies.yaml")
    assert [one["metadata"]["name"] for one in policies] == ["k8sfutures-pods", "k8sfutures-broker"]
    assert {(one["apiVersion"], one["kind"]) for one in policies} == {
        ("networking.k8s.io/v1", "NetworkPolicy")
    }


def test_clients_are_not_held_back():
    """A client is the user's own pod: what it may reach is not for us to say."""
    assert connects(CLIENT, OTHER, "TCP", 443)
