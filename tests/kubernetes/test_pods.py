"""Pods on a real cluster: what is made there, where it runs, who can use it, and that it goes."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from faults import work_until_word
from kubernetes.client.exceptions import ServiceException
from kubernetes_cluster import wait_until

from k8sfutures import PodMismatch, SettingValueError
from k8sfutures.cli import main
from tests.kubernetes.restricted import every_control

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]


def look():
    """Node, CPUs, pod and process of a call that waits a little, so that every slot takes one."""
    time.sleep(0.1)
    node, cpus = os.environ["K8SFUTURES_NODE"], tuple(os.sched_getaffinity(0))
    return node, cpus, platform.node(), os.getpid()


def all_slots(ex, count):
    """What `look` says of every slot, once so many have been seen."""
    seen = set()

    def all_seen():
        seen.update(future.result() for future in [ex.submit(look) for _ in range(2 * count)])
        return len(seen) >= count

    wait_until(all_seen, 40)
    return seen


def run_client(program, kube, **environ):
    """A program in a process of its own, with the broker and no cluster in its environment."""
    names = ("PATH", "HOME", "LANG", "USER", "LOGNAME")
    inherited = {name: os.environ[name] for name in names if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)],
        env=inherited | {"K8SFUTURES_AMQP_URL": kube.amqp_url} | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


# --- provisioning


def test_an_executor_uses_every_cpu_of_nodes_of_unequal_size(kube):
    nodes = kube.nodes()
    with kube.executor() as ex:
        slots = all_slots(ex, sum(nodes.values()))
        used = {node: [cpus for where, cpus, *_ in slots if where == node] for node in nodes}
        assert {node: len(cpus) for node, cpus in used.items()} == nodes
        for cpus in used.values():
            assert all(len(one) == 1 for one in cpus), "each process is pinned"
            assert len(set(cpus)) == len(cpus), "to a CPU of its own"
        assert len({pod for *_, pod, _ in slots}) == len(nodes), "one pod fills a node"


def test_pods_of_one_process_have_cpus_that_do_not_collide(kube):
    total = sum(kube.nodes().values())
    with kube.executor(worker_processes=1) as ex:
        slots = all_slots(ex, total)
    assert len({pod for *_, pod, _ in slots}) == total
    assert len({(node, cpus) for node, cpus, *_ in slots}) == total
    assert len(kube.jobs()) == total


def test_max_workers_makes_no_more_pods_than_it_needs(kube):
    with kube.executor(1, pool="one") as ex:
        assert ex.submit(pow, 2, 3).result(60) == 8
        (job,) = kube.jobs()
        assert job.metadata.annotations["k8sfutures/cpu-ids"] == "0"
        with kube.executor(pool="one") as another:  # wants all, and gets what was missing
            all_slots(another, sum(kube.nodes().values()))


def test_pods_are_made_on_what_others_have_left(kube):
    free = dict.fromkeys(kube.nodes(), 1)
    with kube.filled(free), kube.executor() as ex:
        assert len(all_slots(ex, len(free))) == len(free)
        assert len(kube.jobs()) == len(free)


def test_a_node_selector_keeps_pods_to_its_nodes(kube):
    node = min(kube.nodes(), key=kube.nodes().get)
    with kube.executor(node_selector={"kubernetes.io/hostname": node}) as ex:
        assert ex.submit(pow, 2, 3).result(60) == 8
        assert {job.metadata.annotations["k8sfutures/node"] for job in kube.jobs()} == {node}


def test_other_settings_mean_another_pool_and_the_old_one_makes_room(kube):
    with kube.executor(memory="256Mi") as ex:
        old = ex.pool.name
        all_slots(ex, sum(kube.nodes().values()))
    time.sleep(2)  # pods that were used just now do not make room yet
    with kube.executor(memory="300Mi") as ex:
        assert ex.pool.name != old
        seen = {future.result(60) for future in [ex.submit(memory_limit) for _ in range(9)]}
    assert seen == {300 << 20}


def memory_limit():
    for path in ("memory.max", "memory/memory.limit_in_bytes"):
        with contextlib.suppress(FileNotFoundError):
            return int(Path("/sys/fs/cgroup", path).read_text())
    return None


def test_a_pool_with_a_name_is_not_mixed(kube):
    with kube.executor(pool="mine", memory="256Mi") as ex:
        assert ex.submit(pow, 2, 3).result(60) == 8
        with kube.executor(pool="mine", memory="300Mi") as other:
            error = other.submit(pow, 2, 3).exception(60)
        assert isinstance(error, PodMismatch)
        assert "memory='300Mi' (the pod has '256Mi')" in str(error)


# --- warm


WARM = """
    import json, sys, time
    from k8sfutures import K8sRabbitExecutor
    start = time.perf_counter()
    with K8sRabbitExecutor(pods="kubernetes", pool="warm") as ex:
        result = ex.submit(pow, 2, 8).result(30)
        took = time.perf_counter() - start
        for _ in ex.map(abs, range(1000)): pass
        loaded = [name for name in ("kubernetes", "urllib3") if name in sys.modules]
        print(json.dumps({"result": result, "seconds": took, "loaded": loaded}))
"""


def test_a_client_that_knows_only_the_broker_attaches_to_warm_pods(kube, tmp_path):
    with kube.executor(pool="warm") as ex:
        all_slots(ex, sum(kube.nodes().values()))
    client = run_client(WARM, kube, HOME=str(tmp_path))
    said = client.communicate(timeout=60)[0]
    assert client.returncode == 0, said
    found = json.loads(said)
    assert found["result"] == 256
    assert found["loaded"] == [], "what Kubernetes needs is not even imported"
    print(f"first result after {found['seconds'] * 1000:.0f} ms")


def test_a_client_without_a_cluster_is_told_so_where_no_pod_is_warm(kube, tmp_path):
    client = run_client(WARM.replace('"warm"', '"cold"'), kube, HOME=str(tmp_path))
    said = client.communicate(timeout=60)[0]
    assert client.returncode != 0
    assert "no pod of pool 'cold' is there: no Kubernetes configuration is found" in said


def test_a_client_of_another_python_is_told_both_versions(kube, tmp_path):
    python = os.environ.get("K8SFUTURES_CONFORMANCE_PYTHON", sys.executable)
    version = subprocess.check_output([python, "-c", "import sys; print(sys.version_info[:2])"])
    if version.decode().strip() == str(sys.version_info[:2]):
        pytest.skip("needs k8sfutures in another Python (K8SFUTURES_CONFORMANCE_PYTHON)")
    with kube.executor(pool="warm") as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
    environ = {**os.environ, "K8SFUTURES_AMQP_URL": kube.amqp_url, "HOME": str(tmp_path)}
    run = subprocess.run(
        [python, "-c", textwrap.dedent(WARM)],
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = f"has Python {sys.version_info[0]}.{sys.version_info[1]}"
    assert "PodMismatch" in run.stderr
    assert ours in run.stderr
    assert "and this client has Python" in run.stderr


# --- access


def test_the_role_is_enough(kube, account):
    with kube.executor(kubeconfig=account("client", role=True)) as ex:
        all_slots(ex, sum(kube.nodes().values()))
        assert ex.pool.delete() == len(kube.nodes())
        assert ex.submit(pow, 2, 3).result(60) == 8, "new pods are made for what comes"


def test_several_kubeconfig_files_and_the_namespace_of_a_context(kube, tmp_path):
    whole = client_configuration(kube.kubeconfig)
    (cluster,), (user,) = whole["clusters"], whole["users"]
    context = {"cluster": cluster["name"], "user": user["name"], "namespace": kube.namespace}
    files = [
        {"clusters": [cluster], "current-context": "wrong"},
        {"users": [user], "contexts": [{"name": "right", "context": context}]},
    ]
    paths = []
    for number, content in enumerate(files):
        paths.append(tmp_path / f"{number}.json")
        paths[-1].write_text(json.dumps({"apiVersion": "v1", "kind": "Config", **content}))
    program = f"""
        from k8sfutures import K8sRabbitExecutor
        with K8sRabbitExecutor(context="right", image={kube.image!r}) as ex:
            print(ex.submit(pow, 2, 8).result(30))
    """
    client = run_client(program, kube, KUBECONFIG=os.pathsep.join(map(str, paths)))
    assert client.communicate(timeout=60)[0] == "256\n"
    assert len(kube.jobs()) == len(kube.nodes()), "in the context's namespace"


def client_configuration(path):
    import yaml

    return yaml.safe_load(Path(path).read_text("utf-8"))


def test_a_client_in_the_cluster_uses_its_service_account(kube, account):
    image = os.environ.get("K8SFUTURES_TEST_CLIENT_IMAGE")
    if image is None:
        pytest.skip("needs an image with the Kubernetes client (K8SFUTURES_TEST_CLIENT_IMAGE)")
    account("inside", role=True)
    program = f"""
        from k8sfutures import K8sRabbitExecutor
        with K8sRabbitExecutor(image={kube.image!r}, image_pull_policy="IfNotPresent") as ex:
            print(ex.submit(pow, 2, 8).result(60))
    """
    environ = {"K8SFUTURES_AMQP_URL": kube.amqp_url, "USER": "inside"}
    spec = {
        "serviceAccountName": "inside",
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "client",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python", "-c", textwrap.dedent(program)],
            }
        ],
    }
    api = os.environ.get("K8SFUTURES_TEST_API")  # where pods cannot reach it at its own address
    if api is not None:
        spec["hostNetwork"] = True
        host, _, port = api.rpartition(":")
        environ |= {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    spec["containers"][0]["env"] = [{"name": k, "value": v} for k, v in environ.items()]
    body = {"metadata": {"name": "client"}, "spec": spec}

    def made():  # Kubernetes before 1.24 takes a moment to give the account its token
        with contextlib.suppress(ServiceException):
            kube.core.create_namespaced_pod(kube.namespace, body)
            return True
        return False

    wait_until(made, 20)

    def phase():
        return kube.core.read_namespaced_pod("client", kube.namespace).status.phase

    wait_until(lambda: phase() in {"Succeeded", "Failed"}, 90)
    said = kube.core.read_namespaced_pod_log("client", kube.namespace)
    kube.core.delete_namespaced_pod("client", kube.namespace, grace_period_seconds=0)
    assert said == "256\n"


def test_a_broker_that_only_this_machine_can_reach_is_refused_at_once(kube):
    with pytest.raises(SettingValueError, match="pod_amqp_url"):
        kube.executor(amqp_url="amqp://u:p@127.0.0.1:5672/")


# --- what a pod is


@pytest.fixture(scope="module")
def a_pod(kubernetes):
    """A pod as it is in the cluster, and its pool."""
    kubernetes.clear()
    with kubernetes.executor(1, pool="looked-at") as ex:
        assert ex.submit(pow, 2, 2).result(60) == 4
        wait_until(lambda: kubernetes.running("looked-at"), 20)
        (pod,) = kubernetes.running("looked-at")
        yield ex, kubernetes.core.api_client.sanitize_for_serialization(pod)
    kubernetes.clear()


@every_control
def test_a_pod_meets_the_restricted_pod_security_standard(a_pod, control):
    assert control.holds(a_pod[1]["metadata"], a_pod[1]["spec"])


def test_a_pod_has_no_token_and_no_links(a_pod):
    spec = a_pod[1]["spec"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    mounted = [one["mountPath"] for one in spec["containers"][0]["volumeMounts"]]
    assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounted


def rights():
    problems = []
    for path in ("/root-file", "/usr/local/lib/x", "/run/k8sfutures/x"):
        with contextlib.suppress(OSError):
            Path(path).write_text("x")
            problems.append(path)
    for path in ("/tmp/x", "/dev/shm/x"):
        Path(path).write_text("x")
    status = Path("/proc/self/status").read_text().splitlines()
    words = dict(line.split(":", 1) for line in status if ":" in line)
    return os.getuid(), problems, words["CapEff"].strip(), words["Seccomp"].strip()


def test_a_pod_runs_as_nobody_and_cannot_write_where_it_should_not(a_pod):
    assert a_pod[0].submit(rights).result(30) == (65532, [], "0" * 16, "2")


def loaded():
    import sys

    return sorted({"kubernetes", "numpy"}.intersection(sys.modules))


def test_a_pod_loads_neither_kubernetes_nor_numpy(a_pod):
    assert a_pod[0].submit(loaded).result(30) == []


def test_no_secret_is_in_what_everybody_can_read_of_a_pod(a_pod, kubernetes):
    password = kubernetes.amqp_url.split(":")[2].split("@")[0]
    assert password not in json.dumps(a_pod[1])


def environment():
    return [Path(f"/proc/{pid}/environ").read_text() for pid in ("1", "self")], dict(os.environ)


def test_no_secret_is_in_the_environment_of_a_pod(a_pod, kubernetes):
    password = kubernetes.amqp_url.split(":")[2].split("@")[0]
    assert password not in str(a_pod[0].submit(environment).result(30))


# --- no leaks


@pytest.mark.slow
def test_nothing_is_left_after_warm_for_though_the_client_was_killed(kube):
    program = f"""
        import time
        from k8sfutures import K8sRabbitExecutor
        ex = K8sRabbitExecutor(**{kube.settings(warm_for=3, pool="abandoned")!r})
        ex.submit(pow, 2, 2).result()
        ex.submit(time.sleep, 1)
        print("ready", flush=True)
        time.sleep(60)
    """
    client = run_client(program, kube)
    assert client.stdout.readline() == "ready\n"
    assert kube.jobs()
    assert kube.secrets()
    client.send_signal(signal.SIGKILL)
    client.communicate()
    wait_until(lambda: not (kube.jobs() or kube.pods() or kube.secrets()), 60)


def test_a_pool_is_deleted_by_its_executor(kube):
    with kube.executor(pool="short") as ex:
        all_slots(ex, sum(kube.nodes().values()))
        assert ex.pool.delete() == len(kube.nodes())
        # Kubernetes 1.20 may take 30 s where pods have only just started.
        wait_until(lambda: not (kube.jobs() or kube.running() or kube.secrets()), 60)
        assert ex.submit(pow, 2, 3).result(60) == 8, "what comes afterwards has new pods"


def test_a_pod_that_drains_is_listed_until_it_has_ended(kube, outside, capsys):
    cluster = ["--pods", "kubernetes", "--kubeconfig", kube.kubeconfig]
    cluster += ["--namespace", kube.namespace]

    def listed():
        assert main(["pool", "list", *cluster]) == 0
        return capsys.readouterr().out

    with kube.executor(1, pool="drains") as ex:
        future = ex.submit(work_until_word, outside.address, "a")
        outside.wait_for("start a .*")
        assert main(["pool", "delete", "drains", *cluster]) == 0
        wait_until(lambda: listed().endswith("  draining\n"), 20)
        outside.give_word()
        assert future.result(60) == "a"
        wait_until(lambda: listed() == "no pools on the cluster\n", 60)


def test_a_pool_is_deleted_by_the_command_line(kube, capsys):
    with kube.executor(1, pool="command-line") as ex:
        assert ex.submit(pow, 2, 3).result(60) == 8
        wait_until(lambda: kube.running("command-line"), 20)
    cluster = ["--pods", "kubernetes", "--kubeconfig", kube.kubeconfig]
    cluster += ["--namespace", kube.namespace]
    assert main(["pool", "list", *cluster]) == 0
    said = capsys.readouterr().out
    assert said.startswith("command-line  k8sfutures-")
    assert "CPUs 0 of" in said
    assert main(["pool", "delete", "command-line", *cluster]) == 0
    assert capsys.readouterr().out == "asked 1 pod of pool command-line to end\n"
    wait_until(lambda: not (kube.jobs() or kube.running()), 30)
    assert main(["pool", "delete", "command-line", *cluster]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("k8sfutures: there is no pool command-line on the cluster")
    assert main(["pool", "delete", "--all", *cluster]) == 0
