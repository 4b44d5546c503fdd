"""What clients are called: at the broker, in pods' logs, and by others that wait for them."""

from __future__ import annotations

import os
import platform
import re
import uuid
from typing import Final

from .machine import start_time

_NAME: Final = re.compile(r"client-(?P<host>.*)-(?P<pid>\d+)-[0-9a-f]{12}")


def new_name() -> str:
    """A name for one more client of this process, which no other client ever has."""
    return f"client-{_host()}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:40]


def has_ended(name: str) -> bool:
    """Whether a client was a process of this machine, and is none any more.

    A container that has this machine's name but processes of its own would be mistaken: what this
    says is no reason by itself to give up a client.

    Args:
        name: the client's.
    """
    match = _NAME.fullmatch(name)
    return match is not None and match["host"] == _host() and start_time(int(match["pid"])) is None


def in_words(name: str) -> str:
    """Who a client is, for people.

    Args:
        name: the client's.
    """
    match = _NAME.fullmatch(name)
    return name if match is None else f"process {match['pid']} on {match['host'] or 'a host'}"
