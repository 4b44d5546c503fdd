"""Client and pods together, under faults by the thousand: nothing is lost, nothing runs twice."""

from __future__ import annotations

import logging

import pytest
import simulation

STEPS = 600


@pytest.fixture
def clock(monkeypatch, caplog):
    caplog.set_level(logging.CRITICAL, logger="k8sfutures")
    return simulation.install(monkeypatch)


@pytest.mark.parametrize("seed", range(12))
def test_each_call_runs_once_while_connections_and_the_broker_come_and_go(clock, seed):
    """And while pods drain, processes die, and calls are cancelled, time out and are retried."""
    running = simulation.Simulation(seed, clock, cruel=False)
    for _ in range(STEPS):
        running.step()
    running.finish()


@pytest.mark.parametrize("seed", range(8))
def test_each_call_comes_to_its_end_while_pods_are_killed_and_given_up(clock, seed):
    running = simulation.Simulation(seed, clock, cruel=True)
    for _ in range(STEPS):
        running.step()
    running.finish()
