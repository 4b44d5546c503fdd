"""The local broker: a private RabbitMQ node for the programs of one user on one machine.

It listens on the loopback interface alone, has one user with a random password, keeps its files
in the user's cache folder, and goes on running for the next program until `stop_local_broker`::

    <cache>/k8sfutures/broker/<host>/   mode 0700; per host, as a home folder can be shared
        lock                            held (flock) while a node is started or stopped
        state.json                      mode 0600: the node's process, port, user and password
        k8sfutures-1a2b3c4d/            one node's configuration, data and logs

The state file is written, in one step, as soon as the node's process exists: a program that dies
while it starts a node leaves one that the next program finds and waits for. A process is the node
only if its start time, too, is the recorded one: no other with its number is ever signalled.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import platform
import secrets
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import field
from pathlib import Path
from typing import Final

from .address import parse_amqp_url
from .errors import BrokerUnreachable
from .machine import cache_folder, make_private, start_time
from .rabbitmq_server import CONFIGURATION, HOST, environment, find_server
from .values import dataclass

_USER: Final = "k8sfutures"
_ATTEMPTS: Final = 3  # Each time, another program took the chosen port before the node could.

# Seconds between two looks at what has no event: another program's lock, and the moment at which a
# server that starts accepts connections.
_INTERVAL: Final = 0.02

# Seconds for a node to end that does not serve anybody yet, or any more.
_STARTING: Final = 1.0

# Seconds for which a killed node's helper processes may keep its port.
_LINGERING: Final = 1.0


@dataclass(frozen=True, slots=True)
class LocalBroker:
    """The local broker; ``address`` is ``url`` without the password, ``directory`` its files'."""

    url: str = field(repr=False)
    address: str
    pid: int
    directory: Path


@dataclass(frozen=True, slots=True)
class _Node:
    """One node, as the state file describes it."""

    name: str
    pid: int
    started: int
    port: int
    password: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"amqp://{_USER}:{self.password}@{HOST}:{self.port}/%2F"

    def is_running(self) -> bool:
        return start_time(self.pid) == self.started

    def accepts(self) -> bool:
        """Whether anything accepts connections at its port."""
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, self.port), timeout=1.0).close()
            return True
        return False

    def greets(self) -> bool:
        """Whether it answers a protocol header with the method connection.start."""
        try:
            with socket.create_connection((HOST, self.port), timeout=1.0) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                # A method frame up to its method: type, channel, size, class, method.
                frame = connection.recv(11, socket.MSG_WAITALL)
        except OSError:
            return False
        return frame[:3] == b"\x01\x00\x00" and frame[7:] == b"\x00\x0a\x00\x0a"

    def ends_within(self, seconds: float) -> bool:
        """Waits until it has ended, at most so long, and says whether it has."""
        with contextlib.suppress(ProcessLookupError):
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.is_running():  # So it is this process that the descriptor is of.
                    ended = select.poll()
                    ended.register(descriptor, select.POLLIN)
                    ended.poll(seconds * 1000)
            finally:
                os.close(descriptor)
        return not self.is_running()

    def end(self, seconds: float) -> None:
        """Stops it: cleanly, and after so many seconds with SIGKILL for its whole group."""
        with contextlib.suppress(ProcessLookupError):  # It ended by itself in between.
            if self.is_running():
                os.kill(self.pid, signal.SIGTERM)
            if not self.ends_within(seconds):
                # The group is the session that was made for the node: nobody else is in it.
                os.killpg(os.getpgid(self.pid), signal.SIGKILL)
                self.ends_within(5.0)


def ensure_local_broker(*, timeout: float = 60.0) -> str:
    """Returns the URL of the local broker, and starts it where it does not run.

    Programs that call this at the same moment end with one broker.

    Args:
        timeout: how many seconds a start, of this or another program, can take.

    Returns:
        The AMQP URL, with the password.

    Raises:
        BrokerNotInstalled: there is no RabbitMQ on this machine.
        BrokerUnreachable: it ended while starting, or does not accept connections in time, or
            its files cannot be written. The text has the end of its log, where there is one.
    """
    folder = _folder()
    node = _read_state(folder)
    if node and node.is_running() and node.accepts():
        return node.url
    deadline = time.monotonic() + timeout
    with _files_writable(folder):
        _check_name(folder)
        make_private(folder.parent, folder)
        with _locked(folder, timeout):
            return _found_or_started(folder, deadline).url


def stop_local_broker(timeout: float = 30.0) -> bool:
    """Stops the local broker and removes its files; what is in its queues is lost.

    Args:
        timeout: how many seconds a clean stop can take, before it is killed.

    Returns:
        Whether one was running.

    Raises:
        BrokerUnreachable: another program keeps the broker locked, starting or stopping it, or
            its files cannot be removed.
    """
    folder = _folder()
    if _read_state(folder) is None:
        return False
    with _files_writable(folder), _locked(folder, timeout):
        node = _read_state(folder)
        running = node is not None and node.is_running()
        if node and running:
            # One that still starts hears no signal but the last, and nobody has anything in it.
            node.end(timeout if node.greets() else min(timeout, _STARTING))
        # The state file stays: programs that still use this broker look for it at its address,
        # and one that starts it again does so there.
        _remove_nodes(folder)
    return running


def local_broker_status() -> LocalBroker | None:
    """The local broker, or None where none runs; starts nothing."""
    folder = _folder()
    node = _read_state(folder)
    if node is None or not node.is_running():
        return None
    return LocalBroker(node.url, parse_amqp_url(node.url).safe, node.pid, folder / node.name)


def _folder() -> Path:
    return cache_folder() / "broker" / platform.node()


@contextlib.contextmanager
def _files_writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BrokerUnreachable(
            f"the local broker's files in {folder} cannot be written: {error}. See that the "
            "folder can be written to, or name another cache folder in K8SFUTURES_CACHE_DIR, or "
            "give the setting amqp_url"
        ) from error


def _check_name(folder: Path) -> None:
    try:
        os.fsencode(folder).decode()
    except UnicodeDecodeError as error:
        raise OSError("its name is not in UTF-8, and RabbitMQ does not start there") from error


@contextlib.contextmanager
def _locked(folder: Path, timeout: float) -> Iterator[None]:
    path = folder / "lock"
    deadline = time.monotonic() + timeout
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise BrokerUnreachable(
                        f"another program has been starting or stopping the local broker for more "
                        f"than {timeout:g} s: wait for it, or end it; it holds the lock {path}"
                    ) from None
                # The blocking flock has no time-out, and SIGALRM belongs to the user's program.
                threading.Event().wait(_INTERVAL)
        yield


def _read_state(folder: Path) -> _Node | None:
    """The node that was started last, or None where nothing that can be trusted says so."""
    try:
        with (folder / "state.json").open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_uid != os.geteuid() or status.st_mode & 0o077:
                return None
            state = json.load(file)
        name, password = str(state["name"]), str(state["password"])
        pid, started, port = (int(state[key]) for key in ("pid", "started", "port"))
        return _Node(name, pid, started, port, password)
    except (OSError, ValueError, KeyError, TypeError):
        # None was written yet, or not by this version. What else is wrong with the folder, such
        # as another owner, shows when a node is to be started in it.
        return None


def _write_private(path: Path, text: str) -> None:
    """Writes a file of mode 0600 in one step: nobody ever reads half of it."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _remove_nodes(folder: Path) -> None:
    for leftover in folder.glob("k8sfutures-*"):
        shutil.rmtree(leftover)


def _found_or_started(folder: Path, deadline: float) -> _Node:
    """The node, once it accepts connections. Only under the lock."""
    node = _read_state(folder)
    if node and node.is_running():
        # The program that started it ended before it was ready, or it is just stopping.
        try:
            _wait_until_ready(node, folder, deadline, "stop_local_broker() ends it")
            return node
        except BrokerUnreachable:
            if node.is_running():  # It could be in use: not ours to end.
                raise
    attempts = _ATTEMPTS
    while True:
        node = _start_node(folder, node)
        try:
            _wait_until_ready(node, folder, deadline, "it was ended")
            return node
        except BrokerUnreachable:
            node.end(0)
            (folder / "state.json").unlink(missing_ok=True)
            attempts -= 1
            if not attempts or "eaddrinuse" not in _log(folder / node.name):
                raise
            node = None


def _wait_until_ready(node: _Node, folder: Path, deadline: float, outcome: str) -> None:
    while not node.greets():
        if node.ends_within(_INTERVAL):
            problem = "ended while it started"
        elif time.monotonic() >= deadline:
            problem = f"did not accept connections at {HOST}:{node.port} in time; {outcome}"
        else:
            continue
        directory = folder / node.name
        lines = _log(directory).splitlines()[-15:] or [_nothing_logged(directory)]
        raise BrokerUnreachable(
            f"the local broker (process {node.pid}) {problem}. The end of its log "
            f"({directory / 'console.log'}; more is in {directory / 'log'}):\n"
            + "\n".join(f"    {line}" for line in lines)
        )


def _nothing_logged(directory: Path) -> str:
    free = shutil.disk_usage(directory).free
    return f"nothing is in it; {free / 2**20:.1f} MiB are free on the disk of that folder"


def _log(directory: Path) -> str:
    """What the node wrote before its own logs were set up, and when it could not start."""
    return (directory / "console.log").read_text(encoding="utf-8", errors="replace").rstrip()


def _start_node(folder: Path, previous: _Node | None) -> _Node:
    """Starts a node; after one that was lost, at its address, where its clients look for it."""
    server = find_server()
    _remove_nodes(folder)
    name = f"k8sfutures-{secrets.token_hex(4)}"
    directory = folder / name
    directory.mkdir(mode=0o700)
    port = _free_port(previous.port if previous else 0)
    distribution_port = _free_port(0)
    password = previous.password if previous else secrets.token_hex(24)
    _write_private(
        directory / "rabbitmq.conf",
        CONFIGURATION.format(host=HOST, port=port, user=_USER, password=password),
    )
    _write_private(directory / "enabled_plugins", "[].\n")
    # A shell starts it in the background and is gone: the node is nobody's child here, so it
    # leaves no zombie in a program that outlives it, and its group gets no Ctrl-C.
    shell = subprocess.run(
        ["/bin/sh", "-c", '"$0" </dev/null >console.log 2>&1 & echo "$!"', server],
        env=environment(name, directory, distribution_port),
        cwd=directory,
        umask=0o077,
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    pid = int(shell.stdout)
    # One that has ended already has no start time, and never counts as running.
    node = _Node(name, pid, start_time(pid) or 0, port, password)
    try:
        _write_private(folder / "state.json", json.dumps(dataclasses.asdict(node)))
    except OSError:
        node.end(0)  # Nobody could find it again.
        raise
    return node


def _free_port(wanted: int) -> int:
    """A port that is free: the wanted one, unless another program has it."""
    deadline = time.monotonic() + _LINGERING
    while True:
        try:
            with socket.create_server((HOST, wanted)) as found:
                return int(found.getsockname()[1])
        except OSError:
            if not wanted:
                raise
            if time.monotonic() > deadline:
                wanted = 0
        threading.Event().wait(_INTERVAL)
