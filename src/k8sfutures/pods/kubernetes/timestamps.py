"""Times as the Kubernetes API writes them (RFC 3339)."""

from __future__ import annotations

import datetime as dt


def between(earlier: str | None, later: str | None) -> float:
    """Seconds from one time to another; 0 where one of them is missing or is none."""
    try:
        span = dt.datetime.fromisoformat(later or "") - dt.datetime.fromisoformat(earlier or "")
    except ValueError:
        return 0.0
    return span.total_seconds()


def age(timestamp: str | None) -> float:
    """Seconds since a time, by this machine's clock; 0 where it is missing or is none."""
    return between(timestamp, dt.datetime.now(dt.UTC).isoformat())
