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
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from .address import parse_amqp_url
from .errors import BrokerNotInstalled, BrokerUnreachable
from .machine import cache_folder, start_time

_HOST: Final = "127.0.0.1"
_USER: Final = "k8sfutures"
_ATTEMPTS: Final = 3  # Each time, another program took the chosen port before the node could.

# Seconds between two looks at what has no event: another program's lock, and the moment at which a
# server that starts accepts connections.
_INTERVAL: Final = 0.02

# Where the server's own script is on Debian. Its /usr/sbin/rabbitmq-server is a wrapper that runs
# it as another user, and refuses to for anyone but that user and root.
_SERVERS: Final = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"

_CONFIGURATION: Final = """\
listeners.tcp.1 = {host}:{port}
default_user = {user}
default_pass = {password}
disk_free_limit.absolute = 50MB
log.console = false
log.file = broker.log
log.file.level = info
log.file.rotation.size = 10485760
log.file.rotation.count = 1
"""

# For every Erlang program of the node, its helpers included. No epmd (a daemon that would outlive
# the node, on a port shared by the whole machine) and no port for other Erlang nodes: a lone node
# needs neither. An Erlang that does not know dist_listen yet listens on the loopback interface;
# OTP 27 has another name for the port that epmd would be asked for.
_ALL_ERLANG: Final = (
    "-start_epmd false -dist_listen false -kernel inet_dist_use_interface {{127,0,0,1}} "
    "-erl_epmd_port {port} -kernel erl_epmd_node_listen_port {port}"
)

# The node shares its CPUs with the CPU processes, so its schedulers are few, not bound to CPUs,
# and do not spin while they wait; those for files do, a little: they matter only at the start,
# where they are woken for each of thousands of module look-ups.
# RabbitMQ 3.10 on Erlang 25, 2 CPUs; round trip of one connection, publish to delivery:
#                       start, s    p50, idle CPUs    p50, both CPUs busy    CPU per message
#   none spin           2.3 to 5.4  0.14 to 0.18 ms   0.14 to 0.16 ms        100 to 113 us
#   all spin, briefly   2.1 to 2.5  0.15 to 0.19 ms   0.14 to 0.36 ms        120 to 173 us
#   all spin, medium    1.9 to 2.5  0.13 ms           0.56 ms                167 us
#   only those of files 2.3 to 3.3  0.14 to 0.18 ms   0.14 to 0.16 ms         87 to 100 us
# One scheduler instead of two made none of these better.
_SCHEDULERS: Final = min(os.cpu_count() or 1, 4)
_NODE_ERLANG: Final = (
    f"-noinput +S {_SCHEDULERS}:{_SCHEDULERS} +stbt u +sbwt none +sbwtdcpu none +sbwtdio very_short"
)


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
        return f"amqp://{_USER}:{self.password}@{_HOST}:{self.port}/%2F"

    def is_running(self) -> bool:
        return start_time(self.pid) == self.started

    def accepts(self) -> bool:
        """Whether anything accepts connections at its port."""
        with contextlib.suppress(OSError):
            socket.create_connection((_HOST, self.port), timeout=1.0).close()
            return True
        return False

    def greets(self) -> bool:
        """Whether it answers a protocol header with the method connection.start."""
        try:
            with socket.create_connection((_HOST, self.port), timeout=1.0) as connection:
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
        _make_private(folder)
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
            node.end(timeout)
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
            f"the local broker's files in {folder} cannot be written: {error}. Make the folder "
            "writable, or name another cache folder in K8SFUTURES_CACHE_DIR, or give the setting "
            "amqp_url"
        ) from error


def _make_private(folder: Path) -> None:
    for path in (folder.parent, folder):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Whoever else could write here could have us send our work to a broker of theirs.
        if path.stat().st_uid != os.geteuid():
            raise PermissionError(f"{path} belongs to another user")
        path.chmod(0o700)


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
                        f"than {timeout:g} s: it holds the lock {path}"
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
    (folder / "state.json").unlink(missing_ok=True)
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
            problem = f"did not accept connections at {_HOST}:{node.port} in time; {outcome}"
        else:
            continue
        directory = folder / node.name
        lines = _log(directory).splitlines()[-15:]
        raise BrokerUnreachable(
            f"the local broker (process {node.pid}) {problem}. The end of its log "
            f"({directory / 'console.log'}; more is in {directory / 'log'}):\n"
            + "\n".join(f"    {line}" for line in lines)
        )


def _log(directory: Path) -> str:
    """What the node wrote before its own logs were set up, and when it could not start."""
    return (directory / "console.log").read_text(encoding="utf-8", errors="replace").rstrip()


def _start_node(folder: Path, previous: _Node | None) -> _Node:
    """Starts a node; after one that was lost, at its address, where its clients look for it."""
    server = _find_server()
    _remove_nodes(folder)
    name = f"k8sfutures-{secrets.token_hex(4)}"
    directory = folder / name
    directory.mkdir(mode=0o700)
    port = _free_port(previous.port if previous else 0)
    distribution_port = _free_port(0)
    password = previous.password if previous else secrets.token_hex(24)
    _write_private(
        directory / "rabbitmq.conf",
        _CONFIGURATION.format(host=_HOST, port=port, user=_USER, password=password),
    )
    _write_private(directory / "enabled_plugins", "[].\n")
    # A shell starts it in the background and is gone: the node is nobody's child here, so it
    # leaves no zombie in a program that outlives it, and its group gets no Ctrl-C.
    shell = subprocess.run(
        ["/bin/sh", "-c", '"$0" </dev/null >console.log 2>&1 & echo "$!"', server],
        env=_environment(name, directory, distribution_port),
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
    try:
        with socket.create_server((_HOST, wanted)) as found:
            return int(found.getsockname()[1])
    except OSError:
        if not wanted:
            raise
        return _free_port(0)


def _environment(name: str, directory: Path, distribution_port: int) -> Mapping[str, str]:
    """The node's environment: nothing of ours, nor of a RabbitMQ that this machine itself runs."""
    return {
        "PATH": _search_path(),
        "LANG": "C.UTF-8",
        "HOME": str(directory),  # Where Erlang keeps its cookie.
        "ERL_AFLAGS": _ALL_ERLANG.format(port=distribution_port),
        "ERL_CRASH_DUMP_SECONDS": "0",
        "ERL_EPMD_ADDRESS": _HOST,
        # RabbitMQ tells epmd of itself once a minute. Nobody listens there, so no other epmd hears.
        "ERL_EPMD_PORT": "1",
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(directory / "advanced.config"),
        # Has the script become the server, instead of its parent: one process, one signal.
        "RABBITMQ_ALLOW_INPUT": "1",
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq.conf"),
        "RABBITMQ_CONFIG_FILES": str(directory / "conf.d"),
        "RABBITMQ_CONF_ENV_FILE": str(directory / "rabbitmq-env.conf"),
        "RABBITMQ_DIST_PORT": str(distribution_port),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_NODENAME": f"{name}@localhost",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-sname {name}@localhost {_NODE_ERLANG}",
    }


def _search_path() -> str:
    system = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    ours = os.environ.get("PATH", "").split(os.pathsep)
    return os.pathsep.join(dict.fromkeys(filter(None, ours + system)))


def _find_server() -> Path:
    """The server's own script: what PATH has first, or the newest of the usual places."""
    if sys.platform != "linux":
        raise BrokerNotInstalled("a local broker needs Linux: give the setting amqp_url")
    search = _search_path()
    candidates = [Path(folder, "rabbitmq-server") for folder in search.split(os.pathsep)]
    candidates += sorted(Path("/").glob(_SERVERS), reverse=True)
    for script in (path.resolve() for path in candidates if os.access(path, os.X_OK)):
        # The real script loads the one beside it; a wrapper has another name, or stands alone.
        if script.name == "rabbitmq-server" and script.with_name("rabbitmq-env").exists():
            break
    else:
        raise BrokerNotInstalled(
            "no rabbitmq-server is installed on this machine, and the setting amqp_url is not "
            "given. Install it for a local broker (on Debian and Ubuntu: apt-get install "
            "rabbitmq-server), or give amqp_url (or K8SFUTURES_AMQP_URL) the URL of a broker"
        )
    if not shutil.which("erl", path=search):
        raise BrokerNotInstalled(
            f"{script} needs Erlang, and there is no `erl` in PATH ({search}): install it, or give "
            "the setting amqp_url (or K8SFUTURES_AMQP_URL) the URL of a broker"
        )
    return script
