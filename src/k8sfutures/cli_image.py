"""The command line's ``k8sfutures image build`` and ``k8sfutures image push``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from .config import load_settings
from .container_tools import TOOLS
from .errors import ImageError
from .image import build_image, push_image
from .image_name import this_python


def add_parser(commands: Any) -> None:
    """Adds the command ``image``.

    Args:
        commands: what `argparse.ArgumentParser.add_subparsers` has returned.
    """
    text = "the image of pods on Kubernetes: build it, and bring it to a registry"
    image = commands.add_parser("image", help=text, description=text)
    actions = image.add_subparsers(required=True, metavar="ACTION")

    text = "build the image from this installation, with docker, podman or buildah"
    build = actions.add_parser("build", help=text, description=text)
    build.add_argument(
        "--base",
        metavar="IMAGE",
        help="what to build upon: an image with the same minor version of Python "
        "(default: the official slim one)",
    )
    build.add_argument(
        "--requirement",
        action="append",
        default=[],
        metavar="REQUIREMENT",
        help="what to install besides, as for pip: pandas==2.3; can be repeated",
    )
    build.add_argument(
        "--requirements-file",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a file of such lines; can be repeated",
    )
    build.set_defaults(run=_build)

    text = "push the image to its registry, logging in as the settings registry_* say"
    push = actions.add_parser("push", help=text, description=text)
    push.set_defaults(run=_push)

    for command in (build, push):
        command.add_argument(
            "--name",
            metavar="IMAGE",
            help="the image's name (default: the setting image, or one in registry_server)",
        )
        command.add_argument(
            "--python",
            metavar="VERSION",
            help=f"the minor version of its Python (default: {this_python()}, as runs here)",
        )
        command.add_argument(
            "--tool", choices=TOOLS, help="what builds and pushes (default: the first that works)"
        )
        command.add_argument(
            "arguments",
            nargs="*",
            metavar="-- ARGUMENTS",
            help=f"given to the tool's {command.prog.rpartition(' ')[2]} as they are",
        )


def _build(options: argparse.Namespace) -> int:
    name = build_image(
        load_settings({}),
        name=options.name,
        python=options.python,
        base=options.base,
        requirements=options.requirement,
        requirements_files=options.requirements_file,
        tool=options.tool,
        arguments=_passed_on(options),
        log=_say,
    )
    _say("built; nodes get it by 'k8sfutures image push', or by a load into each of them:")
    sys.stdout.write(f"{name}\n")
    return 0


def _push(options: argparse.Namespace) -> int:
    name = push_image(
        load_settings({}),
        name=options.name,
        python=options.python,
        tool=options.tool,
        arguments=_passed_on(options),
        log=_say,
    )
    _say("pushed:")
    sys.stdout.write(f"{name}\n")
    return 0


def _passed_on(options: argparse.Namespace) -> list[str]:
    arguments: list[str] = options.arguments
    if arguments and not arguments[0].startswith("-"):
        raise ImageError(
            f"unexpected {arguments[0]!r}: an image's name goes with --name, and what is meant for "
            "the tool after --"
        )
    return arguments


def _say(line: str) -> None:
    # The result alone is on stdout.
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
