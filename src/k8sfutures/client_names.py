"""What clients are called: at the broker, in pods' logs, and by others that wait for them."""

from __future__ import annotations

import os
import platform
import re
import uuid
from typing import Final

from .machine import process_space, start_time

_NAME: Final = re.compile(r"client-(?P<host>.*)-(?P<pid>\d+)-(?P<space>[0-9a-f]{8})-[0-9a-f]{12}")


def new_name() -> str:
    """A name for one more client of this process, which no other client ever has."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:40]
    return f"client-{host}-{os.getpid()}-{process_space()}-{uuid.uuid4().hex[:12]}"


def has_ended(name: str) -> bool:
    """Whether a client was a process that this one could see by its pid, and is none any more.

    The name of a host says nothing of that: containers can have their machine's, and machines each
    other's.

    Args:
        name: the client's.
    """
    match = _NAME.fullmatch(name)
    if match is None or match["space"] != process_space():
        return False
    return start_time(int(match["pid"])) is None


def in_words(name: str) -> str:
    """Who a client is, for people.

    Args:
        name: the client's.
    """
    match = _NAME.fullmatch(name)
    return name if match is None else f"process {match['pid']} on {match['host'] or 'a host'}"
