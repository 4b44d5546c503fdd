"""``k8sfutures pool``: the warm pools, on the cluster or on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from .config import Pods, Settings, is_pool_name, load_settings, pool_name, resolve_pods
from .pods.local import local_pods, stop_local_pods


def add_parser(commands: Any) -> None:
    """Add the command ``pool`` to those of the command line.

    Args:
        commands: what `argparse.ArgumentParser.add_subparsers` returned.
    """
    text = "the warm pools, on the cluster or on this machine, as the settings say"
    parser = commands.add_parser("pool", help=text, description=text)
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    text = "list the pools and their pods"
    listing = actions.add_parser("list", help=text, description=text)
    listing.set_defaults(run=_list)

    text = "remove a pool now: its pods finish the calls that run, and end"
    delete = actions.add_parser("delete", help=text, description=text)
    which = delete.add_mutually_exclusive_group()
    which.add_argument(
        "name",
        nargs="?",
        type=pool,
        help="the pool (default: the one that these settings stand for)",
    )
    which.add_argument("--all", action="store_true", help="every pool")
    delete.set_defaults(run=_delete)

    for command in (listing, delete):
        command.add_argument(
            "--pods",
            choices=["kubernetes", "local"],
            help="where pods run (default: as for an executor)",
        )
        for name in ("kubeconfig", "context", "namespace"):
            command.add_argument(f"--{name}", help=f"the setting {name}, for pods on Kubernetes")


def pool(text: str) -> str:
    """The name of a pool, as an argument of the command line.

    Not the empty text of a shell's variable that is not set: it would stand for another pool.

    Raises:
        argparse.ArgumentTypeError: it can be none.
    """
    if not is_pool_name(text):
        raise argparse.ArgumentTypeError(
            f"{text!r} can be no pool's name: 1 to 100 letters (a to z, A to Z), digits, or any of "
            "'-', '_', '.'"
        )
    return text


def counted(number: int, what: str) -> str:
    """So many of something, in words: ``1 pod``, ``2 pods``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _settings(options: argparse.Namespace) -> tuple[Settings, Pods]:
    names = ("pods", "kubeconfig", "context", "namespace")
    settings = load_settings({name: getattr(options, name) for name in names})
    return settings, resolve_pods(settings, os.environ)


def _list(options: argparse.Namespace) -> int:
    settings, pods = _settings(options)
    lines = [f"{pool}  {pod}" for pool, pod in _listed(settings, pods)]
    if not lines:
        where = "on the cluster" if pods == "kubernetes" else "on this machine"
        lines = [f"no pools {where}"]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _listed(settings: Settings, pods: Pods) -> Iterator[tuple[str, str]]:
    """Yields the pool of each pod that is there, and what there is to say of the pod."""
    if pods == "local":
        for local in local_pods():
            cpus = ",".join(map(str, local.cpu_ids))
            state = "  draining" if local.draining else ""
            yield local.pool, f"{local.name}  CPUs {cpus}  process {local.pid}{state}"
        return
    from .pods.kubernetes.pools import list_pods

    for pod in list_pods(settings):
        yield pod.pool, f"{pod.name}  CPUs {pod.cpu_ids} of {pod.node}  {pod.phase}"


def _delete(options: argparse.Namespace) -> int:
    settings, pods = _settings(options)
    name = None if options.all else options.name or pool_name(settings, pods)
    if pods == "kubernetes":
        from .pods.kubernetes.pools import delete_pool

        asked = delete_pool(settings, name)
    else:
        asked = len(stop_local_pods(name))
    if asked or name is None:
        which = "any pool" if name is None else f"pool {name}"
        pods_asked = counted(asked, "pod")
        said = f"asked {pods_asked} of {which} to end" if asked else f"no pods of {which} are there"
        sys.stdout.write(f"{said}\n")
        return 0
    there = sorted({pool for pool, _ in _listed(settings, pods)})
    where = "on the cluster" if pods == "kubernetes" else "on this machine"
    others = f"; there are: {', '.join(there)}" if there else ", and no other either"
    sys.stderr.write(f"k8sfutures: there is no pool {name} {where}{others}\n")
    return 1
