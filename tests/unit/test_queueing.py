"""Who waits for CPUs that others have, and what is said of it: once, and who has them."""

import os
import re
import subprocess
import sys

import pytest

from k8sfutures import machine
from k8sfutures.client_names import has_ended, in_words, new_name
from k8sfutures.messages import Attach, Group, Occupied
from k8sfutures.queueing import FRESH, Queueing
from k8sfutures.worker.dispatch import Dispatcher
from k8sfutures.worker.occupancy import WAIT

HOLDER = "client-desk-4242-01234567-0123456789ab"
OTHER = "client-desk-7-01234567-0123456789ab"
SELF = "client-desk-9-01234567-0123456789ab"


# --- at the pod


@pytest.fixture
def dispatcher():
    dispatcher = Dispatcher([0, 1])
    for cpu_id in (0, 1):
        dispatcher.ready(cpu_id)
    for name in (HOLDER, SELF):
        dispatcher.attach(name, Attach(("3", 1, "3"), 0, 60.0, None, None), 0.0)
    return dispatcher


def submit(dispatcher, name, *calls):
    share = (9, [(call, 1, 0, b"") for call in calls])
    dispatcher.group(name, Group(1, {1: b"f"}, [], {}, {}), share, 0.0)


def test_a_client_whose_calls_wait_for_others_is_found_after_a_moment(dispatcher):
    submit(dispatcher, HOLDER, 1, 2, 3)
    submit(dispatcher, SELF, 1)
    assert dispatcher.occupancy.look(10.0) == {}
    assert dispatcher.occupancy.is_scarce
    assert dispatcher.occupancy.look(10.0 + WAIT) == {SELF: {HOLDER: 2}}
    dispatcher.drop(HOLDER, 15)
    assert dispatcher.occupancy.look(15.0) == {}, "its calls are being ended"
    dispatcher.take()
    for cpu_id in (0, 1):
        dispatcher.died(cpu_id, [], [], {})
        dispatcher.ready(cpu_id)
    assert dispatcher.occupancy.look(20.0) == {}
    assert not dispatcher.occupancy.is_scarce


def test_who_has_a_cpu_or_nothing_to_do_waits_for_nobody(dispatcher):
    submit(dispatcher, HOLDER, 1)
    submit(dispatcher, SELF, 1, 2, 3)
    for now in (10.0, 20.0):
        assert dispatcher.occupancy.look(now) == {}


def finish(dispatcher, cpu_id):
    """What runs there ends; the process takes what comes next, if anything does."""
    (token,) = dispatcher._slots[cpu_id].jobs
    dispatcher.frames(cpu_id, [(token, 0, 0, 2_000_000, b"")])


def holders_of(dispatcher):
    return [slot.client.name for slot in dispatcher._slots.values()]


def test_who_takes_turns_with_others_is_not_told_of_waiting(dispatcher):
    """It waits whenever one looks, but each time for a CPU that it has had in between."""
    submit(dispatcher, HOLDER, 1, 2, 3, 4)
    submit(dispatcher, SELF, 1, 2)
    assert holders_of(dispatcher) == [HOLDER, HOLDER]
    assert dispatcher.occupancy.look(10.0) == {}
    finish(dispatcher, 0)
    assert holders_of(dispatcher) == [SELF, HOLDER], "its turn, between two looks"
    finish(dispatcher, 0)
    assert holders_of(dispatcher) == [HOLDER, HOLDER]
    assert dispatcher.occupancy.look(10.0 + WAIT) == {}, "it waits since its turn"
    assert dispatcher.occupancy.look(10.0 + 2 * WAIT) == {SELF: {HOLDER: 2}}


def test_a_client_whose_initializer_has_failed_waits_for_nobody(dispatcher):
    submit(dispatcher, HOLDER, 1, 2)
    submit(dispatcher, SELF, 1)
    dispatcher._clients[SELF].failed = True
    for now in (10.0, 20.0):
        assert dispatcher.occupancy.look(now) == {}


# --- at the client


def occupied(*holders):
    return Occupied([(client, cpus, float(left)) for client, cpus, left in holders])


def test_it_is_said_once_for_each_wait():
    queueing = Queueing()
    message = occupied((HOLDER, 2, -1))
    assert queueing.heard("pod", message, ["pod"], 10.0) == (
        "calls wait: all 2 CPUs of their pod work for another client: process 4242 on desk (2 CPUs)"
    )
    assert queueing.heard("pod", message, ["pod"], 11.0) is None
    assert queueing.heard("pod", message, ["pod"], 11.1 + FRESH), "another wait"


def test_one_cpu_is_not_all_of_them():
    assert Queueing().heard("pod", occupied((HOLDER, 1, -1)), ["pod"], 10.0) == (
        "calls wait: the only CPU of their pod works for another client: process 4242 on desk "
        "(1 CPU)"
    )


def test_when_the_end_of_the_wait_becomes_known_it_is_said():
    queueing = Queueing()
    queueing.heard("pod", occupied((HOLDER, 2, -1)), ["pod"], 10.0)
    said = queueing.heard("pod", occupied((HOLDER, 2, 9.2)), ["pod"], 11.0)
    assert said.endswith(
        "process 4242 on desk (2 CPUs) does not answer, and is given up in 9.2 s unless it does"
    )
    assert queueing.heard("pod", occupied((HOLDER, 2, 8.2)), ["pod"], 12.0) is None


def test_pods_are_counted_together_and_all_must_be_full():
    queueing = Queueing()
    pods = ["a", "b"]
    assert queueing.heard("a", occupied((HOLDER, 2, -1)), pods, 10.0) is None
    said = queueing.heard("b", occupied((HOLDER, 1, -1), (OTHER, 1, 5)), pods, 10.1)
    assert said == (
        "calls wait: all 4 CPUs of their 2 pods work for 2 other clients: process 7 on desk "
        "(1 CPU) does not answer, and is given up in 5 s unless it does; process 4242 on desk "
        "(3 CPUs)"
    )


# --- names


def test_a_client_is_named_by_its_process():
    name = new_name()
    assert name != new_name()
    assert re.fullmatch(r"[A-Za-z0-9.-]{1,100}", name)
    assert re.match(r"process \d+ on ", in_words(name))
    assert in_words("another") == "another"


def test_whether_a_client_has_ended_is_known_of_processes_of_this_machine_alone():
    name = new_name()
    assert not has_ended(name)
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    theirs = name.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    assert has_ended(theirs), "though its parent has not heard of it"
    ended.wait()
    assert has_ended(theirs)
    assert not has_ended("another")


def of_no_process(name):
    return re.sub(r"-\d+-(?=[0-9a-f]{8}-)", f"-{2**22 - 1}-", name)


def test_nor_of_those_of_a_container_with_the_same_host_name():
    if os.geteuid():
        pytest.skip("needs root")
    code = "from k8sfutures.client_names import new_name; print(new_name())"
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = ["unshare", "--pid", "--fork", sys.executable, "-c", code]
    told = subprocess.run(command, env=path, check=True, capture_output=True, text=True).stdout
    assert in_words(told.strip()).partition(" on ")[2] == in_words(new_name()).partition(" on ")[2]
    assert not has_ended(of_no_process(told.strip()))


@pytest.mark.parametrize("what", ["start of the machine", "user"])
def test_nor_of_those_of_another(what, monkeypatch, tmp_path):
    assert has_ended(of_no_process(new_name()))
    with monkeypatch.context() as patch:
        if what == "user":
            patch.setattr(os, "geteuid", lambda: 4242)
        else:
            patch.setattr(machine, "_BOOT", tmp_path / "boot_id")
            machine._BOOT.write_text("another")
        theirs = new_name()
    assert not has_ended(of_no_process(theirs))
