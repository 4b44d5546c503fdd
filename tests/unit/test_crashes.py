"""From the story of a pod to an exception that says what is known."""

import pickle

import msgpack
import pytest

from k8sfutures.attempts import Attempt
from k8sfutures.crashes import crash_of
from k8sfutures.errors import CallCancelled, CallTimeout, WorkerCrashed

STORY = {
    "pod": "pod-1",
    "node": "node-a",
    "cpu_id": 4,
    "pid": 99,
    "signal": 9,
    "exitcode": None,
    "memory_peak": 300 << 20,
    "memory_limit": 256 << 20,
    "seconds": 12.3,
    "output": "step 1\nstep 2",
    "stack": "",
}


def crash(**changes):
    return crash_of(msgpack.packb(STORY | changes), "simulate")


def test_what_the_kernel_killed_for_memory():
    error = crash(out_of_memory=True)
    assert str(error) == (
        "the CPU process that ran simulate was killed by signal 9 (SIGKILL) after 12 s by the "
        "kernel, because the memory of 256 MiB of its pod was used up (this process had 300 MiB "
        "at its peak): give pods more (setting memory), have fewer calls at once in each "
        "(worker_processes), or let calls use less (pod pod-1, node node-a, CPU id 4, pid 99); "
        "no other call is affected, and the process has been replaced. What it printed last:\n"
        "    step 1\n    step 2"
    )
    assert (error.out_of_memory, error.memory_limit, error.memory_peak) == (
        *(True, 256 << 20, 300 << 20),
    )


def test_what_was_killed_by_someone():
    assert "; out of memory (this process had 300 MiB at its peak), or killed by someone? (" in (
        str(crash())
    )


def test_a_crash_in_native_code():
    error = crash(signal=11, stack="Fatal Python error: Segmentation fault")
    assert ". Where it was:\n    Fatal Python error: Segmentation fault\nWhat it printed" in (
        str(error)
    )
    assert error.stack == "Fatal Python error: Segmentation fault"


def test_what_ran_for_too_long():
    error = crash(ended="timeout", limit=10.0, stack="File f")
    assert type(error) is CallTimeout
    assert str(error) == (
        "simulate was ended, as it ran for longer than timeout=10 s (it ran for 12 s); its CPU "
        "process has been replaced (pod pod-1, node node-a, CPU id 4, pid 99). Where it was:\n"
        "    File f\nWhat it printed last:\n    step 1\n    step 2"
    )
    assert (error.timeout, error.seconds, error.output) == (10.0, 12.3, "step 1\nstep 2")


def test_of_a_map_the_item_is_named():
    for changes in ({}, {"ended": "timeout", "limit": 10.0}, {"ended": "cancelled"}):
        error = crash_of(msgpack.packb(STORY | changes), "simulate", 3)
        assert "item 3 of the map of simulate was " in str(error)


def test_what_was_cancelled():
    error = crash(ended="cancelled")
    assert type(error) is CallCancelled
    assert error.pod == "pod-1"


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({}, "its CPU process was killed by signal 9 (SIGKILL)"),
        ({"ended": "timeout", "limit": 10.0}, "it ran for longer than timeout=10 s"),
    ],
)
def test_a_call_that_ran_once_has_one_attempt(changes, outcome):
    assert crash(**changes).attempts == (Attempt(1, "pod-1", "node-a", 4, 12.3, outcome),)


@pytest.mark.parametrize("changes", [{}, {"ended": "timeout", "limit": 1.0}, {"signal": 11}])
def test_they_pickle_with_all_that_they_know(changes):
    error = crash(**changes)
    twin = pickle.loads(pickle.dumps(error))
    assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))


def test_a_story_with_less_in_it():
    story = {"pod": "p", "cpu_id": 1, "pid": 2, "signal": None, "exitcode": 3}
    error = crash_of(msgpack.packb(story), "f")
    assert type(error) is WorkerCrashed
    assert (error.node, error.seconds, error.stack) == (None, None, "")
