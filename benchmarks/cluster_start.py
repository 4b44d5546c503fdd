"""How soon a cluster answers: a bare Job, a cold start of ours, and an executor on warm pods.

One run, in alternating rounds: a Job that runs ``python -c pass`` in the pods' image, from its
creation to its completion; and `K8sRabbitExecutor` from its constructor to its first result, in a
new process each time, on a pool that nobody has used and then on the same pool, warm. See
README.md for how each is timed and what it does not show.

The cluster, the broker and the image are those of the usual settings (``K8SFUTURES_...`` or
k8sfutures.toml).
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import functools
import json
import logging
import os
import statistics
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from .figures import lines_of, number

# Of k8sfutures nothing is imported before it is wanted: the new processes time that import.
if TYPE_CHECKING:
    from k8sfutures import K8sRabbitExecutor
    from k8sfutures.config import Settings
    from k8sfutures.pods.kubernetes.api import KubeApi

Json = dict[str, Any]

REST = 1.0
"""Seconds after pods are gone, for kubelets that are still clearing up."""

PATIENCE = 120.0
"""Seconds for pods to go, and for every CPU of a new pool to answer."""

WARM_FOR = 60.0
"""Seconds after which pods go by themselves, should this program be killed."""

BARE = "bare"
"""Name of the bare Job's container."""

BROKER = "client: connected to the broker"
NOBODY = "client: knows that no pod is there"
LOADED = "client: has loaded the Kubernetes client and its configuration"
JOBS = "client: has created the Jobs and their Secret"
CONTAINER = "node: container started (whole seconds, node's clock)"
PROGRAM = "pod: first line of its log (node's clock)"
CONNECTED = "pod: connected to the broker (node's clock)"
HELLO = "client: first pod has answered"
RESULT = "client: first result"
EVERY_CPU = "client: a result of every CPU"


def main() -> None:
    """Measure, print the tables, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster_start", description=(__doc__ or "").split("\n\n", 1)[0]
    )
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default: 5)")
    parser.add_argument(
        "--attaches", type=int, default=3, help="warm executors in each round (default: 3)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there, too")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps({"cold": cold, "warm": warm}[arguments.one[0]](arguments.one[1])))
        return
    if min(arguments.rounds, arguments.attaches) < 1:
        parser.error("each number must be 1 or more")
    check_folder(parser, arguments.json)
    with told(), Cluster() as cluster:
        compare(cluster, arguments)


def check_folder(parser: argparse.ArgumentParser, file: Path | None) -> None:
    """Refuse a file in a folder that is not there, before anything is measured."""
    if file and not file.absolute().parent.is_dir():
        parser.error(f"--json: there is no folder {file.absolute().parent}")


@contextlib.contextmanager
def told() -> Iterator[None]:
    """What is wrong with settings or the cluster ends the program with words, not a traceback."""
    from k8sfutures.errors import K8sFuturesError

    try:
        yield
    except K8sFuturesError as error:
        sys.exit(f"benchmarks: {error}")


def compare(cluster: Cluster, arguments: argparse.Namespace) -> None:
    """Rounds of the one and of the other, in changing order."""
    from .side_by_side import alternating, loads, progress

    found = cluster.conditions()
    print(heading(found), flush=True)
    bare: list[Json] = []
    colds: list[Json] = []
    warms: list[Json] = []

    def ours(attaches: int = arguments.attaches) -> None:
        with cluster.pool() as pool:
            colds.append(in_new_process(__spec__, "cold", pool))
            warms.extend(in_new_process(__spec__, "warm", pool) for _ in range(attaches))
            colds[-1]["at"] |= cluster.story(pool, colds[-1])
            colds[-1]["warnings"] = cluster.warnings(pool)

    progress("a first round that does not count: nodes may have to pull the image")
    cluster.run_bare_job()
    ours(attaches=1)
    colds.clear()
    warms.clear()
    progress(f"{arguments.rounds} rounds")
    alternating(arguments.rounds, lambda: bare.append(cluster.run_bare_job()), ours)
    progress("")
    print(table(bare, colds, warms) + "\n")
    print(course(colds))
    print(f"\n{warned(colds)}")
    found["load_average_after"] = list(os.getloadavg())
    print(f"\nLoad average of the client's machine after: {loads(found['load_average_after'])}")
    if arguments.json:
        report = {"conditions": found, "bare_job": bare, "cold": colds, "warm": warms}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


# --- what a new process measures


def in_new_process(spec: Any, *arguments: str) -> Json:
    """What a benchmark's module prints when it is run as a program with ``--one``.

    Args:
        spec: the module's ``__spec__``.
        *arguments: for it.
    """
    command = [sys.executable, "-m", spec.name, "--one", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        sys.exit(f"benchmarks: {' '.join(arguments)}: a new process has failed; see above")
    figures: Json = json.loads(done.stdout)
    return figures


def noop() -> None:
    """Nothing."""


def where() -> tuple[str, int]:
    """Which CPU process this is; long enough for another one to take the next call."""
    time.sleep(0.01)
    return os.environ["K8SFUTURES_POD_NAME"], os.getpid()


def warm(pool: str) -> Json:
    """From the constructor to the first result, on pods that are there."""
    start = time.perf_counter()
    from k8sfutures import K8sRabbitExecutor

    constructor = time.perf_counter()
    with K8sRabbitExecutor(pods="kubernetes", pool=pool, warm_for=WARM_FOR) as executor:
        executor.submit(noop).result()
        first = time.perf_counter()
    return {"import": constructor - start, "first_result": first - constructor}


def cold(pool: str) -> Json:
    """From the constructor to the first result, and what happens on the way; in seconds."""
    start = time.perf_counter()
    from k8sfutures import K8sRabbitExecutor

    imported = time.perf_counter()
    from k8sfutures.demand import Demand
    from k8sfutures.session import Session

    stamps = Stamps()
    stamps.wrap(Session, "up", BROKER)
    stamps.wrap(Demand, "nobody", NOBODY)
    by_the_calendar = time.time()
    constructor = time.perf_counter()
    with K8sRabbitExecutor(pods="kubernetes", pool=pool, warm_for=WARM_FOR) as executor:
        future = executor.submit(noop)
        # The constructor has imported it, as it always does; it is not used yet.
        from k8sfutures.pods.kubernetes.api import KubeApi

        stamps.wrap(KubeApi, "__init__", LOADED)
        future.result()
        stamps.note(RESULT)
        cpus = use_every_cpu(executor, stamps)
        stamps.note(EVERY_CPU)
    return {
        "import": imported - start,
        "constructor": by_the_calendar,
        "cpus": cpus,
        "pods": list(stamps.pods),
        "at": {what: when - constructor for what, when in stamps.times.items()},
    }


def use_every_cpu(executor: K8sRabbitExecutor, stamps: Stamps) -> int:
    """Run calls until each CPU of each pod that was asked for has returned one; counts them."""
    if not stamps.pods or not stamps.asked:
        sys.exit("benchmarks: the log records of k8sfutures are not those that this program reads")
    deadline = time.monotonic() + PATIENCE
    seen: set[tuple[str, int]] = set()
    running: set[Future[tuple[str, int]]] = set()
    while len(stamps.pods) < stamps.asked or len(seen) < sum(stamps.pods.values()):
        wanted = sum(stamps.pods.values())
        running |= {executor.submit(where) for _ in range(wanted - len(running))}
        done, running = wait(running, return_when=FIRST_COMPLETED)
        seen |= {future.result() for future in done}
        if time.monotonic() > deadline:
            sys.exit(
                f"benchmarks: {len(seen)} CPUs of {len(stamps.pods)} pods have answered within "
                f"{PATIENCE:g} s, and {stamps.asked} pods were asked for"
            )
    return len(seen)


class Stamps(logging.Handler):
    """When things happen for the first time: by k8sfutures' log, or by a method's return."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.times: dict[str, float] = {}
        self.asked = 0
        self.pods: dict[str, int] = {}
        """CPUs of each pod that has answered."""
        logger = logging.getLogger("k8sfutures")
        logger.setLevel(logging.INFO)
        logger.addHandler(self)

    def note(self, what: str) -> None:
        """It has happened now."""
        self.times.setdefault(what, time.perf_counter())

    def wrap(self, owner: type, method: str, what: str) -> None:
        """It happens when this method returns: there is no log record of it."""
        original: Callable[..., Any] = getattr(owner, method)

        @functools.wraps(original)
        def noting(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            self.note(what)
            return result

        setattr(owner, method, noting)

    def emit(self, record: logging.LogRecord) -> None:
        """Read the log."""
        if record.levelno >= logging.WARNING:
            print(record.getMessage(), file=sys.stderr)
        elif str(record.msg).startswith("asked for pods of pool"):
            self.note(JOBS)
            self.asked += len(record.args[1])  # type: ignore[index,arg-type]
        elif str(record.msg).startswith("pod %s on %s:"):
            self.note(HELLO)
            name, _, cpus = record.args  # type: ignore[misc]
            self.pods[name] = cpus  # type: ignore[index,assignment]


# --- the cluster


class Cluster:
    """The cluster and the namespace that the settings mean, and what is made there."""

    settings: Settings
    api: KubeApi

    def __enter__(self) -> Self:
        from k8sfutures.config import load_settings
        from k8sfutures.pods.kubernetes.api import KubeApi
        from k8sfutures.pods.kubernetes.source import broker_urls

        self.settings = load_settings({})
        broker_urls(self.settings)  # or why no pod could reach it
        wanted = (self.settings.kubeconfig, self.settings.context, self.settings.namespace)
        self.api = KubeApi(*wanted)
        return self

    def __exit__(self, *_: object) -> None:
        self.api.close()

    @contextlib.contextmanager
    def pool(self) -> Iterator[str]:
        """The name of a pool that nobody has used; afterwards its pods go."""
        from k8sfutures.pods.kubernetes.labels import selector_of
        from k8sfutures.pods.kubernetes.pools import delete_pool

        name = f"benchmark-{uuid.uuid4().hex[:8]}"
        try:
            yield name
            self.running(name)
        finally:
            delete_pool(self.settings, name)
            self.wait_until_gone(selector_of(name))

    def pods(self, selector: str) -> tuple[list[Json], str]:
        """The pods with such labels, and the version of that list."""
        path = f"/api/v1/namespaces/{self.api.namespace}/pods"
        return self.api.list(path, labelSelector=selector)

    def wait_until_gone(self, selector: str) -> None:
        """Until the API knows no such pod any more, so that the next start finds CPUs free."""
        deadline = time.monotonic() + PATIENCE
        while left := self.pods(selector)[0]:
            if time.monotonic() > deadline:
                names = ", ".join(pod["metadata"]["name"] for pod in left)
                sys.exit(f"benchmarks: {names} will not go within {PATIENCE:g} s")
            time.sleep(0.1)
        time.sleep(REST)

    def running(self, pool: str) -> list[Json]:
        """The pods of a pool, once the API knows that they run.

        They can answer before their kubelets have said so. A pod that is deleted before that may
        keep its CPUs for a minute (with Kubernetes 1.20), since its kubelet mounts its Secret
        again, which is gone.
        """
        from k8sfutures.pods.kubernetes.labels import selector_of

        deadline = time.monotonic() + PATIENCE
        while True:
            pods, _ = self.pods(selector_of(pool))
            starting = [pod for pod in pods if pod["status"]["phase"] == "Pending"]
            if not starting:
                return pods
            if time.monotonic() > deadline:
                sys.exit(f"benchmarks: {starting[0]['metadata']['name']} does not come to run")
            time.sleep(0.1)

    def run_bare_job(self) -> Json:
        """What a Job takes that does nothing, in seconds since just before its creation."""
        body = bare_job(self.settings)
        name = body["metadata"]["name"]
        path = f"/apis/batch/v1/namespaces/{self.api.namespace}/jobs"
        query = {"fieldSelector": f"metadata.name={name}"}
        _, version = self.api.list(path, **query)
        watch = self.api.watch(path, version, **query)
        # The watch keeps its connection. This opens the next one, which the creation then uses.
        self.api.list(path, **query)
        try:
            by_the_calendar = time.time()
            start = time.perf_counter()
            self.api.create(path, body)
            for event in watch:
                if has_completed(name, event):
                    break
            else:
                sys.exit(f"benchmarks: the watch on Job {name} ended before it was complete")
            completed = time.perf_counter() - start
            (pod,) = self.pods(f"job-name={name}")[0]
        finally:
            watch.stop()
            self.api.delete(f"{path}/{name}")
            self.wait_until_gone(f"job-name={name}")
        return {
            "completed": completed,
            "container_started": started_at(pod, BARE) - by_the_calendar,
        }

    def story(self, pool: str, child: Json) -> dict[str, float]:
        """What the API and the log say of the pod that answered first: seconds, by the calendar."""
        from k8sfutures.pods.kubernetes.labels import CONTAINER as CONTAINER_NAME

        name = child["pods"][0]
        (pod,) = (one for one in self.running(pool) if one["metadata"]["name"] == name)
        path = f"/api/v1/namespaces/{self.api.namespace}/pods"
        query = {"timestamps": "true", "container": CONTAINER_NAME}
        response = self.api._open("GET", f"{path}/{name}/log", query)  # noqa: SLF001
        lines = response.data.decode().splitlines()
        connected = next(line for line in lines if "connected to the broker" in line)
        times = {
            CONTAINER: started_at(pod, CONTAINER_NAME),
            PROGRAM: seconds(lines[0].split()[0]),
            CONNECTED: seconds(connected.split()[0]),
        }
        return {what: when - child["constructor"] for what, when in times.items()}

    def warnings(self, pool: str) -> list[str]:
        """What Kubernetes has warned of while these pods started: the reasons of its events."""
        pods = {pod["metadata"]["name"] for pod in self.running(pool)}
        path = f"/api/v1/namespaces/{self.api.namespace}/events"
        events, _ = self.api.list(path, fieldSelector="involvedObject.kind=Pod,type=Warning")
        return [one["reason"] for one in events if one["involvedObject"]["name"] in pods]

    def offered(self) -> dict[str, int]:
        """CPUs of each node that pods of ours can have now; as the executor itself decides it."""
        from k8sfutures.pods.kubernetes.capacity import read_nodes
        from k8sfutures.pods.kubernetes.placement import place
        from k8sfutures.pods.kubernetes.shape import size_of

        active = "status.phase!=Succeeded,status.phase!=Failed"
        nodes = read_nodes(
            self.api.list("/api/v1/nodes")[0],
            self.api.list("/api/v1/pods", fieldSelector=active)[0],
            [],
            selector=self.settings.node_selector or {},
            tolerations=self.settings.tolerations or (),
        )
        found = {node.name: 0 for node in nodes}
        for placement in place(nodes, size_of(self.settings), None):
            found[placement.node] += len(placement.cpu_ids)
        return found

    def conditions(self) -> Json:
        """What to know before comparing figures with others."""
        from k8sfutures.image import default_image

        from .conditions import conditions

        offered = self.offered()
        found = conditions(self.settings.amqp_url or "", sum(offered.values()))
        found["kubernetes"] = self.api._ask("GET", "/version")["gitVersion"]  # noqa: SLF001
        found["image"] = default_image(self.settings)
        found["image_pull_policy"] = self.settings.image_pull_policy
        found["nodes"] = [
            {
                "name": node["metadata"]["name"],
                "cpus": node["status"]["allocatable"]["cpu"],
                "cpus_offered": offered[node["metadata"]["name"]],
                "kubelet": node["status"]["nodeInfo"]["kubeletVersion"],
                "runtime": node["status"]["nodeInfo"]["containerRuntimeVersion"],
            }
            for node in self.api.list("/api/v1/nodes")[0]
        ]
        return found


def bare_job(settings: Settings) -> Json:
    """The same image with the same pull policy where our pods may run, and nothing else of ours.

    It requests nothing, and mounts nothing; its security context is that of our pods, without
    which some namespaces refuse it.
    """
    from k8sfutures.pods.kubernetes.manifests import USER
    from k8sfutures.pods.kubernetes.shape import pod_spec

    name = f"benchmark-bare-{uuid.uuid4().hex[:8]}"
    spec = pod_spec(settings, name)
    container: Json = {
        "name": BARE,
        "image": spec.image,
        "command": ["python", "-c", "pass"],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if spec.pull_policy is not None:
        container["imagePullPolicy"] = spec.pull_policy
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": dict(spec.node_selector),
        "tolerations": list(spec.tolerations),
        "containers": [container],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "ttlSecondsAfterFinished": 60, "template": {"spec": pod}},
    }


def has_completed(name: str, event: Json) -> bool:
    """Whether a watch on a Job says so; a Job that has failed ends the program."""
    conditions = (event["object"].get("status") or {}).get("conditions") or ()
    if event["type"] in {"ERROR", "DELETED"} or any(
        condition["type"] == "Failed" and condition["status"] == "True" for condition in conditions
    ):
        sys.exit(f"benchmarks: Job {name} did not complete: {event['type']} {conditions}")
    return any(
        condition["type"] == "Complete" and condition["status"] == "True"
        for condition in conditions
    )


def started_at(pod: Json, container: str) -> float:
    """When a container of a pod was started, since 1970; the API knows whole seconds."""
    statuses = pod["status"]["containerStatuses"]
    (status,) = (one for one in statuses if one["name"] == container)
    (state,) = status["state"].values()
    return seconds(state["startedAt"])


def seconds(timestamp: str) -> float:
    """Since 1970, of a time as Kubernetes writes it."""
    return dt.datetime.fromisoformat(timestamp).timestamp()


# --- what is printed


def heading(found: Json) -> str:
    """The conditions, in words."""
    from .side_by_side import loads

    nodes = found["nodes"]
    kinds = {(node["kubelet"], node["runtime"]) for node in nodes}
    names = ", ".join(
        f"{node['name']} {node['cpus']} ({node['cpus_offered']} to be had)" for node in nodes[:8]
    )
    more = f" and {len(nodes) - 8} more" if len(nodes) > 8 else ""
    return (
        f"{found['date']}  client: {found['cpus']} CPUs ({found['cpu_model']}), "
        f"load average {loads(found['load_average'])}\n"
        f"Kubernetes {found['kubernetes']}, nodes of "
        f"{', '.join(sorted(f'kubelet {kubelet}, {runtime}' for kubelet, runtime in kinds))}\n"
        f"CPUs: {names}{more}\n"
        f"image {found['image']}, pull policy {found['image_pull_policy'] or 'the default'}\n"
        f"Python {found['python']}, RabbitMQ {found['rabbitmq']}, "
        f"k8sfutures {found['k8sfutures']}, pika {found['pika']}\n"
    )


def cell(values: Sequence[float]) -> str:
    """The median, with the lowest and the highest."""
    shown = [
        f"{'-' if value < 0 else ''}{number(abs(value))}"
        for value in (statistics.median(values), min(values), max(values))
    ]
    return f"{shown[0]} ({shown[1]} … {shown[2]})"


def table(bare: Sequence[Json], colds: Sequence[Json], warms: Sequence[Json]) -> str:
    """Each figure, and what it is of the bare Job's."""
    floor = statistics.median(one["completed"] for one in bare)
    cpus = "/".join(map(str, sorted({one["cpus"] for one in colds})))
    rows = [("median (lowest … highest)", "times", "", "ratio to a bare Job")]

    def row(name: str, values: list[float], unit: str = "s") -> None:
        scale = {"s": 1.0, "ms": 1e3}[unit]
        ratio = f"{statistics.median(values) / floor:.2f}" if unit == "s" else ""
        measured = cell([value * scale for value in values])
        rows.append((f"{name}, {unit}", str(len(values)), measured, ratio))

    row("bare Job: creation to completion", [one["completed"] for one in bare])
    row("cold: constructor to first result", [one["at"][RESULT] for one in colds])
    row(f"cold: to a result of each of {cpus} CPUs", [one["at"][EVERY_CPU] for one in colds])
    row("warm: constructor to first result", [one["first_result"] for one in warms], "ms")
    row("import of k8sfutures, before it", [one["import"] for one in (*colds, *warms)], "ms")
    return lines_of(rows)


def course(colds: Sequence[Json]) -> str:
    """Where the time of a cold start goes."""
    order = [BROKER, NOBODY, LOADED, JOBS, CONTAINER, PROGRAM, CONNECTED, HELLO, RESULT, EVERY_CPU]
    rows = [("the cold start's course", "s since the constructor")]
    rows += [
        (what, cell(values))
        for what in order
        if (values := [one["at"][what] for one in colds if what in one["at"]])
    ]
    return lines_of(rows)


def warned(colds: Sequence[Json]) -> str:
    """How often Kubernetes has warned of what, as far as it was asked."""
    reasons = Counter(reason for one in colds for reason in one["warnings"])
    counts = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    return f"Warnings of Kubernetes in {len(colds)} cold starts, by reason: {counts or 'none'}"


if __name__ == "__main__":
    main()
