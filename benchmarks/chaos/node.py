"""A RabbitMQ node of a run's own, that can be killed, started again, and told what to do.

Unlike the local broker of `k8sfutures.broker` it listens to ``rabbitmqctl``.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Self

from k8sfutures.rabbitmq_server import CONFIGURATION, environment, find_server

USER = "chaos"
_LOOPBACK = "127.0.0.1"


class Node:
    """One node; a context manager that ends it.

    Args:
        folder: for its files.
        host: the address that it listens at.
        variables: added to its environment.
    """

    def __init__(
        self, folder: Path, host: str = _LOOPBACK, variables: dict[str, str] | None = None
    ) -> None:
        self.folder = folder
        self.host = host
        self.port = free_port(host)
        self.password = secrets.token_hex(16)
        self._variables = variables or {}
        self._distribution = free_port(_LOOPBACK)
        self._name = f"k8sfutures-chaos-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "rabbitmq.conf").write_text(
            CONFIGURATION.format(host=host, port=self.port, user=USER, password=self.password)
        )
        (folder / "enabled_plugins").write_text("[].\n")

    @property
    def url(self) -> str:
        """Of the node itself."""
        return self.url_at(self.host, self.port)

    @property
    def pid(self) -> int | None:
        """Of its process, while it runs."""
        return None if self._process is None else self._process.pid

    def url_at(self, host: str, port: int) -> str:
        """Its URL through another address."""
        return f"amqp://{USER}:{self.password}@{host}:{port}/%2F"

    def start(self) -> None:
        """Start it; returns when it accepts connections."""
        with (self.folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(
                [find_server()],
                env=self._environment(listens=True),
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 90
        while not self._greets():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError((self.folder / "console.log").read_text()[-3000:])
            threading.Event().wait(0.1)

    def kill(self) -> None:
        """End it at once, as a loss of power would; its queues are gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """End it as an administrator would."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            self.kill()

    def control(self, *arguments: str, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl``; returns what it prints."""
        done = subprocess.run(
            [find_server().with_name("rabbitmqctl"), "--quiet", *arguments],
            env=self._environment(listens=False),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            start_new_session=True,  # Ctrl-C is not for it
        )
        if done.returncode:
            raise RuntimeError(f"rabbitmqctl {arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def delete_queue(self, name: str) -> None:
        """Delete a queue, if it is there, though it belongs to a connection alone."""
        self.control(
            "eval",
            f'case rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{name}">>)) of '
            '{ok, Q} -> rabbit_amqqueue:delete(Q, false, false, <<"chaos">>); '
            "Gone -> Gone end.",
        )

    def allow(self, user: str, password: str) -> None:
        """Let a user in, who may do everything."""
        if f"{user}\t" not in self.control("list_users"):
            self.control("add_user", user, password)
        self.control("change_password", user, password)
        self.control("set_permissions", user, ".*", ".*", ".*")

    def revoke(self, user: str, how: str) -> None:
        """Take from a user the ``password``, all ``permissions``, or the ``host``; end its work."""
        if how == "password":
            self.control("change_password", user, secrets.token_hex(16))
        elif how == "permissions":
            self.control("set_permissions", user, "^$", "^$", "^$")
        else:
            self.control("clear_permissions", user)
        self.control("close_all_user_connections", user, "chaos")

    def set_memory_limit(self, fraction: float) -> None:
        """Of the machine's memory; a tiny one makes publishers wait, 0.4 is the usual one."""
        self.control("set_vm_memory_high_watermark", f"{fraction:.9f}")

    def _environment(self, *, listens: bool) -> dict[str, str]:
        where = f"-start_epmd false -erl_epmd_port {self._distribution} "
        where += "-kernel inet_dist_use_interface {127,0,0,1}" if listens else "-dist_listen false"
        ours = dict(environment(self._name, self.folder, self._distribution))
        return ours | {"ERL_AFLAGS": where} | self._variables

    def _greets(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def free_port(host: str) -> int:
    """A port that nobody uses now, nor is given by the kernel to who asks for any."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        try:
            with socket.create_server((host, secrets.randbelow(first - 2000) + 2000)) as found:
                return int(found.getsockname()[1])
        except OSError:
            continue
    raise RuntimeError(f"no free port at {host}")
