"""Documentation and the words of errors name what there is: settings, names, commands, files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import k8sfutures
from k8sfutures import cli, config, environment, errors

ROOT = Path(__file__).parents[2]
PAGES = [
    *(path for path in sorted(ROOT.glob("*.md"))),
    *(path for folder in ("docs", "worker", "benchmarks") for path in (ROOT / folder).glob("*.md")),
]
SOURCES = [
    *(ROOT / "src" / "k8sfutures").rglob("*.py"),
    *(path for path in (ROOT / "worker").iterdir() if path.is_file()),
    *PAGES,
]
REFERENCE = (ROOT / "docs" / "reference.md").read_text("utf-8")


def commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    """What can be called: ``k8sfutures broker start``, with whatever arguments."""
    groups = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not groups:
        yield parser.prog
    for group in groups:
        for one in group.choices.values():
            yield from commands(one)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links to them, as GitHub does it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_reference_has_every_public_name_and_exception() -> None:
    for name in {*k8sfutures.__all__, *errors.__all__} - {"MessageError"}:
        assert f"`{name}" in REFERENCE or f".{name}`" in REFERENCE, name


def test_the_reference_has_every_command_and_no_other() -> None:
    there = set(commands(cli._parser()))
    documented = set(re.findall(r"`(k8sfutures [a-z]+ [a-z]+)[` ]", REFERENCE))
    assert documented == there


def test_the_readme_has_every_setting() -> None:
    tables = (ROOT / "README.md").read_text("utf-8").partition("\n## Settings\n")[2]
    rows = [line.split("|")[1] for line in tables.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(config._SETTINGS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_and_variables_that_are_named_exist(path: Path) -> None:
    text = path.read_text("utf-8")
    there = {name for command in commands(cli._parser()) for name in (command, *_groups(command))}
    for name in re.findall(r"['`(]k8sfutures ((?:broker|pods?|pools?|image)(?: [a-z]+)?)\b", text):
        assert f"k8sfutures {name}" in there, name
    known = {*config._SETTINGS, *(one.removeprefix("K8SFUTURES_").lower() for one in _others())}
    for name in re.findall(r"K8SFUTURES_([A-Z_]*[A-Z])\b", text):
        assert name.lower() in known or name.startswith("TEST"), name


def _groups(command: str) -> Iterator[str]:
    yield command.rpartition(" ")[0]


def _others() -> frozenset[str]:
    return environment._OTHERS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, heading = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not heading or heading in anchors(target), link
