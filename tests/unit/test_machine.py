"""Machines on which something is missing that one takes for granted: what is said of it."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from k8sfutures import cli
from k8sfutures.broker import ensure_local_broker
from k8sfutures.config import load_settings, pool_name, resolve_pods
from k8sfutures.errors import BrokerUnreachable, SettingValueError
from k8sfutures.machine import cache_folder, expanded, home_folder, is_file

TOO_LONG = "x" * 300
"""No file can have this name, so to look for one is an error, as in a folder that is closed."""


@pytest.fixture
def no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in containers that run as a user of whom the image knows nothing."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in (
        *("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "K8SFUTURES_CACHE_DIR", "KUBECONFIG"),
        *("LOGNAME", "USER", "LNAME", "USERNAME"),
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("no_home")
def test_who_has_no_home_folder_has_settings_and_local_pods_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home_folder() is None
    settings = load_settings({}, start=tmp_path)
    assert resolve_pods(settings, {}) == "local"
    assert f"uid{os.getuid()}" in pool_name(settings, "local")
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.usefixtures("no_home")
@pytest.mark.parametrize("command", ["broker status", "pods list", "pool list --pods local"])
def test_who_has_no_home_folder_is_asked_for_a_cache_folder(
    capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert cli.main(command.split()) == 1
    assert capsys.readouterr().err == (
        "k8sfutures: this user has no home folder (no HOME, and no entry among the machine's "
        "users), so there is none for files of the local broker and of local pods: name one in "
        "K8SFUTURES_CACHE_DIR\n"
    )


def test_the_home_folder_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    given = "~nobody-has-this-name/x"
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", given)
    with pytest.raises(SettingValueError, match=f"K8SFUTURES_CACHE_DIR .which is '{given}' now"):
        cache_folder()
    for name in ("tls_ca", "kubeconfig"):
        with pytest.raises(SettingValueError, match=f"{name}='{given}'"):
            load_settings({name: given})
    assert expanded(given) == Path(given)


def test_folders_in_which_one_may_not_look_have_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_file(tmp_path / TOO_LONG)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / TOO_LONG))
    settings = load_settings({}, home=tmp_path / TOO_LONG, start=tmp_path / TOO_LONG)
    assert resolve_pods(settings, {}, home=tmp_path / TOO_LONG) == "local"


def test_local_pods_whose_files_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path / TOO_LONG))
    for command in ("pods list", "pods stop", "pool list --pods local"):
        assert cli.main(command.split()) == 1
        assert "name another cache folder in K8SFUTURES_CACHE_DIR\n" in capsys.readouterr().err


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    source = """if True:
        import os, sys
        from k8sfutures.client_surroundings import surroundings_for
        from k8sfutures.config import load_settings, pool_name
        from k8sfutures.surroundings import unpack

        os.rmdir(os.getcwd())
        settings = load_settings({})
        print(pool_name(settings, "local").startswith("local-"))
        print(unpack(surroundings_for(settings, "local")).directory)
    """
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=tmp_path / "gone",
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("True\nNone\n", "")


def test_a_local_broker_in_a_folder_whose_name_is_no_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Erlang's code server does not start there, and nothing would say so for a minute."""
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", os.fsdecode(bytes(tmp_path) + b"/\xff"))
    with pytest.raises(BrokerUnreachable, match="its name is not in UTF-8"):
        ensure_local_broker()
