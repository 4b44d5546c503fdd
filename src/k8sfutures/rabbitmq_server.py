"""How a lone RabbitMQ node is configured: where its program is, and what it is told."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .errors import BrokerNotInstalled

HOST: Final = "127.0.0.1"

# Where the server's own script is on Debian. Its /usr/sbin/rabbitmq-server is a wrapper that runs
# it as another user, and refuses to for anyone but that user and root.
_SERVERS: Final = "usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server"

CONFIGURATION: Final = """\
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
# needs neither. An Erlang that does not know dist_listen yet listens on the loopback interface.
# OTP 27 has another name for the port that epmd would be asked for, knows this one as well, and
# refuses to start with both.
_ALL_ERLANG: Final = (
    "-start_epmd false -dist_listen false -kernel inet_dist_use_interface {{127,0,0,1}} "
    "-erl_epmd_port {port}"
)

# The node shares its CPUs with the CPU processes, so its schedulers are few, not bound to CPUs,
# and do not spin while they wait; those for files do, a little: they matter only at the start,
# where they are woken for each of thousands of module look-ups.
# RabbitMQ 3.10 on Erlang 25, 2 CPUs; round trip of one connection, publish to delivery:
#                       start, s    p50, idle CPUs    p50, both CPUs busy    CPU per message
#   none spin           2.3 to 5.8  0.14 to 0.18 ms   0.14 to 0.16 ms        100 to 113 us
#   all spin, briefly   2.1 to 2.5  0.15 to 0.19 ms   0.14 to 0.36 ms        120 to 173 us
#   all spin, medium    1.9 to 2.5  0.13 ms           0.56 ms                167 us
#   only those of files 2.2 to 3.3  0.14 to 0.18 ms   0.13 to 0.16 ms         80 to 120 us
# One scheduler instead of two made none of these better.
_SCHEDULERS: Final = min(os.cpu_count() or 1, 4)
_NODE_ERLANG: Final = (
    f"-noinput +S {_SCHEDULERS}:{_SCHEDULERS} +stbt u +sbwt none +sbwtdcpu none +sbwtdio very_short"
)


def environment(name: str, directory: Path, distribution_port: int) -> Mapping[str, str]:
    """The node's environment: nothing of ours, nor of a RabbitMQ that this machine itself runs.

    Args:
        name: the node's.
        directory: where all its files are.
        distribution_port: a free port, which it will not use.

    Returns:
        The whole environment.
    """
    return {
        "PATH": _search_path(),
        "LANG": "C.UTF-8",
        "HOME": str(directory),  # Where Erlang keeps its cookie.
        "ERL_AFLAGS": _ALL_ERLANG.format(port=distribution_port),
        "ERL_CRASH_DUMP_SECONDS": "0",
        "ERL_EPMD_ADDRESS": HOST,
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


def find_server() -> Path:
    """The server's own script: what PATH has first, or the newest of the usual places.

    Raises:
        BrokerNotInstalled: there is none, or no Erlang to run it.
    """
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
