"""Whether the kernel has killed for memory: as both versions of cgroups tell."""

import pytest

from k8sfutures.worker.memory import MemoryVerdict


class CgroupV2:
    def __init__(self, root):
        self.root = root
        self.write(0, "max")

    def write(self, kills, limit):
        events = f"low 0\nhigh 0\nmax 9\noom {kills + 2}\noom_kill {kills}\noom_group_kill 0\n"
        (self.root / "memory.events").write_text(events)
        (self.root / "memory.max").write_text(f"{limit}\n")


class CgroupV1:
    def __init__(self, root):
        self.root = root / "memory"
        self.root.mkdir()
        self.write(0, "max")

    def write(self, kills, limit):
        control = f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n"
        (self.root / "memory.oom_control").write_text(control)
        limit = 0x7FFFFFFFFFFFF000 if limit == "max" else limit
        (self.root / "memory.limit_in_bytes").write_text(f"{limit}\n")


@pytest.fixture(params=[CgroupV1, CgroupV2])
def cgroup(request, tmp_path):
    return request.param(tmp_path)


def test_a_kill_is_told_once(cgroup, tmp_path):
    cgroup.write(3, "max")
    verdict = MemoryVerdict(tmp_path)
    assert not verdict.killed(), "those before are others'"
    cgroup.write(4, "max")
    assert verdict.killed()
    assert not verdict.killed()


def test_the_limit_is_told_if_there_is_one(cgroup, tmp_path):
    verdict = MemoryVerdict(tmp_path)
    assert verdict.limit is None
    cgroup.write(0, 128 << 20)
    assert verdict.limit == 128 << 20


def test_where_there_is_no_cgroup_nothing_is_known(tmp_path):
    verdict = MemoryVerdict(tmp_path)
    assert not verdict.killed()
    assert verdict.limit is None
