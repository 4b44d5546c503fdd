"""Which CPUs a pod has: those that it was allotted, within what it really got."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.worker import cpus
from k8sfutures.worker.cpus import _online, _quota, available, choose

quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)

MACHINE = set(range(8))

ids = st.integers(0, 15)
cpusets = st.sets(ids, min_size=1)
allotments = st.lists(ids, min_size=1, max_size=16, unique=True)


# --- what was allotted, and what the pod got


@pytest.mark.parametrize(
    ("cpuset", "online", "allotted", "chosen"),
    [
        pytest.param({0, 1, 2}, MACHINE, None, [0, 1, 2], id="nothing was allotted"),
        pytest.param(MACHINE, MACHINE, [5, 2], [5, 2], id="the whole machine, in its order"),
        pytest.param({0, 1}, {0, 1}, [2, 3], [2, 3], id="a node that offers more than it has"),
        pytest.param({4, 5, 6}, MACHINE, [4, 6], [4, 6], id="allotted within what is shared"),
        pytest.param({2, 3, 4}, MACHINE, [0, 2], [0, 2], id="allotted in part without"),
        pytest.param({4, 5}, MACHINE, [1, 5], [5, 4], id="the pod's own, allotted in part"),
        pytest.param({4, 5}, MACHINE, [5, 4], [5, 4], id="the pod's own, in its order"),
        pytest.param({4, 5}, MACHINE, [0, 1], [4, 5], id="the pod's own, allotted elsewhere"),
        pytest.param({4}, MACHINE, [0, 1, 2], [0, 1, 2], id="fewer than allotted"),
        pytest.param({2, 3}, None, [0, 1], [2, 3], id="the pod's own on an unknown machine"),
        pytest.param({2, 3}, None, [0], [0], id="shared on an unknown machine"),
        pytest.param({2, 3}, MACHINE, [], [2, 3], id="an empty allotment"),
    ],
)
def test_the_cpus_of_a_pod(
    cpuset: set[int], online: set[int] | None, allotted: list[int] | None, chosen: list[int]
) -> None:
    assert choose(cpuset, online, allotted) == chosen


@given(cpusets, st.none() | cpusets)
@quick
def test_without_an_allotment_a_pod_has_what_it_got(
    cpuset: set[int], online: set[int] | None
) -> None:
    assert choose(cpuset, online, None) == sorted(cpuset)


@given(cpusets, allotments)
@quick
def test_on_the_whole_machine_the_allotment_stands(online: set[int], allotted: list[int]) -> None:
    assert choose(set(online), online, allotted) == allotted


@given(cpusets, st.none() | cpusets, allotments)
@quick
def test_a_pod_has_as_many_cpu_processes_as_it_was_allotted(
    cpuset: set[int], online: set[int] | None, allotted: list[int]
) -> None:
    chosen = choose(cpuset, online, allotted)
    assert len(chosen) == len(allotted)
    assert len(set(chosen)) == len(chosen)
    kept = [one for one in allotted if one in chosen]
    assert chosen[: len(kept)] == kept  # in its order


@given(cpusets, st.none() | cpusets, allotments)
@quick
def test_what_was_allotted_and_is_there_is_kept(
    cpuset: set[int], online: set[int] | None, allotted: list[int]
) -> None:
    assert cpuset.intersection(allotted) <= set(choose(cpuset, online, allotted))


@st.composite
def nodes(draw: st.DrawFn) -> tuple[set[int], list[list[int]], set[int]]:
    """A machine's CPUs, the allotments of its pods, disjoint as the provisioner makes them, and
    the rest of the machine that pods without CPUs of their own share."""
    online = set(range(draw(st.integers(1, 16))))
    order = draw(st.permutations(sorted(online)))
    sizes = draw(st.lists(st.integers(1, 5), min_size=2, max_size=5))
    pods = []
    for size in sizes:
        pods.append(order[:size])
        order = order[size:]
    shared = draw(st.sets(st.sampled_from(sorted(online)), min_size=1))
    return online, [pod for pod in pods if pod], shared


def pins(chosen: list[int], cpuset: set[int]) -> set[int]:
    """Where CPU processes are pinned: the kernel refuses what is not in the cpuset."""
    return cpuset.intersection(chosen)


@given(nodes())
@quick
def test_pods_that_share_a_cpuset_are_never_pinned_to_one_cpu(
    node: tuple[set[int], list[list[int]], set[int]],
) -> None:
    online, pods, shared = node
    taken: set[int] = set()
    for allotted in pods:
        if len(allotted) == len(shared) and shared != online:
            continue  # which a pod cannot tell from a cpuset of its own
        found = pins(choose(shared, online, allotted), shared)
        assert found == shared.intersection(allotted)
        assert taken.isdisjoint(found)
        taken |= found


@given(nodes(), st.randoms(use_true_random=False))
@quick
def test_pods_with_cpus_of_their_own_are_pinned_to_all_of_these(
    node: tuple[set[int], list[list[int]], set[int]], random: Random
) -> None:
    online, pods, _ = node
    order = sorted(online)
    random.shuffle(order)  # the kubelet chooses, and knows nothing of allotments
    for allotted in pods:
        own, order = set(order[: len(allotted)]), order[len(allotted) :]
        assert pins(choose(own, online, allotted), own) == own


# --- the CPUs of the machine


@pytest.mark.parametrize(
    ("text", "online"),
    [
        ("0\n", {0}),
        ("0-3\n", {0, 1, 2, 3}),
        ("0-1,4,6-7\n", {0, 1, 4, 6, 7}),
        ("\n", None),
        ("all\n", None),
        ("0-\n", {0}),
        ("-3\n", None),
    ],
)
def test_the_cpus_of_the_machine_are_read_from_ranges(
    tmp_path: Path, text: str, online: set[int] | None
) -> None:
    path = tmp_path / "online"
    path.write_text(text)
    assert _online(path) == online


def test_where_the_cpus_of_the_machine_cannot_be_told_they_are_unknown(tmp_path: Path) -> None:
    assert _online(tmp_path / "missing") is None


# --- quotas


def cgroup(root: Path, **files: str) -> Path:
    """A folder as the kernel shows it."""
    names = {
        "maximum": "cpu.max",
        "quota": "cpu/cpu.cfs_quota_us",
        "period": "cpu/cpu.cfs_period_us",
    }
    for name, text in files.items():
        path = root / names[name]
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("max 100000\n", None),
        ("200000 100000\n", 2.0),
        ("150000 100000\n", 1.5),
        ("50000 100000\n", 0.5),
        ("12800 6400\n", 2.0),
        ("\n", None),
    ],
)
def test_the_quota_of_a_cgroup_of_version_2(tmp_path: Path, text: str, quota: float | None) -> None:
    assert _quota(cgroup(tmp_path, maximum=text)) == quota


@pytest.mark.parametrize(("limit", "quota"), [("-1\n", None), ("250000\n", 2.5)])
def test_the_quota_of_a_cgroup_of_version_1(
    tmp_path: Path, limit: str, quota: float | None
) -> None:
    assert _quota(cgroup(tmp_path, quota=limit, period="100000\n")) == quota


def test_without_a_cgroup_there_is_no_quota(tmp_path: Path) -> None:
    assert _quota(tmp_path) is None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 8 CPUs, all of which the pod may run on; returns its cgroup."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(MACHINE))
    (tmp_path / "online").write_text("0-7\n")
    monkeypatch.setattr(cpus, "_ONLINE", tmp_path / "online")
    monkeypatch.setattr(cpus, "_CGROUP", tmp_path)
    return tmp_path


def test_a_pod_has_every_cpu_that_it_may_run_on(machine: Path) -> None:
    assert available() == sorted(MACHINE)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("max 100000", [3, 4, 5, 6]),
        ("900000 100000", [3, 4, 5, 6]),
        ("200000 100000", [3, 4]),
        ("299999 100000", [3, 4]),
        ("50000 100000", [3]),
    ],
)
def test_a_quota_lowers_the_number_of_cpus_and_leaves_one(
    machine: Path, text: str, ids: list[int]
) -> None:
    cgroup(machine, maximum=text)
    assert available([3, 4, 5, 6]) == ids


@pytest.mark.parametrize(("count", "ids"), [(None, [5, 2]), (9, [5, 2]), (1, [5]), (0, [5])])
def test_no_more_cpus_are_used_than_wanted_and_at_least_one(
    machine: Path, count: int | None, ids: list[int]
) -> None:
    assert available([5, 2], count) == ids
