"""The zygote as its agent sees it, when somebody has killed it: a real one."""

from __future__ import annotations

import os
import select
import signal

import pytest

from k8sfutures.place import Place
from k8sfutures.worker.parentage import execute_zygote, fork_zygote
from k8sfutures.worker.processes import Channels, ZygoteHandle
from k8sfutures.worker.reports import ZygoteKilled


@pytest.fixture(params=[execute_zygote, fork_zygote])
def zygote(request):
    handle = ZygoteHandle(*request.param())
    yield handle
    handle.close()


def test_one_that_was_killed_as_it_started(zygote):
    os.kill(zygote._child.pid, signal.SIGKILL)
    zygote._child.wait(10)
    channels = Channels(Place("pod", "node", 0))
    zygote.spawn(channels)
    channels.close()
    select.select([zygote.control], [], [], 10)
    assert zygote.read() is None
    died = zygote.how_it_died()
    assert isinstance(died, ZygoteKilled)
    assert str(died) == "signal 9 has ended the zygote of the CPU processes"


def test_where_python_cannot_wait_for_the_end_of_one_process(monkeypatch):
    """As in builds of it against an old C library, and on kernels before 5.3."""
    monkeypatch.delattr(os, "pidfd_open")
    handle = ZygoteHandle(*fork_zygote())
    handle.close()
    assert handle._child.wait(0) == 0


def test_one_that_ended_by_itself(zygote):
    zygote.control.shutdown(1)  # as if the agent were gone
    select.select([zygote.control], [], [], 10)
    assert zygote.read() is None
    died = zygote.how_it_died()
    assert not isinstance(died, ZygoteKilled)
    assert str(died) == "the zygote of the CPU processes ended with exit code 0"
