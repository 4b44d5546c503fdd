"""The local broker: a real RabbitMQ node, and stand-ins for one that fails in a known way."""

import dataclasses
import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest

from k8sfutures import broker, rabbitmq_server
from k8sfutures.address import parse_amqp_url
from k8sfutures.broker import (
    LocalBroker,
    ensure_local_broker,
    local_broker_status,
    stop_local_broker,
)
from k8sfutures.errors import BrokerNotInstalled, BrokerUnreachable
from k8sfutures.machine import start_time

START = "from k8sfutures.broker import ensure_local_broker; print(ensure_local_broker())"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder of the test's own, with a space in its name; what runs in it is stopped."""
    folder = tmp_path / "a cache"
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(folder))
    yield folder
    monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(folder))
    stop_local_broker()
    assert local_broker_status() is None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """One broker, for the tests that do it no harm."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path_factory.mktemp("shared") / "a cache"))
        patch.setenv("A_SECRET_OF_THE_CLIENT", "hunter2")
        ensure_local_broker()
        status = local_broker_status()
        assert status
        try:
            yield status
        finally:
            assert stop_local_broker()


def open_connection(url: str, user: str | None = None, password: str | None = None):
    address = parse_amqp_url(url)
    return pika.BlockingConnection(
        pika.ConnectionParameters(
            address.host,
            address.port,
            address.virtual_host,
            pika.PlainCredentials(user or address.user, password or address.password),
            connection_attempts=1,
        )
    )


def assert_works(url: str) -> None:
    with open_connection(url) as connection:
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"hello")
        assert channel.basic_get(queue, auto_ack=True)[2] == b"hello"


def listening_addresses(pid: int) -> set[tuple[str, int]]:
    """Where a process listens, from the tables of the kernel: (address in hex, port)."""
    links = Path(f"/proc/{pid}/fd").iterdir()
    sockets = {str(link.readlink()) for link in links if link.is_symlink()}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def process_exists(pid: int) -> bool:
    return start_time(pid) is not None


def folder_of(cache: Path) -> Path:
    (folder,) = (cache / "broker").iterdir()
    return folder


@pytest.mark.broker
class TestRunning:
    def test_it_carries_messages(self, running: LocalBroker) -> None:
        assert_works(running.url)

    def test_the_next_call_finds_it(self, running: LocalBroker) -> None:
        assert ensure_local_broker() == running.url
        assert local_broker_status() == running

    def test_so_does_another_process(self, running: LocalBroker) -> None:
        run = subprocess.run([sys.executable, "-c", START], capture_output=True, check=True)
        assert run.stdout.decode().strip() == running.url

    def test_it_is_nobodys_child(self, running: LocalBroker) -> None:
        fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
        parent, group = int(fields[1]), int(fields[2])
        assert parent != os.getpid()
        assert group != os.getpgrp()
        assert os.getsid(running.pid) != os.getsid(0)

    @pytest.mark.parametrize(
        ("user", "password"), [("guest", "guest"), (None, "wrong"), ("other", None)]
    )
    def test_other_logins_are_refused(
        self, running: LocalBroker, user: str | None, password: str | None
    ) -> None:
        with pytest.raises(pika.exceptions.ProbableAuthenticationError):
            open_connection(running.url, user, password)

    def test_it_listens_on_one_port_of_the_loopback_interface(self, running: LocalBroker) -> None:
        port = parse_amqp_url(running.url).port
        assert listening_addresses(running.pid) == {("0100007F", port)}

    def test_no_epmd_was_started(self, running: LocalBroker) -> None:
        session = os.getsid(running.pid)
        names = set()
        for status in Path("/proc").glob("[0-9]*/stat"):
            try:
                text = status.read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(text.rpartition(")")[2].split()[3]) == session:
                names.add(text.partition("(")[2].rpartition(")")[0])
        assert "beam.smp" in names
        assert "epmd" not in names

    def test_what_others_can_see(self, running: LocalBroker) -> None:
        password = parse_amqp_url(running.url).password
        assert password not in running.address
        assert password not in repr(running)
        assert password not in Path(f"/proc/{running.pid}/cmdline").read_text()
        for path in (running.directory, running.directory.parent, running.directory.parent.parent):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        for path in (running.directory.parent / "state.json", running.directory / "rabbitmq.conf"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for path in running.directory.rglob("*"):
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path

    def test_it_has_nothing_of_the_clients_environment(self, running: LocalBroker) -> None:
        assert "hunter2" not in Path(f"/proc/{running.pid}/environ").read_text()

    @pytest.mark.parametrize("spoilt", ["", "{", "[]", '{"pid": 1}', '{"pid": "x"}'])
    def test_a_spoilt_state_file_is_no_broker(self, running: LocalBroker, spoilt: str) -> None:
        state = running.directory.parent / "state.json"
        good = state.read_text()
        try:
            state.write_text(spoilt)
            assert local_broker_status() is None
            assert stop_local_broker() is False
        finally:
            state.write_text(good)
        assert local_broker_status() == running

    def test_a_state_file_that_others_could_write_is_not_trusted(
        self, running: LocalBroker
    ) -> None:
        state = running.directory.parent / "state.json"
        try:
            state.chmod(0o666)
            assert local_broker_status() is None
        finally:
            state.chmod(0o600)


def taken(port: int) -> socket.socket:
    """Listens at a port, as soon as a dead node's helpers have let go of it."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.mark.broker
@pytest.mark.slow
class TestLife:
    def test_two_programs_that_start_at_once_end_with_one(self, cache: Path) -> None:
        programs = [
            subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.PIPE, text=True)
            for _ in range(2)
        ]
        urls = {program.communicate(timeout=90)[0].strip() for program in programs}
        assert urls == {ensure_local_broker()}
        assert len(list(folder_of(cache).glob("k8sfutures-*"))) == 1
        assert_works(urls.pop())

    def test_a_killed_one_is_replaced(self, cache: Path) -> None:
        first = ensure_local_broker()
        status = local_broker_status()
        assert status
        node = broker._read_state(folder_of(cache))
        assert node
        os.kill(status.pid, signal.SIGKILL)
        assert node.ends_within(30)
        second = ensure_local_broker()
        assert second == first, "where those that used it look for it"
        assert_works(second)
        assert local_broker_status() != status
        assert not status.directory.exists()

    def test_one_whose_port_was_taken_meanwhile_is_replaced_elsewhere(self, cache: Path) -> None:
        first = ensure_local_broker()
        node = broker._read_state(folder_of(cache))
        assert node
        os.kill(node.pid, signal.SIGKILL)
        assert node.ends_within(30)
        with taken(node.port):
            second = ensure_local_broker()
        assert parse_amqp_url(second).port != node.port
        assert second != first
        assert_works(second)

    def test_one_that_is_ending_is_replaced(self, cache: Path) -> None:
        first = ensure_local_broker()
        status = local_broker_status()
        assert status
        os.kill(status.pid, signal.SIGTERM)
        port = parse_amqp_url(first).port
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:  # Its port closes before its process ends.
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except OSError:
                break
        second = ensure_local_broker()
        assert not process_exists(status.pid)
        assert_works(second)

    def test_stop(self, cache: Path) -> None:
        url = ensure_local_broker()
        status = local_broker_status()
        assert status
        assert stop_local_broker() is True
        assert not process_exists(status.pid)
        assert local_broker_status() is None
        assert {path.name for path in folder_of(cache).iterdir()} == {"lock", "state.json"}
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", parse_amqp_url(url).port))
        assert stop_local_broker() is False

    def test_one_whose_starter_was_killed_is_found_and_awaited(self, cache: Path) -> None:
        starter = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while (status := local_broker_status()) is None and time.monotonic() < deadline:
            assert starter.poll() is None
        starter.kill()
        starter.wait()
        assert status
        assert ensure_local_broker() == status.url
        assert local_broker_status() == status


FAKE = """#!/bin/sh
echo "$$" >> "{folder}/pids"
{body}
"""


@pytest.fixture
def fake_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a rabbitmq-server of a few shell commands; returns the ids of its processes."""

    def make(body: str):
        folder = tmp_path / "bin"
        folder.mkdir()
        for name, text in {
            "rabbitmq-server": FAKE.format(folder=folder, body=body),
            "rabbitmq-env": "",
            "erl": "#!/bin/sh\n",
        }.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return lambda: [int(pid) for pid in (folder / "pids").read_text().split()]

    return make


class TestFailures:
    def test_none_installed(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rabbitmq_server, "_search_path", lambda: str(cache))
        monkeypatch.setattr(rabbitmq_server, "_SERVERS", "nowhere/*")
        with pytest.raises(BrokerNotInstalled) as caught:
            ensure_local_broker()
        assert "apt-get install rabbitmq-server" in str(caught.value)
        assert "amqp_url" in str(caught.value)

    def test_no_erlang(self, cache: Path, fake_server, monkeypatch: pytest.MonkeyPatch) -> None:
        fake_server("exit 0")
        folder = cache.parent / "bin"
        (folder / "erl").unlink()
        monkeypatch.setattr(rabbitmq_server, "_search_path", lambda: str(folder))
        with pytest.raises(BrokerNotInstalled, match="needs Erlang"):
            ensure_local_broker()

    def test_a_wrapper_is_not_taken_for_the_server(
        self, tmp_path: Path, fake_server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fake_server("exit 0")
        wrappers = tmp_path / "wrappers"
        wrappers.mkdir()
        (wrappers / "rabbitmq-server").write_text("#!/bin/sh\nexit 1\n")
        (wrappers / "rabbitmq-server").chmod(0o755)
        monkeypatch.setenv("PATH", f"{wrappers}:{os.environ['PATH']}")
        assert rabbitmq_server.find_server() == tmp_path / "bin" / "rabbitmq-server"

    def test_it_ends_while_it_starts(self, cache: Path, fake_server) -> None:
        pids = fake_server("echo first; echo 'BOOT FAILED: no luck'; exit 1")
        with pytest.raises(BrokerUnreachable) as caught:
            ensure_local_broker(timeout=20)
        assert "ended while it started" in str(caught.value)
        assert "    BOOT FAILED: no luck" in str(caught.value)
        assert "console.log" in str(caught.value)
        assert len(pids()) == 1
        assert local_broker_status() is None

    def test_it_ends_and_has_nothing_to_say(self, cache: Path, fake_server) -> None:
        fake_server("exit 1")
        with pytest.raises(BrokerUnreachable) as caught:
            ensure_local_broker(timeout=20)
        assert "    nothing is in it; " in str(caught.value)
        assert "MiB are free on the disk" in str(caught.value)

    def test_it_never_accepts(self, cache: Path, fake_server) -> None:
        pids = fake_server("trap '' TERM; echo thinking; while :; do read line < /dev/zero; done")
        with pytest.raises(BrokerUnreachable, match=r"did not accept connections(.|\n)*thinking"):
            ensure_local_broker(timeout=0.2)
        assert not any(process_exists(pid) for pid in pids())
        assert local_broker_status() is None

    def test_one_that_starts_is_stopped_without_waiting_for_it(
        self, cache: Path, fake_server
    ) -> None:
        """It hears no SIGTERM before it has started, and the program that wanted it is gone."""
        pids = fake_server("trap '' TERM; while :; do read line < /dev/zero; done")
        starter = subprocess.Popen([sys.executable, "-c", START], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while local_broker_status() is None and time.monotonic() < deadline:
            assert starter.poll() is None
        starter.kill()
        starter.wait()
        assert stop_local_broker(timeout=3600) is True
        assert not any(process_exists(pid) for pid in pids())

    def test_its_port_is_taken(self, cache: Path, fake_server) -> None:
        pids = fake_server("echo '{error, eaddrinuse}'; exit 1")
        with pytest.raises(BrokerUnreachable, match="eaddrinuse"):
            ensure_local_broker(timeout=20)
        assert len(pids()) == 3

    def test_a_lock_that_is_held(self, cache: Path, fake_server) -> None:
        fake_server("exit 1")
        with pytest.raises(BrokerUnreachable):
            ensure_local_broker()  # Makes the folders.
        lock = folder_of(cache) / "lock"
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            with pytest.raises(BrokerUnreachable, match=r"more than 0\.05 s") as caught:
                ensure_local_broker(timeout=0.05)
        assert str(lock) in str(caught.value)

    def test_a_folder_that_cannot_be(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("K8SFUTURES_CACHE_DIR", str(tmp_path / "file"))
        assert local_broker_status() is None
        assert stop_local_broker() is False
        with pytest.raises(BrokerUnreachable, match="K8SFUTURES_CACHE_DIR") as caught:
            ensure_local_broker()
        assert isinstance(caught.value.__cause__, OSError)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
    def test_a_folder_of_another_user(self, cache: Path) -> None:
        (cache / "broker").mkdir(parents=True)
        os.chown(cache / "broker", 12345, -1)
        with pytest.raises(BrokerUnreachable, match="belongs to another user"):
            ensure_local_broker()

    def test_a_process_that_has_the_number_of_a_dead_one_is_left_alone(
        self, cache: Path, fake_server
    ) -> None:
        fake_server("exit 1")
        with pytest.raises(BrokerUnreachable):
            ensure_local_broker()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            bystander = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
            try:
                port = listener.getsockname()[1]
                node = broker._Node("k8sfutures-00000000", bystander.pid, 1, port, "x")
                state = dataclasses.asdict(node)
                broker._write_private(folder_of(cache) / "state.json", json.dumps(state))
                assert local_broker_status() is None
                with pytest.raises(BrokerUnreachable):
                    ensure_local_broker()
                broker._write_private(folder_of(cache) / "state.json", json.dumps(state))
                assert stop_local_broker() is False
                assert bystander.poll() is None
            finally:
                bystander.communicate(b"\n", timeout=30)
        assert bystander.returncode == 0

    def test_the_cache_folder_is_the_users(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("K8SFUTURES_CACHE_DIR", raising=False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert broker._folder().parent == tmp_path / ".cache" / "k8sfutures" / "broker"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
        assert broker._folder().parent == tmp_path / "x" / "k8sfutures" / "broker"


def test_greets_wants_amqp() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        node = broker._Node("n", 1, 1, listener.getsockname()[1], "x")
        talker = (
            "import socket, sys; s = socket.fromfd(int(sys.argv[1]), 2, 1); c, _ = s.accept(); "
            "c.recv(8); c.sendall(b'HTTP/1.1 400 Bad Request')"
        )
        descriptor = listener.fileno()
        command = [sys.executable, "-c", talker, str(descriptor)]
        with subprocess.Popen(command, pass_fds=[descriptor]):
            assert not node.greets()
    assert not node.greets()
