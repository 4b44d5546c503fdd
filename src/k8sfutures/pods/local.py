"""Pods as ordinary processes of this machine: the embedded default.

The same worker program, broker and messages as on a cluster. A pod is started detached from
the client (a session of its own, output to a log file) and outlives it; a small file for each
pod says that it is there, so that the next client starts none.

Folder of a pool: ``<cache>/pods/<pool>@<host>.<broker>/``, with ``<pod>.json`` (pid and start
time of the agent, and its CPU ids in the order in which it uses them) and ``<pod>.log``. The pod
makes ``<pod>.draining`` of the former when it is told to end.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import platform
import re
import select
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from ..address import parse_amqp_url
from ..broker import ensure_local_broker
from ..codec import derive_key
from ..config import Settings
from ..errors import PodsUnavailable
from ..machine import cache_folder, make_private, start_time
from ..sealing import local_key
from ..tls import tls_of
from ..values import dataclass
from . import Credentials, Need, PodEnded, PodEvent, StartupNews
from .spread import least_used_first
from .stopped import StoppedPods

logger = logging.getLogger(__name__)

_BROKERS_SHARE: Final = 0.9
"""Of ``startup_timeout``, for the start of a local broker: if it takes longer, the error is to come
that says so, and not the one that no pod has answered."""

_TAIL: Final = 2000
"""Characters of a pod's log that an error shows."""

_KEPT: Final = 3600.0
"""Seconds after its last line for which the log of a pod that has ended stays: each of its clients
takes from it why the pod has ended, some of them later than others."""


_RECORDS: Final = (".json", ".draining")
"""Endings of the record of a pod: as it starts, and when it takes no calls any more."""


class LocalPods:
    """A `PodSource` on this machine.

    Args:
        settings: the executor's.
        pool: the pool's name.

    Raises:
        SettingValueError: the settings for TLS cannot work.
    """

    eager = True
    explains = False

    def __init__(self, settings: Settings, pool: str) -> None:
        self._settings = settings
        self.after_broker = settings.amqp_url is not None
        self._pool = pool
        self._tls = tls_of(
            *(settings.tls_ca, settings.tls_certificate, settings.tls_key), (settings.amqp_url,)
        )
        self._folder = cache_folder() / "pods"  # and below it, once the broker is known
        self._watched: dict[int, tuple[str, int]] = {}  # pidfd -> pod, pid
        self._known: set[str] = set()
        self._stopped = StoppedPods()
        self._news: list[str] = []
        self._silent = self._told_silent = ""  # of pods that have not answered
        self._retired = False
        # Sockets, not a pipe: `wake` may come after `close`, and must not hit another's file.
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)

    def credentials(self) -> Credentials:
        """The configured broker's, or the local one's, which is started if need be."""
        timeout = _BROKERS_SHARE * self._settings.startup_timeout
        url = self._settings.amqp_url or ensure_local_broker(timeout=timeout)
        secret = self._settings.secret or parse_amqp_url(url).password
        return Credentials(url, derive_key(secret), self._tls)

    def ensure(self, credentials: Credentials, need: Need) -> None:
        """Start one pod for the whole machine, or pods of ``worker_processes``, where none run."""
        _reap()
        # Per host, as a home folder can be shared between machines and a pid cannot; and pods of
        # another broker, or with another key, are none that could answer us.
        which = hashlib.sha256(credentials.url.encode() + credentials.key).hexdigest()[:8]
        self._folder = cache_folder() / "pods" / f"{self._pool}@{platform.node()}.{which}"
        try:
            make_private(self._folder.parent, self._folder)
            with self._locked():
                pods = [pod for pod in _records(self._folder) if not pod.draining]
                _remove_old_logs(self._folder)
                running = {pod.name: pod.pid for pod in pods}
                silent = {name: running[name] for name in running.keys() - need.attached.keys()}
                for cpu_ids in self._shares({one for pod in pods for one in pod.cpu_ids}):
                    if not self._retired:
                        name, pid = self._start(credentials, cpu_ids)
                        running[name] = pid
        except OSError as error:
            advice = (
                "That is the Python that runs this program, and is to run them"
                if error.filename == sys.executable
                else "See that the folder can be written to, or name another cache folder in "
                "K8SFUTURES_CACHE_DIR"
            )
            raise PodsUnavailable(
                f"cannot start local pods with files in {self._folder}: {error}. {advice}"
            ) from error
        for name, pid in running.items():
            self._watch_pid(name, pid)
        self._silent = _told_of_silent(silent, self._folder)
        self._news += self._stopped.find(running, time.monotonic())

    def watch(self, emit: Callable[[PodEvent], None]) -> None:
        """Wait until a pod ends or `wake` is called; see to those that are stopped."""
        self._tell_of_stopped(emit)
        poller = select.poll()
        poller.register(self._wake_read, select.POLLIN)
        for descriptor in self._watched:
            poller.register(descriptor, select.POLLIN)
        pause = self._stopped.pause()
        for descriptor, _ in poller.poll(None if pause is None else pause * 1000):
            if descriptor == self._wake_read.fileno():
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
                continue
            name, pid = self._watched.pop(descriptor)
            os.close(descriptor)
            self._known.discard(name)
            status: int | None = None
            if pid in _children:  # else it is another program's child
                _children.discard(pid)
                with contextlib.suppress(ChildProcessError):
                    _, status = os.waitpid(pid, 0)
            # One that was killed would not end the same way again.
            failed = bool(status) and status not in _KILLED
            emit(PodEnded(name, self._story(name, status), failed=failed))

    def _tell_of_stopped(self, emit: Callable[[PodEvent], None]) -> None:
        if self._silent != self._told_silent:
            emit(StartupNews(self._silent))  # for the error, should they stay silent
            self._told_silent = self._silent
        for words in self._news:
            logger.warning("%s", words)
            emit(StartupNews(words))
        self._news.clear()
        if self._stopped.pause() is None:
            return
        descriptors = {name: descriptor for descriptor, (name, _) in self._watched.items()}
        for name in self._stopped.overdue(dict(self._watched.values()), time.monotonic()):
            logger.warning("ending the local pod %s, which is stopped", name)
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptors[name], signal.SIGKILL)
        if self._stopped.pause() is None:
            emit(StartupNews(""))

    def wake(self) -> None:
        """Make `watch` return."""
        with contextlib.suppress(OSError):  # full: it is awake already; or closed
            self._wake_write.send(b"x")

    def retire(self) -> None:
        """Start no pods any more; from any thread."""
        self._retired = True

    def close(self) -> None:
        """Stop watching; the pods stay."""
        for descriptor in self._watched:
            os.close(descriptor)
        self._watched.clear()
        self._wake_read.close()
        self._wake_write.close()

    def delete_pool(self) -> int:
        """Ask every pod of the pool to end; from any thread."""
        return len(stop_local_pods(self._pool))

    # --- the folder

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One client at a time starts pods; the lock is held for some milliseconds.

        One lock for all pools of this machine: pods that start together take different CPUs.
        """
        with (self._folder.parent / f"lock.{platform.node()}").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            try:
                yield
            finally:
                # Closing it would leave it to a process that another thread has forked meanwhile.
                fcntl.flock(lock, fcntl.LOCK_UN)

    def _shares(self, taken: set[int]) -> list[list[int]]:
        """CPU ids for each pod to start, where the pool's pods have taken some."""
        cpus = os.sched_getaffinity(0)
        size = self._settings.worker_processes or len(cpus)
        if size > len(cpus):
            raise PodsUnavailable(
                f"worker_processes={size} is more than the {len(cpus)} CPUs of this machine that "
                "this program may use: lower it, or leave it out"
            )
        free = cpus - taken
        if len(free) < size:
            return []
        order = least_used_first(free, [pod.cpu_ids for pod in local_pods()])
        return [order[at : at + size] for at in range(0, len(order) - size + 1, size)]

    def _start(self, credentials: Credentials, cpu_ids: list[int]) -> tuple[str, int]:
        name = f"pod-{uuid.uuid4().hex[:12]}"
        config = json.dumps(
            {
                "url": credentials.url,
                "tls": None if credentials.tls is None else credentials.tls.as_dict(),
                "pool": self._pool,
                "name": name,
                "key": credentials.key.hex(),
                "cpu_ids": cpu_ids,
                "warm_for": self._settings.warm_for_seconds("local"),
                "shape": self._settings.shape("local"),
                "seal": local_key().hex(),
                "record": str(self._folder / f"{name}.json"),
            }
        ).encode()
        log = self._folder / f"{name}.log"
        read, write = os.pipe()
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "k8sfutures.worker"],
                _environment(),
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, read, 0),
                    (
                        os.POSIX_SPAWN_OPEN,
                        1,
                        str(log),
                        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
                        0o600,
                    ),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setsid=True,
            )
            os.close(read)  # so that a pod that has ended already is noticed
            read = -1
            with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(write), "wb") as pipe:
                pipe.write(config)  # waits where it is more than a pipe takes: many authorities
        finally:
            if read >= 0:
                os.close(read)
            os.close(write)
        record = {"pid": pid, "started": start_time(pid), "cpu_ids": cpu_ids}
        draft = self._folder / f"{name}.new"
        draft.write_text(json.dumps(record))
        draft.replace(self._folder / f"{name}.json")  # nobody reads half of it
        _children.add(pid)
        logger.info("started local pod %s on CPUs %s", name, cpu_ids)
        return name, pid

    def _watch_pid(self, name: str, pid: int) -> None:
        if name in self._known:
            return
        self._known.add(name)
        try:
            self._watched[os.pidfd_open(pid)] = (name, pid)
        except ProcessLookupError:
            self._known.discard(name)

    def _story(self, name: str, status: int | None) -> str:
        try:
            tail = (self._folder / f"{name}.log").read_text(errors="replace")[-_TAIL:]
        except OSError as error:
            tail = f"(no log: {error})"
        how = "has ended" if not status else _how(status)
        return f"the local pod {name} {how}; its log ends with:\n{tail.strip()}"


def _told_of_silent(pids: dict[str, int], folder: Path) -> str:
    """About pods that hold the CPUs, in case that they never answer."""
    if not pids:
        return ""
    name, pid = min(pids.items())
    others = f", and {len(pids) - 1} more do" if len(pids) > 1 else ""
    return (
        f"the local pod {name} (process {pid}, its log is {folder / name}.log) runs and holds its "
        f"CPUs{others}; where it hangs, kill -KILL {pid} ends it"
    )


def _how(status: int) -> str:
    """How a process ended that failed, from its wait status."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"was killed by signal {number} ({signal.strsignal(number)})"
    return f"failed with exit code {os.waitstatus_to_exitcode(status)}"


_KILLED: Final = {signal.SIGKILL, signal.SIGTERM, os.EX_TEMPFAIL << 8}
"""Wait statuses of pods that were killed, or whose zygote was (`worker.reports.ZygoteKilled`)."""

_children: Final[set[int]] = set()
"""Pods that this process has started and not yet waited for."""


def _reap() -> None:
    """Let go of the pods of this process that ended when no executor was watching."""
    for pid in list(_children):
        try:
            ended, _ = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            ended = pid
        if ended:
            _children.discard(pid)


@dataclass(frozen=True, slots=True)
class LocalPod:
    """A local pod that runs.

    Attributes:
        name: the pod's.
        pool: name of its pool.
        pid: process id of its agent.
        cpu_ids: one for each of its CPU processes, in the order in which it uses them.
        draining: whether it was told to end: it takes no calls any more.
    """

    name: str
    pool: str
    pid: int
    cpu_ids: tuple[int, ...]
    draining: bool = False


def local_pods() -> list[LocalPod]:
    """The local pods of this user that run on this machine, of every pool, draining or not.

    Raises:
        PodsUnavailable: their files cannot be read.
        SettingValueError: see `cache_folder`.
    """
    folder = cache_folder() / "pods"
    try:
        # The host's name may be the beginning of another's, whose records are not ours to remove.
        ours = re.compile(rf".*@{re.escape(platform.node())}\.[0-9a-f]{{8}}")
        folders = sorted(one for one in folder.glob("*@*") if ours.fullmatch(one.name))
        return [pod for folder in folders for pod in _records(folder)]
    except OSError as error:
        raise PodsUnavailable(
            f"cannot tell which local pods run, by the files in {folder}: {error}. See that this "
            "user can read and write there, or name another cache folder in K8SFUTURES_CACHE_DIR"
        ) from error


def stop_local_pods(pool: str | None = None) -> list[LocalPod]:
    """Ask local pods to finish what runs, return the rest to its clients, and end.

    Args:
        pool: only the pods of this pool; None for all.

    Returns:
        Those that were asked.
    """
    asked: list[LocalPod] = []
    for pod in local_pods():
        if pool is None or pod.pool == pool:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pod.pid, signal.SIGTERM)
                asked.append(pod)
    return asked


def _records(folder: Path) -> Iterator[LocalPod]:
    """The pods of a pool that run; the records of those that do not are removed."""
    for path in sorted(path for ending in _RECORDS for path in folder.glob(f"*{ending}")):
        try:
            record = json.loads(path.read_text())
            pid, started = int(record["pid"]), int(record["started"])
            cpu_ids = tuple(map(int, record["cpu_ids"]))
        except (ValueError, KeyError, TypeError, OSError):
            pid, started, cpu_ids = 0, 0, ()
        if start_time(pid) == started:
            pool, draining = folder.name.rpartition("@")[0], path.suffix == _RECORDS[1]
            yield LocalPod(path.stem, pool, pid, cpu_ids, draining)
        else:
            path.unlink(missing_ok=True)


def _remove_old_logs(folder: Path) -> None:
    """Remove the logs of pods that ended long ago: they have no record."""
    for path in folder.glob("*.log"):
        with contextlib.suppress(FileNotFoundError):  # another client was faster
            age = time.time() - path.stat().st_mtime
            if age > _KEPT and not any(path.with_suffix(one).exists() for one in _RECORDS):
                path.unlink()


def _environment() -> dict[str, str]:
    """The client's environment without its settings: they are in the pod's configuration."""
    return {name: value for name, value in os.environ.items() if not name.startswith("K8SFUTURES_")}
