"""Variables that look like settings and are none."""

from __future__ import annotations

import logging

import pytest

from k8sfutures import environment
from k8sfutures.config import load_settings
from k8sfutures.environment import strange_variables

SETTINGS = ("amqp_url", "worker_processes", "retries")


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("K8SFUTURES_AMPQ_URL", "K8SFUTURES_AMQP_URL"),
        ("K8SFUTURES_WORKER_PROCESSES_", "K8SFUTURES_WORKER_PROCESSES"),
        ("K8SFUTURES_RETRY", "K8SFUTURES_RETRIES"),
        ("k8sfutures_retries", "K8SFUTURES_RETRIES"),
        ("K8SFUTURES_CACHEDIR", "K8SFUTURES_CACHE_DIR"),
    ],
)
def test_a_mistyped_variable_is_named_with_the_nearest_one(variable, nearest):
    (text,) = strange_variables({variable: "x"}, SETTINGS).values()
    assert text == f"the environment variable {variable} is not used: did you mean {nearest}?"


def test_an_argument_of_the_executor_is_said_to_be_one():
    (text,) = strange_variables({"K8SFUTURES_MAX_WORKERS": "2"}, SETTINGS).values()
    assert text.endswith("max_workers is an argument of K8sRabbitExecutor, and no setting")


def test_one_that_is_like_no_other():
    (text,) = strange_variables({"K8SFUTURES_ZZZZZZZZZZZZZZZZZZZ": "x"}, SETTINGS).values()
    assert "no setting has a name like that" in text


def test_what_is_read_and_what_is_not_ours_is_fine():
    fine = ("K8SFUTURES_RETRIES", "K8SFUTURES_CACHE_DIR", "K8SFUTURES_TEST_HOST", "K8S", "PATH")
    assert strange_variables(dict.fromkeys(fine, "x"), SETTINGS) == {}


def test_reading_the_settings_warns_once_and_never_shows_the_value(caplog, monkeypatch, tmp_path):
    monkeypatch.setattr(environment, "_told", set())
    for _ in range(2):
        load_settings({}, environ={"K8SFUTURES_SECRETS": "hunter2"}, start=tmp_path, home=tmp_path)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "K8SFUTURES_SECRETS is not used: did you mean K8SFUTURES_SECRET?" in record.message
    assert "hunter2" not in caplog.text
