"""What always holds for the scheduler's records; tests check it after every step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .messages import Call
from .scheduler_backlog import Backlog
from .scheduler_records import Pod, Source


def check(
    backlog: Backlog, isolated: Iterable[Call], pods: Mapping[str, Pod], max_workers: int | None
) -> None:
    """Check what must always hold.

    Args:
        backlog: the scheduler's.
        isolated: the calls that wait to be alone on a pod.
        pods: its pods.
        max_workers: its limit.

    Raises:
        AssertionError: something does not hold; the text says what.
    """
    seen: set[int] = set()
    for call_id in _call_ids(backlog, isolated, pods):
        assert call_id not in seen, f"call {call_id} is in two places"
        seen.add(call_id)
    for pod in pods.values():
        charged = sum(flight.charge for flight in pod.in_flight.values())
        assert abs(charged - pod.work) < 1e-6, f"{pod.name} is charged {pod.work}"
        assert 0 <= pod.limit <= pod.slots, f"{pod.name} may run {pod.limit}"
        alone = pod.suspect not in pod.in_flight or len(pod.in_flight) == 1
        assert alone, f"{pod.name} has calls beside one that is to be alone"
    if max_workers is not None:
        assert sum(pod.limit for pod in pods.values()) <= max_workers
    assert backlog.ranges.keys() <= seen, "a range that is nowhere"
    for state in backlog.ranges.values():
        assert state.left == state.done.count(0), "a range that has miscounted its items"
        assert state.left, "a range that is finished and still here"
    assert backlog.limits.keys() <= seen, "limits of a call that is nowhere"
    assert backlog.losses.keys() <= seen, "losses of a call that is nowhere"
    in_flight = {call_id for pod in pods.values() for call_id in pod.in_flight}
    assert backlog.cancelled <= in_flight, "a cancelled call that no pod has"


def _call_ids(backlog: Backlog, isolated: Iterable[Call], pods: Mapping[str, Pod]) -> Iterator[int]:
    for entry in backlog.pending:
        if not isinstance(entry, Source):
            yield entry[0]
    yield from (call[0] for call in isolated)
    for pod in pods.values():
        yield from pod.in_flight
