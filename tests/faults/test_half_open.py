"""Connections that are still there at one end, or at both, and carry nothing any more."""

from __future__ import annotations

import os
from pathlib import Path

import faults
import pytest
from namespaces import OWN_NETWORK, why_not

pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(150)]

PROGRAM = """
    import logging, os, threading

    from faults import wait_until, work
    from journal import Journal
    from namespaces import bring_up, drop_packets, local_port

    from k8sfutures import K8sRabbitExecutor
    from k8sfutures.address import parse_amqp_url
    from k8sfutures.broker import ensure_local_broker, stop_local_broker
    from k8sfutures.pods.local import local_pods

    logging.basicConfig(level=logging.WARNING)
    bring_up()
    journal = Journal()
    port = parse_amqp_url(ensure_local_broker(timeout=60)).port


    def lose_packets_of(whose):
        settings = {"pods": "local", "pool": whose, "output": "off"}
        with K8sRabbitExecutor(max_workers=1, **settings) as ex:
            ex.submit(pow, 2, 2).result(60)
            (pod,) = (pod for pod in local_pods() if pod.pool == whose)
            running = ex.submit(work, journal.address, f"{whose}-0", 3)
            journal.wait_for(f"start {whose}-0 .*")
            yield local_port(pod.pid, port), pod
            meanwhile = [
                ex.submit(work, journal.address, f"{whose}-{n}", 0.01) for n in range(1, 50)
            ]
            results = ex.map(abs, range(-50, 0))
            yield
            print(whose, running.result(100), flush=True)
            assert [future.result(100) for future in meanwhile] == [
                f"{whose}-{n}" for n in range(1, 50)
            ]
            assert list(results) == list(range(50, 0, -1))
            assert ex.submit(pow, 2, 3).result(60) == 8
            print(whose, "same" if pod in local_pods() else "another", flush=True)
        yield

    try:
        client = lose_packets_of("client")
        next(client)
        mine = local_port(os.getpid(), port)
        pod = lose_packets_of("pod")
        theirs, _ = next(pod)
        drop_packets(mine)
        drop_packets(theirs)
        for one in (client, pod, client, pod):
            next(one)
        print(len(journal.lines()), flush=True)
    finally:
        journal.close()
        for pod in local_pods():
            os.kill(pod.pid, 9)
        stop_local_broker()
"""


def test_heartbeats_find_connections_whose_packets_are_dropped(program, tmp_path, monkeypatch):
    """A client's, and a pod's; each has had a call running and gets others meanwhile."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(faults.__file__).parent), prepend=os.pathsep)
    running = program(PROGRAM, before=OWN_NETWORK)
    code, out, error = running.end(140)
    assert code == 0, error
    assert out.split("\n") == [
        "client client-0",
        "client same",
        "pod pod-0",
        "pod same",
        f"{2 * 2 * 50}",  # a start and an end of each call: it ran once
        "",
    ]
    assert "heartbeat" in error.lower()
