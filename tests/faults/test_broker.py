"""What a broker can do to us: nothing is lost, nothing comes twice, and the user is told."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import time

import pytest
from faults import travels, wait_for_end, wait_until, work
from journal import Journal, note, wait_for_word

from k8sfutures import BrokerRefused, CallCancelled, CallTimeout, session
from k8sfutures.address import parse_amqp_url
from k8sfutures.amqp import NAMES
from k8sfutures.pods.local import local_pods, stop_local_pods

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


def square(n):
    return n * n


def say(journal, count, seconds):
    """Prints and logs, and notes in the journal when it has begun and when it is done."""
    note(journal, "begun")
    for number in range(count):
        print("line", number)
        logging.getLogger("app").warning("record %d", number)
        time.sleep(seconds)
    note(journal, "done")


@pytest.fixture
def own(rabbitmq, broker):
    """Executors on a pool of the test's own, at the broker that takes commands."""

    def make(**settings):
        return rabbitmq.executor(amqp_url=broker.url, **settings)

    return make


def safe(broker):
    """Its URL without the password."""
    return parse_amqp_url(broker.url).safe


def queues(broker, kind):
    """Names of the queues of clients, or of pods."""
    listed = broker.control("list_queues", "name", "--no-table-headers").split()
    return [name for name in listed if f".{kind}-" in name]


def delete(broker, queue):
    """As somebody does in the broker's web pages: it is another's, and goes all the same."""
    broker.control("delete_queue", queue)


MUCH = 200_000
"""Lines; 2 MiB of them are kept."""


def print_much(journal):
    note(journal, "begun")
    wait_for_word(journal)
    for number in range(MUCH):
        print("much", number)
    note(journal, "done")


# --- connections


def test_connections_that_are_reset_lose_nothing(rabbitmq, faulty_proxy, journal, caplog):
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        assert ex.submit(square, 2).result() == 4
        pods = rabbitmq.pids()
        futures = [ex.submit(work, journal.address, str(n), 0.002) for n in range(300)]
        for at in (50, 150, 250):
            futures[at].result(30)
            faulty_proxy.reset()  # the client's, and the pod's
        assert [future.result(30) for future in futures] == [str(n) for n in range(300)]
        assert rabbitmq.pids() == pods
    assert sorted(journal.lines()) == sorted(set(journal.lines())), "no call ran twice"
    assert len(journal.lines()) == 600
    assert f"the connection to the broker at {safe(faulty_proxy)} is lost: " in caplog.text


def test_a_broker_that_is_away_while_calls_run_gets_their_results_afterwards(
    rabbitmq, faulty_proxy, journal, caplog
):
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        assert ex.submit(square, 2).result() == 4
        running = ex.submit(work, journal.address, "a", 1)
        journal.wait_for("start a .*")
        faulty_proxy.go_away()
        wait_until(lambda: "trying again" in caplog.text)
        meanwhile = [ex.submit(square, n) for n in range(100)]
        journal.wait_for("end a")
        assert not running.done()
        faulty_proxy.come_back()
        assert running.result(30) == "a"
        assert [future.result(30) for future in meanwhile] == [n * n for n in range(100)]
    assert len(journal.lines()) == 2, "it ran once"
    told = [one.getMessage() for one in caplog.records if "trying again" in one.getMessage()]
    assert len(told) == 1, "once for each time that it is away"
    assert f"the connection to the broker at {safe(faulty_proxy)} is lost: " in told[0]


def test_what_calls_say_while_the_broker_is_away_comes_afterwards(
    rabbitmq, faulty_proxy, journal, caplog, capfd
):
    """And so does what was on its way; that it is back is told, and that it was away, once each."""
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        talking = ex.submit(say, journal.address, 300, 0.005)
        journal.wait_for("begun")
        wait_until(lambda: "record 20" in caplog.text)
        faulty_proxy.go_away()
        wait_until(lambda: "trying again" in caplog.text)
        journal.wait_for("done")
        assert not talking.done()
        faulty_proxy.come_back()
        talking.result(30)
    said = [line.partition(" | ")[2] for line in capfd.readouterr().out.splitlines()]
    assert said == [f"line {number}" for number in range(300)]
    logged = [one.getMessage() for one in caplog.records if one.name == "app"]
    assert [text.partition(" | ")[2] for text in logged] == [f"record {n}" for n in range(300)]
    told = [one.getMessage() for one in caplog.records if "k8sfutures" in one.name]
    address = re.escape(safe(faulty_proxy))
    assert len(told) == 2
    assert re.fullmatch(rf"the connection to the broker at {address} is lost: .*again\)", told[0])
    assert re.fullmatch(rf"the connection to the broker at {address} is back after .* s", told[1])


def test_what_is_too_much_while_the_broker_is_away_is_counted(
    rabbitmq, faulty_proxy, journal, caplog, capfd
):
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        talking = ex.submit(print_much, journal.address)
        journal.wait_for("begun")
        faulty_proxy.go_away()
        wait_until(lambda: "trying again" in caplog.text)
        journal.give_word()
        journal.wait_for("done")
        faulty_proxy.come_back()
        talking.result(30)
    out, error = capfd.readouterr()
    dropped = sum(int(n.replace(",", "")) for n in re.findall(r"([\d,]+) lines dropped", error))
    assert dropped > 0
    assert out.count("| much") + dropped == MUCH


@pytest.mark.slow
def test_a_broker_that_is_away_for_longer_than_the_lease_and_than_pods_stay_unused(
    rabbitmq, faulty_proxy, journal, monkeypatch
):
    monkeypatch.setattr(session, "LEASE", 3.0)  # a minute, else; and so does a local pod stay
    with rabbitmq.executor(amqp_url=faulty_proxy.url, warm_for=3) as ex:
        assert ex.submit(square, 2).result() == 4
        pods = rabbitmq.pids()
        long = ex.submit(work, journal.address, "long", 9)
        short = ex.submit(work, journal.address, "short", 1)
        journal.wait_for("start long .*")
        journal.wait_for("start short .*")
        faulty_proxy.go_away()
        journal.wait_for("end long")
        faulty_proxy.come_back()
        assert (long.result(30), short.result(30)) == ("long", "short")
        assert ex.submit(square, 3).result(30) == 9
        assert rabbitmq.pids() == pods
    assert len(journal.lines()) == 4, "each ran once"


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("away", ["for a minute", "for good"])
def test_a_pod_that_drains_keeps_its_outcomes_for_a_broker_that_is_away_for_a_minute(
    rabbitmq, faulty_proxy, journal, away
):
    """And no longer: it would be in the way of who has ended broker and pods."""
    with rabbitmq.executor(amqp_url=faulty_proxy.url) as ex:
        future = ex.submit(work, journal.address, "a", 1)
        journal.wait_for("start a .*")
        faulty_proxy.go_away()
        journal.wait_for("end a")
        ((name, pid),) = rabbitmq.pids().items()
        assert [pod.name for pod in stop_local_pods(rabbitmq.pool)] == [name]
        wait_until(lambda: not rabbitmq.pids())  # who wants a pod now starts another
        (pod,) = (pod for pod in local_pods() if pod.name == name)
        assert (pod.pid, pod.draining) == (pid, True)
        assert not wait_for_end(pid, 60)
        if away == "for good":
            assert wait_for_end(pid, 60)
            assert name not in [pod.name for pod in local_pods()]
        faulty_proxy.come_back()
        assert future.result(60) == "a"
        assert wait_for_end(pid)
    assert journal.lines().count("end a") == (1 if away == "for a minute" else 2)


@pytest.mark.slow
def test_a_broker_that_goes_again_before_all_pods_are_back_loses_nothing(
    rabbitmq, faulty_proxy, journal, monkeypatch, caplog
):
    """The time that a pod has to come back does not run while it cannot."""
    monkeypatch.setattr(session, "RETURN", 2.0)
    with rabbitmq.executor(amqp_url=faulty_proxy.url, retries=0) as ex:
        assert ex.submit(square, 2).result() == 4
        (pid,) = rabbitmq.pids().values()
        future = ex.submit(work, journal.address, "a", 6)
        journal.wait_for("start a .*")
        os.kill(pid, signal.SIGSTOP)  # so the pod is later than its client
        try:
            faulty_proxy.reset()
            wait_until(lambda: "is back after" in caplog.text)
            faulty_proxy.go_away()
            wait_until(lambda: caplog.text.count("trying again") == 2)
            journal.wait_for("end a")
            faulty_proxy.come_back()
        finally:
            os.kill(pid, signal.SIGCONT)
        assert future.result(30) == "a"
    assert len(journal.lines()) == 2, "it ran once"


@pytest.mark.slow
def test_a_broker_that_restarts_without_its_queues_loses_nothing(own, broker, rabbitmq, journal):
    with own() as ex:
        assert ex.submit(square, 2).result() == 4
        pods = rabbitmq.pids()
        running = ex.submit(work, journal.address, "a", 1)
        journal.wait_for("start a .*")
        broker.restart()
        futures = [ex.submit(square, n) for n in range(100)]
        assert running.result(60) == "a"
        assert [future.result(60) for future in futures] == [n * n for n in range(100)]
        assert rabbitmq.pids() == pods
    assert len(journal.lines()) == 2, "it ran once"


def linger_until(journal, times):
    attempt = note(journal, "attempt")
    if attempt <= times:
        time.sleep(600)
    return attempt


@pytest.mark.slow
def test_limits_retries_and_cancellations_hold_while_the_broker_restarts(own, broker, journal):
    """Limits end while nobody hears of it, and the client cancels what it cannot tell the pod."""
    with contextlib.closing(Journal()) as attempts, own() as ex:
        assert ex.submit(square, 2).result() == 4
        limited = ex.options(timeout=1).submit(work, journal.address, "limited", 600)
        journal.wait_for("start limited .*")
        if os.cpu_count() > 1:
            cancelled = ex.submit(work, journal.address, "cancelled", 600)
            journal.wait_for("start cancelled .*")
        view = ex.options(timeout=0.5, retries=5, retry_on=CallTimeout)
        again = view.submit(linger_until, attempts.address, 2)
        broker.stop()
        if os.cpu_count() > 1:
            assert ex.cancel(cancelled, running=True)
            assert type(cancelled.exception(0)) is CallCancelled
        in_time = ex.options(timeout=30).map(square, range(100))
        broker.start()
        assert list(in_time) == [n * n for n in range(100)]
        error = limited.exception(60)
        assert type(error) is CallTimeout
        assert error.seconds >= error.timeout == 1
        travels(error)
        assert again.result(60) == 3
        # Every process is free again.
        futures = [ex.submit(work, journal.address, str(n), 0.05) for n in range(20)]
        assert [future.result(60) for future in futures] == [str(n) for n in range(20)]
    starts = [line.split()[1] for line in journal.lines() if line.startswith("start")]
    assert len(starts) == len(set(starts)), "no call ran twice"


# --- queues


@pytest.mark.parametrize("kind", ["client", "pod"])
def test_a_queue_that_is_deleted_by_hand_is_made_again(own, broker, journal, caplog, kind):
    with own() as ex:
        assert ex.submit(square, 2).result() == 4
        futures = [ex.submit(work, journal.address, str(n), 0.1) for n in range(20)]
        journal.wait_for("start 3 .*")
        (queue,) = queues(broker, kind)
        delete(broker, queue)
        assert [future.result(30) for future in futures] == [str(n) for n in range(20)]
        assert ex.submit(square, 3).result(30) == 9
        wait_until(lambda: queues(broker, kind) == [queue])
    assert len(journal.lines()) == 40, "each ran once"
    if kind == "client":
        assert f"the queue {queue} was deleted at the broker" in caplog.text


# --- memory


@pytest.fixture
def alarm(broker):
    """Sets off and ends the broker's memory alarm."""

    def set_off(on):
        broker.control("set_vm_memory_high_watermark", *(("absolute", "1") if on else ("0.4",)))

    yield set_off
    set_off(False)


def test_a_broker_without_memory_holds_up_calls_and_says_so(own, alarm, caplog):
    with own() as ex:
        assert ex.submit(square, 2).result() == 4
        alarm(True)
        futures = [ex.submit(square, n) for n in range(100)]
        wait_until(lambda: "accepts no messages (low on memory)" in caplog.text)
        assert not any(future.done() for future in futures)
        alarm(False)
        assert [future.result(30) for future in futures] == [n * n for n in range(100)]
        assert "accepts messages again" in caplog.text


@pytest.mark.slow
def test_an_alarm_that_lasts_longer_than_the_lease_ends_no_call(
    own, alarm, journal, caplog, monkeypatch
):
    monkeypatch.setattr(session, "LEASE", 5.0)  # the pod is told of the alarm after 3 s
    with own() as ex:
        assert ex.submit(square, 2).result() == 4
        running = ex.submit(work, journal.address, "a", 10)
        journal.wait_for("start a .*")
        alarm(True)
        wait_until(lambda: "accepts no messages" in caplog.text)
        journal.wait_for("end a")
        alarm(False)
        assert running.result(30) == "a"
    assert len(journal.lines()) == 2, "it ran once"


@pytest.mark.slow
def test_a_start_at_a_broker_without_memory_says_what_it_waited_for(own, alarm):
    alarm(True)
    with own(startup_timeout=2) as ex:
        error = ex.submit(square, 2).exception(30)
    assert "no pod of pool" in str(error)
    assert "the broker accepts no messages (low on memory)" in str(error)
    travels(error)


# --- credentials


@pytest.mark.parametrize(
    "how",
    [
        "password changed",
        "permissions taken",
        *(pytest.param(how, marks=pytest.mark.slow) for how in ("user deleted", "host taken")),
    ],
)
def test_credentials_that_are_revoked_are_an_error_of_every_future(
    own, broker, rabbitmq, journal, how
):
    broker.control("add_user", "somebody", "first")
    broker.control("set_permissions", "somebody", ".*", ".*", ".*")
    url = broker.url.replace(f"tests:{broker.password}", "somebody:first")
    try:
        with rabbitmq.executor(amqp_url=url) as ex:
            assert ex.submit(square, 2).result() == 4
            (pod,) = rabbitmq.pids().values()
            running = ex.submit(work, journal.address, "a", 60)
            waiting = [ex.submit(work, journal.address, str(n), 60) for n in range(10)]
            results = ex.map(work, [journal.address], ["m"], [60])
            process = int(journal.wait_for(r"start a (\d+)")[1])
            if how == "user deleted":
                broker.control("delete_user", "somebody")
            elif how == "permissions taken":
                broker.control("set_permissions", "somebody", "^$", "^$", "^$")
            elif how == "host taken":
                broker.control("clear_permissions", "somebody")
            else:
                broker.control("change_password", "somebody", "second")
            broker.control("close_all_connections", "--vhost", "/", "maintenance")
            for wait in (running.result, *(future.result for future in waiting), results.__next__):
                with pytest.raises(BrokerRefused) as caught:
                    wait()
            with pytest.raises(BrokerRefused, match="check the setting amqp_url"):
                ex.submit(square, 2)
        for word in ("'somebody'", parse_amqp_url(url).safe, "amqp_url"):
            assert word in str(caught.value)
        assert "first" not in str(caught.value)
        travels(caught.value)
        assert wait_for_end(pod), "the pod cannot come back either"
        assert wait_for_end(process), "and what ran there ends with it"
    finally:
        if how != "user deleted":
            broker.control("delete_user", "somebody")


def test_a_user_needs_permissions_for_our_names_alone(rabbitmq, broker):
    broker.control("add_user", "modest", "first")
    url = broker.url.replace(f"tests:{broker.password}", "modest:first")
    try:
        broker.control("set_permissions", "modest", NAMES, "^$", NAMES)
        with rabbitmq.executor(amqp_url=url) as ex:
            error = ex.submit(square, 2).exception(30)
        assert type(error) is BrokerRefused
        assert f"'{NAMES}'" in str(error)
        wait_until(lambda: not rabbitmq.pids(), "the end of the pod, which has no other user")
        broker.control("set_permissions", "modest", NAMES, NAMES, NAMES)
        with rabbitmq.executor(amqp_url=url) as ex:
            assert list(ex.map(square, range(100))) == [n * n for n in range(100)]
    finally:
        broker.control("delete_user", "modest")
