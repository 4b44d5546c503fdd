"""What the scheduler is told, and what it answers: batches, never one object for each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import NamedTuple

from .messages import Call, Outcome
from .values import dataclass


class Range(NamedTuple):
    """Items ``start`` to ``start + count`` of a map."""

    map_id: int
    start: int
    items: int


class Limits(NamedTuple):
    """What holds for some calls only.

    Attributes:
        retries: how often a call whose pod was lost is dispatched again; None for as often as any.
        timeout: seconds that a call, or each item of a map, may run; None for as long as it takes.
    """

    retries: int | None = None
    timeout: float | None = None


class Loss(NamedTuple):
    """A pod that a call was lost with, and the seconds since that had been given it."""

    pod: str
    seconds: float | None


class Retried(NamedTuple):
    """A call under an id of its own, or an item of a map, that is to run again.

    Attributes:
        call: the call, or None.
        map_item: map id and index, or None.
        limits: what holds now.
        lost: the pods that it was lost with before.
    """

    call: Call | None
    map_item: tuple[int, int] | None
    limits: Limits
    lost: tuple[Loss, ...]


# --- events


@dataclass(frozen=True, slots=True)
class Submitted:
    """Calls from `submit`, in order; their ids are new.

    Attributes:
        limits: of those that have any, by call id.
    """

    calls: list[Call]
    limits: Mapping[int, Limits] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class MapGrown:
    """`count` more items of a map may be dispatched; the first such event introduces the map.

    Attributes:
        chunksize: items in a range where the user said so, else None.
        limits: of each item, if any.
    """

    map_id: int
    function: int
    count: int
    chunksize: int | None = None
    limits: Limits | None = None


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
class Again:
    """Calls and items that have failed, and are to run again before all others."""

    retried: list[Retried]


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Nobody waits for these submitted calls any more, wherever they are."""

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
    | Again
    | Cancelled
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
        limits: seconds that a call, or each item of a range, may run, of those with such a limit.
    """

    number: int
    shares: dict[str, tuple[int, list[Call]]]
    ranges: dict[int, Range]
    functions: list[int]
    released: list[int]
    limits: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Settle:
    """Outcomes that are final.

    Attributes:
        pod: where they come from.
        calls: (call id, function id, status, body) of submitted calls.
        items: (map id, index, status, body) of maps.
        lost: the pods that calls and items without a result were lost with before, by call id or
            by (map id, index).
    """

    pod: str
    calls: list[tuple[int, int, int, bytes | None]]
    items: list[tuple[int, int, int, bytes | None]]
    lost: dict[int | tuple[int, int], tuple[Loss, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lost:
    """A call (or an item of a map) that was lost with more pods than `retries` allows.

    Attributes:
        call: its id, or None.
        map_item: map id and index, or None.
        pods: what it was lost with, oldest first.
        seconds: since it had been given to each of them.
        retries: how many it had, where that was chosen for it.
        function: its function's id.
    """

    call: int | None
    map_item: tuple[int, int] | None
    pods: tuple[str, ...]
    seconds: tuple[float, ...] = ()
    retries: int | None = None
    function: int = 0


@dataclass(frozen=True, slots=True)
class Recalled:
    """Tell a pod that nobody waits for these of its calls any more."""

    pod: str
    calls: list[int]


Instruction = Dispatch | Settle | Lost | Recalled


@dataclass(frozen=True, slots=True)
class Statistics:
    """A look at the scheduler: calls that wait, calls that pods have, and pods' slots."""

    pending: int
    in_flight: int
    slots: int
    pods: int
