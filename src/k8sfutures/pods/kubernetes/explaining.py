"""Why pods were lost that Kubernetes still believes in: asked until it is known."""

from __future__ import annotations

from typing import Final

from .. import PodEnded
from .api import KubeApi
from .capacity import not_ready
from .roster import NEVER, Roster
from .stories import State

EXPLAIN_EVERY: Final = 1.0
"""Seconds between two looks at the nodes of pods that were lost without a word."""


class Explainer:
    """See the module's text; belongs to the provisioning thread."""

    def __init__(self) -> None:
        self._unexplained: set[str] = set()
        self.due = NEVER
        """When `explain` is to be called."""

    def wonder(self, pods: frozenset[str], now: float) -> None:
        """Nobody knows why these were lost; of others it is known, or they are back."""
        if pods - self._unexplained:
            self.due = now
        self._unexplained = set(pods)

    def explained(self, pod: str) -> None:
        """It is known."""
        self._unexplained.discard(pod)

    def later(self, now: float) -> None:
        """Kubernetes could not be asked."""
        self.due = now + EXPLAIN_EVERY if self._unexplained else NEVER

    def explain(self, api: KubeApi, roster: Roster, now: float) -> list[PodEnded]:
        """What is known by now.

        Args:
            api: the cluster's.
            roster: of the pods.
            now: the time.

        Raises:
            ClusterError: the API does not answer, or refuses.
        """
        found = []
        for name in list(self._unexplained):
            story = roster.story(name)
            if story is None:
                words = f"pod {name} is not known to Kubernetes any more: it was deleted"
            elif story.state is State.ENDED:
                words = story.words
            else:
                words = _node_trouble(api, story.node)
            if words:
                self._unexplained.discard(name)
                found.append(PodEnded(name, words, failed=False))
        self.later(now)
        return found


def _node_trouble(api: KubeApi, name: str) -> str:
    nodes, _ = api.list("/api/v1/nodes", fieldSelector=f"metadata.name={name}")
    if not nodes:
        return f"its node {name} is not in the cluster any more"
    trouble = not_ready(nodes[0])
    return f"its node {name} {trouble}" if trouble else ""
