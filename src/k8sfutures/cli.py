"""The command line: what runs on this machine for k8sfutures, and how to end it."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final

from . import __version__, cli_image, cli_pool
from .broker import ensure_local_broker, local_broker_status, stop_local_broker
from .errors import K8sFuturesError
from .pods.local import local_pods, stop_local_pods

INTERRUPTED: Final = 130
"""The exit code of a program that Ctrl-C has ended, as shells count it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``k8sfutures ...``.

    Args:
        arguments: those of the command line, without the program's name.

    Returns:
        The exit code: 0, or 1 where something could not be done, or `INTERRUPTED`.
    """
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except K8sFuturesError as error:
        print(f"k8sfutures: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # which is how ``| head`` ends what it reads
            print(f"k8sfutures: {error}", file=sys.stderr)
        # Python writes what is left there as it ends, and would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except KeyboardInterrupt:
        print("k8sfutures: interrupted", file=sys.stderr)
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="k8sfutures",
        description="See and end what k8sfutures keeps running for the next program: the local "
        "broker, warm pools and their pods; and make the image of pods on Kubernetes.",
        epilog="Settings come from K8SFUTURES_... variables and k8sfutures.toml, as for an "
        "executor. 'k8sfutures COMMAND ACTION --help' has more.",
    )
    parser.add_argument("--version", action="version", version=f"k8sfutures {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    text = "the private RabbitMQ of this user on this machine, for local pods without amqp_url"
    broker = commands.add_parser("broker", help=text, description=text)
    actions = broker.add_subparsers(required=True, metavar="ACTION")
    for name, run, text in (
        (
            "status",
            _broker_status,
            "say whether the local broker runs, its address, and where its files are",
        ),
        (
            "start",
            _broker_start,
            "start the local broker if it does not run; an executor does so by itself",
        ),
        (
            "stop",
            _broker_stop,
            "end the local broker and remove its files; what its queues hold is lost",
        ),
    ):
        actions.add_parser(name, help=text, description=text).set_defaults(run=run)

    text = "the local pods of this user on this machine, of every pool"
    pods = commands.add_parser("pods", help=text, description=text)
    actions = pods.add_subparsers(required=True, metavar="ACTION")
    text = "list the local pods with their pools, processes and CPUs"
    actions.add_parser("list", help=text, description=text).set_defaults(run=_pods_list)
    text = "have local pods finish the calls that run, give back the others, and end"
    stop = actions.add_parser("stop", help=text, description=text)
    stop.add_argument(
        "pool", nargs="?", type=cli_pool.pool, help="only the pods of this pool (default: all)"
    )
    stop.set_defaults(run=_pods_stop)

    cli_image.add_parser(commands)
    cli_pool.add_parser(commands)
    return parser


def _broker_status(_: argparse.Namespace) -> int:
    status = local_broker_status()
    if status is None:
        print("no local broker runs")
    else:
        print(f"running at {status.address}, process {status.pid}, files in {status.directory}")
    return 0


def _broker_start(_: argparse.Namespace) -> int:
    ensure_local_broker()
    return _broker_status(_)


def _broker_stop(_: argparse.Namespace) -> int:
    stopped = stop_local_broker()
    print(
        "stopped; a program that still uses it starts it again"
        if stopped
        else "no local broker was running"
    )
    return 0


def _pods_list(_: argparse.Namespace) -> int:
    pods = local_pods()
    for pod in pods:
        cpus = ", ".join(map(str, pod.cpu_ids))
        state = "  draining" if pod.draining else ""
        print(f"{pod.name}  pool {pod.pool}  process {pod.pid}  CPUs {cpus}{state}")
    if not pods:
        print("no local pods run")
    return 0


def _pods_stop(options: argparse.Namespace) -> int:
    stopped = stop_local_pods(options.pool)
    if stopped:
        print(f"asked {cli_pool.counted(len(stopped), 'local pod')} to end")
    elif others := sorted({pod.pool for pod in local_pods()}):
        pools = ", ".join(others)
        print(
            f"k8sfutures: there is no pool {options.pool} here; there are: {pools}", file=sys.stderr
        )
        return 1
    else:
        print("no local pods run")
    return 0


if __name__ == "__main__":
    sys.exit(main())
