"""What the scheduler is told, and what it answers: batches, never one object for each call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .messages import Call, Outcome


class Range(NamedTuple):
    """Items ``start`` to ``start + count`` of a map."""

    map_id: int
    start: int
    items: int


# --- events


@dataclass(frozen=True, slots=True)
class Submitted:
    """Calls from `submit`, in order; their ids are new."""

    calls: list[Call]


@dataclass(frozen=True, slots=True)
class MapGrown:
    """`count` more items of a map may be dispatched; the first such event introduces the map.

    Attributes:
        chunksize: items in a range where the user said so, else None.
    """

    map_id: int
    function: int
    count: int
    chunksize: int | None = None


@dataclass(frozen=True, slots=True)
class MapDropped:
    """Nobody waits for the rest of this map: forget the items that were not dispatched."""

    map_id: int


@dataclass(frozen=True, slots=True)
class PodJoined:
    """A pod can take calls, as many at once as it has slots."""

    pod: str
    slots: int


@dataclass(frozen=True, slots=True)
class PodReported:
    """A pod holds these calls, having seen every group up to this number; others were lost.

    So may be functions that went with them: the pod is sent again what it needs.
    """

    pod: str
    group: int
    holding: frozenset[int]


@dataclass(frozen=True, slots=True)
class PodGone:
    """A pod is lost, with all that it has not returned."""

    pod: str


@dataclass(frozen=True, slots=True)
class Arrived:
    """Outcomes from a pod."""

    pod: str
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class GivenBack:
    """What of these calls has no outcome yet, the pod has not started and will not run.

    Attributes:
        draining: whether the pod takes no calls any more.
    """

    pod: str
    calls: list[int]
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """Calls of the last `Dispatch` that were not sent after all, having been cancelled."""

    calls: list[int]


@dataclass(frozen=True, slots=True)
class ItemsMeasured:
    """Items of a map have about so many bytes each; told of those that are bulky."""

    map_id: int
    size: int


@dataclass(frozen=True, slots=True)
class FunctionsDropped:
    """The client will never submit these functions again."""

    functions: list[int]


@dataclass(frozen=True, slots=True)
class CancelPending:
    """`shutdown(cancel_futures=True)`: forget everything that was never dispatched.

    Attributes:
        keep: submitted calls that wait to be dispatched again.
    """

    keep: frozenset[int]


Event = (
    Submitted
    | MapGrown
    | MapDropped
    | PodJoined
    | PodReported
    | PodGone
    | Arrived
    | GivenBack
    | Withdrawn
    | FunctionsDropped
    | ItemsMeasured
    | CancelPending
)


# --- instructions


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Send one group.

    Attributes:
        number: of the group.
        shares: pod to (calls that may run there at once, the calls).
        ranges: for each call that is a range of a map, which; its body is to be pickled.
        functions: ids of the functions that some of these pods do not have.
        released: ids of functions that pods may forget.
    """

    number: int
    shares: dict[str, tuple[int, list[Call]]]
    ranges: dict[int, Range]
    functions: list[int]
    released: list[int]


@dataclass(frozen=True, slots=True)
class Settle:
    """Outcomes that are final.

    Attributes:
        pod: where they come from.
        calls: (call id, function id, status, body) of submitted calls.
        items: (map id, index, status, body) of maps.
    """

    pod: str
    calls: list[tuple[int, int, int, bytes | None]]
    items: list[tuple[int, int, int, bytes | None]]


@dataclass(frozen=True, slots=True)
class Lost:
    """A call (or an item of a map) that was lost with more pods than `retries` allows."""

    call: int | None
    map_item: tuple[int, int] | None
    pods: tuple[str, ...]


Instruction = Dispatch | Settle | Lost


@dataclass(frozen=True, slots=True)
class Statistics:
    """A look at the scheduler: calls that wait, calls that pods have, and pods' slots."""

    pending: int
    in_flight: int
    slots: int
    pods: int
