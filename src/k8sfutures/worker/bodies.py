"""Bulky bodies that come ahead of their calls, in chunks, put together again."""

from __future__ import annotations

import logging

from ..chunks import Assembly
from ..messages import ARGUMENTS, FUNCTION, Call, Chunk, Group

logger = logging.getLogger(__name__)


class Bodies:
    """What has come ahead, by client."""

    def __init__(self) -> None:
        self._assemblies: dict[str, Assembly] = {}

    def add(self, sender: str, chunk: Chunk) -> None:
        """A piece has come."""
        self._assemblies.setdefault(sender, Assembly()).add(chunk)

    def forget(self, sender: str) -> None:
        """A client has left."""
        self._assemblies.pop(sender, None)

    def complete(self, sender: str, group: Group, pod: str) -> tuple[int, list[Call]]:
        """Put what came ahead into a group.

        Args:
            sender: the client.
            group: its group; a function that did not come is left out, and the dispatcher
                gives back the calls of a function that it does not have.
            pod: whose share of it.

        Returns:
            The pod's share. A call whose body did not come is left out; the client finds out
            from the next `Hello`.
        """
        for function in [number for number, data in group.functions.items() if not data]:
            data = self._take(sender, function, FUNCTION)
            if data is None:
                del group.functions[function]
            else:
                group.functions[function] = data
        limit, calls = group.shares.get(pod, (0, []))
        if not any(call[3] is None for call in calls):
            return limit, calls
        whole: list[Call] = []
        for call in calls:
            body = call[3] if call[3] is not None else self._take(sender, call[0], ARGUMENTS)
            if body is None:
                logger.warning("the chunks of call %d have not arrived", call[0])
            else:
                whole.append((call[0], call[1], call[2], body))
        return limit, whole

    def _take(self, sender: str, call: int, item: int) -> bytes | None:
        return self._assemblies.setdefault(sender, Assembly()).take(call, item)
