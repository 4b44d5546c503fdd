"""The files of `worker/` that are there for ``kubectl apply``, and the examples of its README.

They need a cluster, which K8SFUTURES_TEST_KUBECONFIG names, and the rights of its administrator.
They work in a namespace of their own, and what they make for the whole cluster is called like that
namespace: an installation of k8sfutures that is there already is left alone.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from kubernetes import client, config
from kubernetes.dynamic import DynamicClient

from tests.kubernetes.restricted import Control, broken, every_control

pytestmark = pytest.mark.kubernetes

Json = dict[str, Any]

WORKER: Final = Path(__file__).parents[2] / "worker"
ACCOUNT: Final = "k8sfutures-client"


def documents(name: str) -> list[Json]:
    return list(yaml.safe_load_all((WORKER / name).read_text(encoding="utf-8")))


def examples() -> list[Json]:
    """The manifests that the README shows."""
    text = (WORKER / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [document for block in blocks for document in yaml.safe_load_all(block)]


def the(kind: str, name: str) -> Json:
    """The only object of a kind in a file."""
    (found,) = [document for document in documents(name) if document["kind"] == kind]
    return found


FILES: Final = sorted(path.name for path in WORKER.glob("*.yaml"))
OBJECTS: Final = [(name, document) for name in FILES for document in documents(name)]
OBJECTS.extend(("README.md", document) for document in examples())
every_object = pytest.mark.parametrize(
    "document",
    [document for _, document in OBJECTS],
    ids=[f"{name}-{document['kind']}" for name, document in OBJECTS],
)


# --- the cluster


class Cluster:
    """The API server, and a namespace in it for these tests."""

    def __init__(self, api: client.ApiClient, namespace: str, cache: Path) -> None:
        self.namespace = namespace
        self._api = api
        self._dynamic = DynamicClient(api, cache_file=str(cache))

    def apply(self, document: Json, *, dry_run: bool = False) -> Json:
        """What the server makes of an object; it refuses fields that it does not know."""
        resource = self._dynamic.resources.get(
            api_version=document["apiVersion"], kind=document["kind"]
        )
        applied = self._dynamic.server_side_apply(
            resource,
            body=document,
            namespace=self.namespace,
            field_manager="k8sfutures-tests",
            force_conflicts=True,
            **({"dry_run": "All"} if dry_run else {}),
        )
        return applied.to_dict()

    def delete(self, document: Json) -> None:
        resource = self._dynamic.resources.get(
            api_version=document["apiVersion"], kind=document["kind"]
        )
        resource.delete(name=document["metadata"]["name"], namespace=self.namespace)

    def may(self, account: str, verb: str, resource: str, namespace: str) -> bool:
        """Whether the server lets a service account do something; `resource` as kubectl has it."""
        kind, _, subresource = resource.partition("/")
        name, _, group = kind.partition(".")
        attributes = client.V1ResourceAttributes(
            verb=verb, group=group, resource=name, subresource=subresource, namespace=namespace
        )
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        return self._as(account).create_self_subject_access_review(review).status.allowed

    def rights(self, account: str, namespace: str) -> set[str]:
        """All that a service account may do in a namespace."""
        review = client.V1SelfSubjectRulesReview(
            spec=client.V1SelfSubjectRulesReviewSpec(namespace=namespace)
        )
        answer = self._as(account).create_self_subject_rules_review(review)
        return {
            f"{verb} {resource}{group and '.'}{group}{name and ' '}{name}"
            for rule in answer.status.resource_rules
            for verb in rule.verbs
            for group in rule.api_groups
            for resource in rule.resources
            for name in rule.resource_names or [""]
        }

    def _as(self, account: str) -> client.AuthorizationV1Api:
        api = client.ApiClient(self._api.configuration)
        user = f"system:serviceaccount:{self.namespace}:{account}"
        api.set_default_header("Impersonate-User", user)
        return client.AuthorizationV1Api(api)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    api = config.new_client_from_config(os.environ["K8SFUTURES_TEST_KUBECONFIG"])
    core = client.CoreV1Api(api)
    name = f"k8sfutures-files-{secrets.token_hex(4)}"
    # As of Kubernetes 1.25 the label is obeyed; older ones do not know it.
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    core.create_namespace(
        client.V1Namespace(metadata=client.V1ObjectMeta(name=name, labels=labels))
    )
    try:
        yield Cluster(api, name, tmp_path_factory.mktemp("kubernetes") / "discovery.json")
    finally:
        core.delete_namespace(name)
        api.close()


@every_object
def test_the_api_server_takes_every_object(cluster: Cluster, document: Json) -> None:
    cluster.apply(document, dry_run=True)


@every_object
def test_no_object_names_a_namespace_of_its_own(document: Json) -> None:
    assert "namespace" not in document["metadata"]


# --- what the client may do

HERE: Final = {
    *("create jobs.batch", "list jobs.batch", "delete jobs.batch"),
    *("list pods", "watch pods"),
    "create secrets",
    "list events",
}
EVERYWHERE: Final = {"list nodes", "list pods"}


@pytest.fixture(scope="module")
def account(cluster: Cluster) -> Iterator[str]:
    """The client's service account, with role.yaml applied."""
    made = []
    try:
        for document in documents("role.yaml"):
            if document["kind"].startswith("Cluster"):
                document["metadata"]["name"] = cluster.namespace
            if document["kind"] == "ClusterRoleBinding":
                document["roleRef"]["name"] = cluster.namespace
                document["subjects"][0]["namespace"] = cluster.namespace
            cluster.apply(document)
            made.append(document)
        yield ACCOUNT
    finally:
        for document in reversed(made):
            cluster.delete(document)


def own_rights(cluster: Cluster, account: str, namespace: str) -> set[str]:
    """What an account may do that one without any role may not."""
    return cluster.rights(account, namespace) - cluster.rights("of-nobody", namespace)


def test_in_its_namespace_the_client_has_exactly_the_rights_that_it_needs(
    cluster: Cluster, account: str
) -> None:
    assert own_rights(cluster, account, cluster.namespace) == HERE | EVERYWHERE


def test_elsewhere_the_client_may_only_see_what_is_free(cluster: Cluster, account: str) -> None:
    assert own_rights(cluster, account, "default") == EVERYWHERE


@pytest.mark.parametrize("right", sorted(HERE | EVERYWHERE))
def test_the_api_server_lets_the_client(cluster: Cluster, account: str, right: str) -> None:
    verb, resource = right.split()
    assert cluster.may(account, verb, resource, cluster.namespace)


@pytest.mark.parametrize(
    "right",
    [
        *("get secrets", "list secrets", "watch secrets", "update secrets", "delete secrets"),
        *("create pods", "delete pods", "patch pods", "create pods/exec", "get pods/log"),
        *("update jobs.batch", "deletecollection jobs.batch", "create deployments.apps"),
        *("create rolebindings.rbac.authorization.k8s.io", "create serviceaccounts/token"),
        *("get nodes/proxy", "update nodes"),
    ],
)
def test_the_api_server_does_not_let_the_client(cluster: Cluster, account: str, right: str) -> None:
    verb, resource = right.split()
    assert not cluster.may(account, verb, resource, cluster.namespace)


@pytest.mark.parametrize("right", sorted(HERE - EVERYWHERE))
def test_in_another_namespace_the_api_server_does_not_let_the_client(
    cluster: Cluster, account: str, right: str
) -> None:
    verb, resource = right.split()
    assert not cluster.may(account, verb, resource, "default")


def test_the_documented_command_moves_the_role_to_another_namespace() -> None:
    text = (WORKER / "role.yaml").read_text(encoding="utf-8")
    assert r"sed -E 's/(: ?)k8sfutures$/\1NAMESPACE/'" in text
    moved = list(
        yaml.safe_load_all(re.sub(r"(: ?)k8sfutures$", r"\1elsewhere", text, flags=re.MULTILINE))
    )
    expected = documents("role.yaml")
    expected[-1]["metadata"]["name"] = "k8sfutures-client:elsewhere"
    expected[-1]["subjects"][0]["namespace"] = "elsewhere"
    assert moved == expected


# --- the restricted Pod Security Standard


@pytest.fixture(scope="module")
def rabbitmq_pod(cluster: Cluster) -> Json:
    """RabbitMQ's pod as the API server has it, defaults filled in."""
    deployment = cluster.apply(the("Deployment", "rabbitmq.yaml"), dry_run=True)
    return deployment["spec"]["template"]


@pytest.fixture(scope="module")
def client_pod(cluster: Cluster) -> Json:
    """The pod of the README's client, likewise."""
    (job,) = [document for document in examples() if document["kind"] == "Job"]
    return cluster.apply(job, dry_run=True)["spec"]["template"]


@every_control
def test_the_rabbitmq_pod_meets_the_restricted_standard(
    rabbitmq_pod: Json, control: Control
) -> None:
    assert control.holds(rabbitmq_pod["metadata"], rabbitmq_pod["spec"])


@every_control
def test_the_client_pod_of_the_readme_meets_the_restricted_standard(
    client_pod: Json, control: Control
) -> None:
    assert control.holds(client_pod["metadata"], client_pod["spec"])


@every_control
def test_a_pod_that_breaks_the_restricted_standard_is_noticed(
    rabbitmq_pod: Json, control: Control
) -> None:
    pod = broken(rabbitmq_pod, control)
    assert not control.holds(pod["metadata"], pod["spec"])


def test_a_namespace_that_enforces_the_restricted_standard_takes_the_rabbitmq_pod(
    cluster: Cluster, rabbitmq_pod: Json
) -> None:
    metadata = {"name": "rabbitmq"}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": rabbitmq_pod["spec"]}
    cluster.apply(pod, dry_run=True)


# --- beyond the standard


@pytest.fixture
def rabbitmq(rabbitmq_pod: Json) -> Json:
    """RabbitMQ's container."""
    (container,) = rabbitmq_pod["spec"]["containers"]
    return container


def test_the_rabbitmq_container_cannot_write_to_its_image(rabbitmq: Json) -> None:
    assert rabbitmq["securityContext"]["readOnlyRootFilesystem"] is True


def test_the_rabbitmq_pod_gets_no_service_account_token(rabbitmq_pod: Json) -> None:
    assert rabbitmq_pod["spec"]["automountServiceAccountToken"] is False


def test_the_rabbitmq_pod_gets_no_variables_of_services(rabbitmq_pod: Json) -> None:
    assert rabbitmq_pod["spec"]["enableServiceLinks"] is False


def test_rabbitmq_makes_publishers_wait_before_its_container_is_out_of_memory(
    rabbitmq: Json,
) -> None:
    conf = the("ConfigMap", "rabbitmq.yaml")["data"]["rabbitmq.conf"]
    (watermark,) = re.findall(r"^vm_memory_high_watermark.absolute = (\d+)MiB$", conf, re.MULTILINE)
    assert rabbitmq["resources"]["limits"]["memory"] == "1Gi"
    assert int(watermark) <= 0.6 * 1024


def test_the_service_leads_to_the_rabbitmq_pod(rabbitmq_pod: Json) -> None:
    selector = the("Service", "rabbitmq.yaml")["spec"]["selector"]
    assert selector.items() <= rabbitmq_pod["metadata"]["labels"].items()


def test_k8sfutures_does_not_take_the_rabbitmq_pod_for_one_of_its_own(rabbitmq_pod: Json) -> None:
    assert rabbitmq_pod["metadata"]["labels"]["app.kubernetes.io/name"] != "k8sfutures"


def test_no_password_is_shipped() -> None:
    secret = the("Secret", "secret.yaml")
    assert {**secret.get("data", {}), **secret["stringData"]} == {"username": "k8sfutures"}


@pytest.mark.parametrize("variable", ["RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"])
def test_rabbitmq_is_not_started_without_what_only_the_secret_has(
    rabbitmq: Json, variable: str
) -> None:
    (source,) = [one["valueFrom"] for one in rabbitmq["env"] if one["name"] == variable]
    reference = source["secretKeyRef"]
    assert reference["name"] == the("Secret", "secret.yaml")["metadata"]["name"]
    assert not reference.get("optional")
