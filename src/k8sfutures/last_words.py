"""What calls say as a Ctrl-C ends them: heard for a moment, and nothing else is."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from .link import LinkDown, LinkFailed, Received

if TYPE_CHECKING:
    from .output import Heard
    from .session import Session

PATIENCE: Final = 1.0
"""Seconds for calls to say something; those that take longer are not waited for."""


def last_words(inbox: queue.SimpleQueue[Any], session: Session) -> Iterator[Heard]:
    """Listen to calls that end, after `Session.leave`.

    Args:
        inbox: of the manager; what else comes there means nothing any more, except that someone
            waits for its answer, and so it is put back.
        session: has left.

    Yields:
        What they say, until the pods have told that all have ended.
    """
    until = time.monotonic() + PATIENCE
    others: list[Any] = []
    while session.leavers and (left := until - time.monotonic()) > 0:
        try:
            item = inbox.get(timeout=left)
        except queue.Empty:
            break
        if isinstance(item, Received):
            heard = session.last_words(item.body)
            if heard is not None:
                yield heard
            continue
        others.append(item)
        if isinstance(item, LinkDown | LinkFailed):
            break
    for item in others:
        inbox.put(item)
