"""Variables of the environment that look like settings and are none: mistyped, most likely."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping
from typing import Final

from .suggestions import ARGUMENTS

logger = logging.getLogger(__name__)

PREFIX: Final = "K8SFUTURES_"

_OTHERS: Final = frozenset(
    # Where files are; what a pod is told; what this project's own tests are told.
    PREFIX + name
    for name in (
        *("CACHE_DIR", "NODE", "POD_CONFIG", "POD_NAME"),
        *("CONFORMANCE_PYTHON", "REQUIRE_CONFORMANCE"),
    )
)
_TESTS: Final = f"{PREFIX}TEST_"

_told: Final[set[str]] = set()
"""Variables that this process has been warned of."""


def strange_variables(environ: Mapping[str, str], settings: Collection[str]) -> dict[str, str]:
    """The variables that nothing reads.

    Args:
        environ: the environment.
        settings: the names of all settings.

    Returns:
        Each variable's name, with a text that names it and what was meant, perhaps.
    """
    known = {PREFIX + name.upper() for name in settings} | _OTHERS
    found: dict[str, str] = {}
    for name in sorted(environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or name in known or name.startswith(_TESTS):
            continue
        argument = upper.removeprefix(PREFIX).lower()
        near = difflib.get_close_matches(upper, sorted(known), 1)
        hint = f"did you mean {near[0]}?" if near else "no setting has a name like that"
        if argument in ARGUMENTS:
            hint = f"{argument} is an argument of K8sRabbitExecutor, and no setting"
        found[name] = f"the environment variable {name} is not used: {hint}"
    return found


def warn_of_strange_variables(environ: Mapping[str, str], settings: Collection[str]) -> None:
    """Log a warning for each variable that nothing reads, once in a process.

    Args:
        environ: the environment.
        settings: the names of all settings.
    """
    for name, text in strange_variables(environ, settings).items():
        if name not in _told:
            _told.add(name)
            logger.warning("%s", text)
