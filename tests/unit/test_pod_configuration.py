"""What a pod is told at its start, and how little is said of it when it is wrong."""

from __future__ import annotations

import json
import platform
import traceback
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.worker import configuration, cpus
from k8sfutures.worker.configuration import AgentConfig, PodConfig

Json = dict[str, Any]
quick = settings(deadline=None, derandomize=True, database=None, max_examples=300)

KEY = bytes(range(16))
PASSWORD = "hidden-password"
URL = f"amqp://user:{PASSWORD}@broker.example:5672/"
SECRETS = (PASSWORD, URL, KEY.hex(), repr(KEY)[2:-1])

LEAST: Json = {"url": URL, "key": KEY.hex(), "pool": "p", "name": "pod-1", "warm_for": 60}
MOST: Json = {
    **LEAST,
    "node": "node-a",
    "cpu_ids": [4, 5, 7],
    "processes": 2,
    "shape": {"image": "worker:1", "worker_processes": 3},
    "pool_cpus": 12,
    "connect_within": 10,
    "record": "/cache/pod-1.json",
}
ON_KUBERNETES = {
    "K8SFUTURES_POD_CONFIG": json.dumps(
        {name: MOST[name] for name in ("pool", "cpu_ids", "warm_for", "shape", "pool_cpus")}
    ),
    "K8SFUTURES_POD_NAME": "pod-of-a-job",
    "K8SFUTURES_NODE": "node-b",
}


@pytest.fixture(autouse=True, scope="module")
def _as_allotted() -> Any:
    """The CPUs of this machine do not matter here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpus, "available", lambda allotted, count: (allotted or [0, 1])[:count])
        yield


def read(given: Any, environ: dict[str, str] | None = None) -> PodConfig:
    return configuration.read(
        given if isinstance(given, str) else json.dumps(given), {} if environ is None else environ
    )


def without(name: str) -> Json:
    return {key: value for key, value in LEAST.items() if key != name}


# --- what it says


def test_a_pod_is_told_everything_in_one_object() -> None:
    assert read(MOST) == PodConfig(
        url=URL,
        pool="p",
        record="/cache/pod-1.json",
        agent=AgentConfig(
            name="pod-1",
            node="node-a",
            key=KEY,
            cpu_ids=[4, 5],
            warm_for=60.0,
            shape={"image": "worker:1", "worker_processes": "3"},
            pool_cpus=12,
            connect_within=10.0,
            is_local=True,
        ),
    )


def test_what_a_pod_need_not_be_told_has_a_default() -> None:
    assert read(LEAST) == PodConfig(
        url=URL,
        pool="p",
        record=None,
        agent=AgentConfig(
            name="pod-1", node=platform.node(), key=KEY, cpu_ids=[0, 1], warm_for=60.0
        ),
    )


def test_what_is_no_secret_may_come_in_the_environment() -> None:
    found = read({"url": URL, "key": KEY.hex()}, ON_KUBERNETES)
    assert (found.url, found.agent.key) == (URL, KEY)
    assert (found.pool, found.agent.name, found.agent.node) == ("p", "pod-of-a-job", "node-b")
    assert (found.agent.cpu_ids, found.agent.pool_cpus) == ([4, 5, 7], 12)


def test_the_file_counts_before_the_environment() -> None:
    found = read(MOST, ON_KUBERNETES)
    assert (found.agent.name, found.agent.node) == ("pod-1", "node-a")


def test_an_empty_variable_counts_as_not_given() -> None:
    environ = {"K8SFUTURES_POD_CONFIG": "", "K8SFUTURES_NODE": ""}
    assert read(LEAST, environ) == read(LEAST)


def test_the_repr_of_a_configuration_shows_no_secret() -> None:
    text = repr(read(MOST))
    assert [secret for secret in SECRETS if secret in text] == []


# --- what is said of one that is wrong


def error_of(given: Any, environ: dict[str, str] | None = None) -> ValueError:
    with pytest.raises(ValueError, match="this is not the configuration that a client") as raised:
        read(given, environ)
    return raised.value


@pytest.mark.parametrize("name", ["url", "key", "pool", "warm_for"])
def test_a_field_that_is_missing_is_named(name: str) -> None:
    assert str(error_of(without(name))).endswith(f"it has no '{name}'")


def test_a_pod_without_a_name_says_which_variable_could_give_it() -> None:
    assert "K8SFUTURES_POD_NAME" in str(error_of(without("name")))


WRONG = {
    "nothing": "",
    "not JSON": f'{{"url": "{URL}", "key": {KEY.hex()}',
    "a URL": URL,
    "a text": json.dumps(URL),
    "a list": json.dumps([URL, KEY.hex()]),
    "a number": "17",
    "null": "null",
    "a key that is not hexadecimal": {**LEAST, "key": f"{KEY.hex()}-"},
    "a key that is half a byte long": {**LEAST, "key": f"{KEY.hex()}0"},
    "a key that is no text": {**LEAST, "key": [KEY.hex()]},
    "a time that is none": {**LEAST, "warm_for": [URL]},
    "a shape that is a list": {**LEAST, "shape": [URL]},
    "a shape that is a text": {**LEAST, "shape": URL},
    "a limit that is a list": {**LEAST, "connect_within": [URL]},
    "a number of CPUs that is a list": {**LEAST, "pool_cpus": [URL]},
}


@pytest.mark.parametrize("given", WRONG.values(), ids=WRONG)
def test_the_error_of_a_bad_configuration_shows_no_secret(given: Any) -> None:
    error = error_of(given)
    shown = "".join(traceback.format_exception(error))
    assert [secret for secret in SECRETS if secret in shown] == []


@pytest.mark.parametrize("text", ["{", "[]", '"p"', "7"])
def test_a_bad_variable_is_a_bad_configuration(text: str) -> None:
    error = error_of(LEAST, {"K8SFUTURES_POD_CONFIG": text})
    shown = "".join(traceback.format_exception(error))
    assert [secret for secret in SECRETS if secret in shown] == []


def test_what_is_not_json_is_told_by_its_place() -> None:
    assert str(error_of('{"url": 1,}')).endswith(
        "it is not JSON: Expecting property name enclosed in double quotes at character 10"
    )


strange = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(MOST)), strange, min_size=1, max_size=3))
@quick
def test_whatever_is_wrong_with_it_the_error_is_a_value_error_without_secrets(wrong: Json) -> None:
    try:
        read({**MOST, **wrong})
    except ValueError as error:
        shown = "".join(traceback.format_exception(error))
        assert [secret for secret in SECRETS if secret in shown] == []


@given(st.integers(0, 400))
@quick
def test_a_file_that_was_cut_off_shows_no_secret(length: int) -> None:
    text = json.dumps(MOST)
    if length < len(text):
        shown = "".join(traceback.format_exception(error_of(text[:length])))
        assert [secret for secret in SECRETS if secret in shown] == []
