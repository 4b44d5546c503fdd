"""Times as the Kubernetes API writes them (RFC 3339)."""

from __future__ import annotations

import datetime as dt
from email.utils import parsedate_to_datetime


def between(earlier: str | None, later: str | None) -> float:
    """Seconds from one time to another; 0 where one of them is missing or is none."""
    try:
        span = dt.datetime.fromisoformat(later or "") - dt.datetime.fromisoformat(earlier or "")
    except (ValueError, TypeError):  # none, or one without its zone
        return 0.0
    return span.total_seconds()


def of_header(date: str | None) -> str:
    """The time of an HTTP ``Date`` header, as the API would write it; "" where it is none."""
    try:
        return parsedate_to_datetime(date or "").isoformat()
    except ValueError:
        return ""
