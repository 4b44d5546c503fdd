"""What calls see of their client: as it travels, and what of it travels at all."""

from __future__ import annotations

import dataclasses
import os
import platform
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from k8sfutures.client_surroundings import surroundings_for
from k8sfutures.config import Settings
from k8sfutures.errors import PodsUnavailable
from k8sfutures.sealing import local_key, opened
from k8sfutures.surroundings import Surroundings, unpack

SECRET = Surroundings(["a"], None, None, {b"TOKEN": b"hunter2"}, {b"OTHER": b"hunter2"})


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


def seen(pods, **settings):
    return unpack(surroundings_for(Settings(**settings), pods))


def test_they_come_back_whatever_bytes_the_names_of_files_have():
    sent = Surroundings(["a", "\udc80", "\ud800", "½"], "\udcff.py", "/", {b"\xff": b"\xfe"}, {})
    assert unpack(sent.pack()) == sent


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x90", b"\x01", SECRET.pack()[:-3]])
def test_what_cannot_be_read_is_refused_and_not_shown(body):
    with pytest.raises(ValueError, match="cannot be read") as caught:
        unpack(body)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_no_variable_is_in_a_repr():
    assert "hunter2" not in repr(SECRET)


def test_what_pods_on_this_machine_get(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x.py", Path("y")])
    monkeypatch.setenv("MODE", "fast")
    monkeypatch.setenv("K8SFUTURES_RETRIES", "2")
    for name in ("AMQP_URL", "SECRET", "TLS_KEY", "ENVIRONMENT", "POD_NAME", "NODE", "POD_CONFIG"):
        monkeypatch.setenv(f"K8SFUTURES_{name}", "hunter2")
    got = seen("local", environment={"LEVEL": "½"})
    assert (got.argv, got.directory) == (["x.py", "y"], str(tmp_path))
    assert got.main == getattr(sys.modules["__main__"], "__file__", None)
    assert got.named == {b"LEVEL": "½".encode()}
    assert got.own is not None
    assert got.own[b"MODE"] == b"fast"
    assert got.own[b"K8SFUTURES_RETRIES"] == b"2"
    assert b"hunter2" not in got.own.values()


def test_a_variable_without_a_name_is_left_out(monkeypatch):
    monkeypatch.setitem(os.environ._data, b"", b"x")
    own = seen("local").own
    assert own is not None
    assert b"" not in own


def test_pods_elsewhere_get_what_is_named(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x.py"])
    got = seen("kubernetes", environment={"LEVEL": "1"})
    assert (got.argv, got.directory, got.own, got.named) == (["x.py"], None, None, {b"LEVEL": b"1"})


@pytest.mark.parametrize("url", ["amqp://127.0.0.1:5673", "amqps://broker.example"])
def test_the_environment_is_sealed_on_its_way_through_a_broker_that_may_be_elsewhere(
    monkeypatch, cache, url
):
    monkeypatch.setenv("MODE", "hunter2")
    body = surroundings_for(Settings(amqp_url=url), "local")
    assert b"hunter2" not in body
    assert unpack(opened(body, local_key())).own[b"MODE"] == b"hunter2"
    assert b"hunter2" in surroundings_for(Settings(), "local"), "a private broker is here"
    for key in (None, bytes(32)):
        assert unpack(opened(body, key)) == dataclasses.replace(unpack(body), own=None)


def test_what_is_in_no_seal_stays_as_it_is(cache):
    for body in (None, SECRET.pack(), b"none at all"):
        assert opened(body, local_key()) is body
    short = dataclasses.replace(SECRET, own=b"short").pack()
    assert unpack(opened(short, local_key())).own is None


def test_the_key_of_local_pods_is_its_users_and_made_once(cache):
    with ThreadPoolExecutor(8) as threads:
        (key,) = set(threads.map(lambda _: local_key(), range(8)))
    assert len(key) == 32
    (file,) = cache.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.chmod(0o640)
    with pytest.raises(PodsUnavailable, match=r"local\..*\.key, cannot be .*K8SFUTURES_CACHE_DIR"):
        local_key()
    file.chmod(0o600)
    file.write_bytes(b"cut")
    with pytest.raises(PodsUnavailable, match="has 3 bytes instead of 32; remove it"):
        local_key()


def test_each_machine_has_a_key_of_its_own_though_they_share_the_home_folder(cache, monkeypatch):
    """One's environment has no business on another: its PATH, for one."""
    key = local_key()
    with monkeypatch.context() as patch:
        patch.setattr(platform, "node", lambda: "another")
        assert local_key() != key
    assert local_key() == key


def test_a_working_directory_that_is_gone(monkeypatch, tmp_path):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert seen("local").directory is None
