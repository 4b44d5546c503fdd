"""What clients are called: at the broker, in pods' logs, and by others that wait for them."""

from __future__ import annotations

import os
import platform
import re
import uuid
from typing import Final

_NAME: Final = re.compile(r"client-(?P<host>.*)-(?P<pid>\d+)-[0-9a-f]{12}")


def new_name() -> str:
    """A name for one more client of this process, which no other client ever has."""
    host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node())[:40]
    return f"client-{host}-{os.getpid()}-{uuid.uuid4().hex[:12]}"


def in_words(name: str) -> str:
    """Who a client is, for people.

    Args:
        name: the client's.
    """
    match = _NAME.fullmatch(name)
    return name if match is None else f"process {match['pid']} on {match['host'] or 'a host'}"
