"""Everything at once, and everything breaks: see `benchmarks.chaos`, run as anyone can run it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace

import pytest

from k8sfutures import CallTimeout

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.broker
@pytest.mark.timeout(540)  # where something hangs, it says so itself after 240 s
def test_a_short_soak_loses_nothing_and_leaves_nothing_behind():
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.chaos", "--minutes=0.6", "--seed=1"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=520,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "lost: 0   duplicated: 0   hangs: 0" in run.stdout
    assert "violations: 0" in run.stdout


@pytest.fixture
def chaos(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.chaos import report

    return report


USAGE = {"memory": 40_000, "files": 13, "threads": 1}


def judged(chaos, tmp_path, *, said=(), ran=(), killed=(), refused=(), after=USAGE, meanwhile=()):
    """What the soak says of a client that has said this, and whose calls ran so often."""
    said = [{"kind": "quiet", **USAGE}, *said]
    client = SimpleNamespace(
        name="client0",
        log=tmp_path,
        was_killed=False,
        of=lambda kind: (item for item in said if item["kind"] == kind),
        last=lambda kind: {},
        unfinished=list,
    )
    world = SimpleNamespace(
        clients=[client],
        was_killed=lambda pod, pid: pid in killed,
        refused=set(refused),
        struck_pods=set(),
        poisoned=set,
        executions=lambda name: Counter(dict(ran)),
        say=print,
    )
    report = chaos.Report(1, before=USAGE, after=after, meanwhile=list(meanwhile))
    report.judge(world)
    return report.violations


def done(*row):
    return {"kind": "done", "what": "burst", "first": 1, "count": 3, "rows": [row]}


def test_a_call_that_never_ran_and_one_that_ran_twice_would_be_seen(chaos, tmp_path):
    assert judged(chaos, tmp_path, said=[done(1, 3, 1, 1)], ran={1: 1, 2: 1, 3: 1}.items()) == []
    assert judged(chaos, tmp_path, said=[done(1, 3, 1, 1)], ran={1: 2, 2: 1}.items()) == [
        "client0: call 1 (burst) ran 2 times, 1 at most were right",
        "client0: call 3 never ran",
    ]
    assert judged(chaos, tmp_path, said=[done(1, 3, 1, 2)], ran={1: 2, 2: 1, 3: 1}.items()) == []


def test_a_process_that_nobody_killed_would_be_seen(chaos, tmp_path):
    crash = {"kind": "crashed", "number": 1, "pid": 77, "pod": "pod-1"}
    assert judged(chaos, tmp_path, said=[crash], killed=[77]) == []
    assert "nobody has killed" in judged(chaos, tmp_path, said=[crash])[0]
    assert "2 calls have failed" in judged(chaos, tmp_path, said=[crash] * 2, killed=[77])[0]


def test_a_refusal_that_nobody_brought_about_would_be_seen(chaos, tmp_path):
    refused = {"kind": "refused", "words": "no"}
    assert "nobody has revoked" in judged(chaos, tmp_path, said=[refused])[0]
    assert judged(chaos, tmp_path, said=[refused], refused={"client0"}) == []


class Answers:
    """An executor each of whose calls has been answered; cancelling says that it is cancelled."""

    def __init__(self, answer):
        self._answer = answer

    def options(self, **_):
        return self

    def submit(self, function, number, *_):
        future = Future()
        answer = self._answer(function, number)
        put = future.set_exception if isinstance(answer, Exception) else future.set_result
        put(answer)
        return future

    def cancel(self, _future, *, running):
        return running


class Chosen(random.Random):
    """Chooses as many as it can; with this seed, no maps."""

    def __init__(self):
        super().__init__(1)

    def randint(self, _low, high):
        return high


TIMED_OUT = {"pod": "pod-1", "timeout": Chosen().uniform(0.2, 2)}


@pytest.mark.parametrize(
    ("kind", "answer", "words"),
    [
        ("limited", lambda call, number: number, "ended with None"),
        ("limited", lambda call, number: ValueError("mine"), "ended with ValueError"),
        (
            "limited",
            lambda call, number: CallTimeout("early", seconds=0.1, **TIMED_OUT),
            "'seconds': 0.1",
        ),
        ("ended", lambda call, number: number * number, "said True"),
        ("retried", lambda call, number: 0, "was to succeed after|ended with None"),
    ],
)
def test_an_outcome_that_is_not_what_was_chosen_would_be_seen(chaos, kind, answer, words):
    from benchmarks.chaos import chosen, client

    checks = chosen.ChosenKinds(client, "", print)
    with pytest.raises(chosen.Violation, match=words):
        getattr(checks, kind)(Answers(answer), Chosen(), range(3))


def test_an_agent_that_has_grown_would_be_seen(chaos, tmp_path):
    for grown in ({"files": 30}, {"memory": 400_000}):
        (told,) = judged(chaos, tmp_path, after={**USAGE, **grown})
        assert told.startswith("the agent has more")
    assert judged(chaos, tmp_path, after={}) == ["the agent that was to be measured is gone"]


def test_an_agent_that_grows_as_long_as_it_works_would_be_seen(chaos, tmp_path):
    first = [{**USAGE, "memory": 40_000 + 10_000 * look} for look in range(10)]
    flat = [*first, *[{**USAGE, "memory": 130_000}] * 20]
    grows = [{**USAGE, "memory": 40_000 + 5_000 * look} for look in range(30)]
    assert judged(chaos, tmp_path, meanwhile=flat) == []
    (told,) = judged(chaos, tmp_path, meanwhile=grows)
    assert told.startswith("the agent's memory is not flat")


def test_calls_on_a_cluster_are_counted_over_the_network(chaos):
    from benchmarks.chaos import client, cluster

    ledger = cluster.Ledger("127.0.0.1")
    before, client.LEDGER = client.LEDGER, f"127.0.0.1:{ledger.port}"
    try:
        assert [client.attempt(number) for number in (7, 8, 7)] == [1, 1, 2]
    finally:
        client.LEDGER = before
    assert ledger.counted == {7: 2, 8: 1}
