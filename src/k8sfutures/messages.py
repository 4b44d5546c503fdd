"""What travels through RabbitMQ: the messages. See `codec` for their encoding and signature.

What the user's objects became is carried as opaque bytes, with the call id outside, so that a
body that cannot be read fails one Future and nothing else.
"""

from __future__ import annotations

import dataclasses
import platform
from typing import Any, ClassVar, Final, NamedTuple

import cloudpickle

from .values import dataclass

PROTOCOL: Final = 7
"""Version of this module and of `codec`; pods and clients of different versions do not talk."""

CHUNK_SIZE: Final = 1024 * 1024
"""Bytes of one chunk of a bulky body: well under the 16 MiB that RabbitMQ 4 accepts, and so few
that the ends work on one while the broker has the next."""

LARGEST: Final = 1 << 40
"""Bytes of the largest body: 1 TiB. What claims to be larger is no body."""

GROUP_LIMIT: Final = 4 * 1024 * 1024
"""Bytes of the bodies in one group or one message of results."""

INLINE_LIMIT: Final = 256 * 1024
"""What has more bytes than this travels in chunks of its own, to the one pod that needs it."""

Call = tuple[int, int, int, bytes | None]
"""(call id, function id, items, body). ``items`` is 0 for one submitted call, whose body is the
pickled ``(args, kwargs)``; n > 0 for a range of a map, whose body is a msgpack array of n
argument tuples, each pickled on its own (nil where that failed; its outcome says nothing). None
stands for the body of a range until it is dispatched. `bodies` says what a body may be."""

Outcome = tuple[int, int, int, int, bytes | None]
"""(call id, item, status, microseconds it ran, body)."""

# What a chunk belongs to, where it is not an item's outcome: a blob of this kind.
DATA: Final = -1
"""A part of bodies."""
MODULES: Final = -2
"""Modules of the user's own; needed before anything else of a call is loaded."""

# The statuses of an outcome.
RESULT: Final = 0
"""The body is the pickled result."""
EXCEPTION: Final = 1
"""The function raised, or its result could not be pickled; the body is the pickled exception."""
NOT_LOADABLE: Final = 2
"""The pod could not unpickle function or arguments; the body is the pickled exception."""
CRASHED: Final = 3
"""The CPU process died; the body is a msgpack map of what is known of that: see `crashes`."""

# Why a pod has ended a CPU process, in such a map.
TIMEOUT: Final = "timeout"
"""Its call has run for longer than it may."""
CANCELLED: Final = "cancelled"
"""Nobody waits for its call any more."""


# The kinds of what a call says while it runs.
STDOUT: Final = 1
"""The body is text, in UTF-8; not always whole lines."""
STDERR: Final = 2
"""Likewise."""
RECORD: Final = 3
"""A record of `logging`; see `records` for the body."""
WARNING: Final = 4
"""A Python warning; see `records` for the body."""
DROPPED: Final = 5
"""So many lines, and so many bytes, have been cut; the body is the two numbers as a text."""


class Versions(NamedTuple):
    """What both sides must have in common to understand each other's pickles."""

    python: str
    protocol: int
    cloudpickle: str

    @classmethod
    def ours(cls) -> Versions:
        """The versions of this process: Python to the minor, cloudpickle to the minor."""
        python = ".".join(platform.python_version_tuple()[:2])
        pickler = ".".join(cloudpickle.__version__.split(".")[:2])
        return cls(python, PROTOCOL, pickler)

    def __str__(self) -> str:
        return (
            f"Python {self.python}, k8sfutures protocol {self.protocol}, "
            f"cloudpickle {self.cloudpickle}"
        )


@dataclass(frozen=True, slots=True)
class Attach:
    """Client to pods: here I am, answer with `Hello`; renews everything that you know of me.

    Attributes:
        versions: of the client.
        group: number of the last group that the client has sent.
        lease: seconds without a message after which the pod drops this client's work.
        initializer: pickled ``(function, args)`` to run in each CPU process first, or None.
        max_tasks_per_child: calls after which a CPU process is replaced, or None.
        reporting: what the client wants to hear of what its calls log (see `records`), or None
            where it wants to hear nothing that they say.
        surroundings: what its calls are to see of its process (see `surroundings`), or None. Not
            in the `repr`, as it may have secrets.
        within: where the call runs that has made this client: pod and CPU id; None elsewhere.
    """

    kind: ClassVar[int] = 1
    versions: tuple[Any, ...]
    group: int
    lease: float
    initializer: bytes | None
    max_tasks_per_child: int | None
    reporting: bytes | None = None
    surroundings: bytes | None = dataclasses.field(default=None, repr=False)
    within: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """Client to pods: all that one flush sends.

    Attributes:
        number: grows from one to the next (see `cargo`); a pod ignores one that is not newer.
        functions: pickled functions by id, those that some pod here does not have yet.
        released: ids of functions that no call will use again.
        shares: pod to (how many calls may run there at once, its calls): by its name in the client,
            by the address that it has given this client on the wire.
        needs: ids of the blobs without which a call cannot run, by its id; those of a function
            by its id's negative. They come in chunks, before or after this.
        limits: seconds that a call, or each item of a range, may run, by the call's id; of those
            that have such a limit.
    """

    kind: ClassVar[int] = 2
    number: int
    functions: dict[int, bytes]
    released: list[int]
    shares: dict[str, tuple[int, list[Call]]]
    needs: dict[int, list[int]]
    limits: dict[int, float] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Renew:
    """Client to one pod: I am alive, and have the results up to number `results`.

    Attributes:
        group: number of the last group that the client has sent.
        results: number of the last `Results`, or `Printed`, that it has.
        released: ids of blobs that no call will need that is not there yet.
        reporting: what it wants to hear, which may have changed since its `Attach`.
    """

    kind: ClassVar[int] = 3
    group: int
    results: int
    released: list[int]
    reporting: bytes | None = None


@dataclass(frozen=True, slots=True)
class Recall:
    """Client to pods: give these calls back if they have not started (answer: `Returned`)."""

    kind: ClassVar[int] = 4
    calls: list[int]


@dataclass(frozen=True, slots=True)
class Detach:
    """Client to pods: I leave; drop my calls, and end running ones with this signal (0: let be)."""

    kind: ClassVar[int] = 5
    signal: int


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of something bulky; the tail has it. They come in order.

    Attributes:
        subject: id of the call whose outcome this is, or of the blob.
        item: of the call; for a blob its kind, which is negative.
        index: counts the pieces, of which all but the last have `CHUNK_SIZE` bytes.
        size: bytes of the whole.
        tail: the bytes.
    """

    kind: ClassVar[int] = 6
    subject: int
    item: int
    index: int
    size: int
    tail: bytes | memoryview = dataclasses.field(repr=False)

    @property
    def is_last(self) -> bool:
        """Whether it completes its body."""
        return self.index * CHUNK_SIZE + len(self.tail) == self.size


@dataclass(frozen=True, slots=True)
class Hello:
    """Pod to client: what I am, and what I hold of yours.

    Attributes:
        name: the pod's name.
        node: the machine that it runs on.
        pid: process id of the agent, in the pod's own numbering.
        cpu_ids: one for each CPU process.
        versions: of the pod.
        reply: True where it answers an `Attach`, False where the pod announces itself.
        group: number of the newest group that it has seen from this client.
        holding: ids of the client's calls that it has, those included whose outcome the
            client has not confirmed.
        results: number of the last `Results` or `Printed` before those that follow this message.
        shape: the settings that the pod was made with, as texts.
        pool_cpus: CPUs of the whole pool where it was made to have all that it can; else 0.
        blobs: ids of the client's blobs that it has.
        address: what the client is to write on what it sends to this pod; see `codec`.
    """

    kind: ClassVar[int] = 7
    name: str
    node: str
    pid: int
    cpu_ids: list[int]
    versions: tuple[Any, ...]
    reply: bool
    group: int
    holding: list[int]
    results: int
    shape: dict[str, str]
    pool_cpus: int
    blobs: list[int]
    address: str = ""


@dataclass(frozen=True, slots=True)
class Results:
    """Pod to client: outcomes, kept by the pod until the client confirms this number."""

    kind: ClassVar[int] = 8
    number: int
    outcomes: list[Outcome]


@dataclass(frozen=True, slots=True)
class Returned:
    """Pod to client: what of these calls has no outcome yet will not run here.

    Attributes:
        calls: their ids.
        draining: whether the pod takes no calls any more.
    """

    kind: ClassVar[int] = 9
    calls: list[int]
    draining: bool


@dataclass(frozen=True, slots=True)
class NotInitialized:
    """Pod to client: your initializer has failed, and none of your calls will run here.

    Attributes:
        cpu_id: of the process.
        status: `EXCEPTION` or `CRASHED`.
        body: as of an outcome with that status.
    """

    kind: ClassVar[int] = 10
    cpu_id: int
    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Goodbye:
    """Pod to its clients: I have drained, and end for this reason; what comes now never starts."""

    kind: ClassVar[int] = 11
    reason: str


@dataclass(frozen=True, slots=True)
class Printed:
    """Pod to client: what calls say while they run; kept by the pod as `Results` are.

    Attributes:
        number: in one count with those of `Results`.
        lines: (call id, item, CPU id, kind, body) each.
    """

    kind: ClassVar[int] = 12
    number: int
    lines: list[tuple[int, int, int, int, bytes]]


@dataclass(frozen=True, slots=True)
class Yield:
    """Client to the pods of another pool: I want your CPUs; end, those of you without a client."""

    kind: ClassVar[int] = 13
    pool: str


@dataclass(frozen=True, slots=True)
class Credit:
    """To whoever sends chunks: so many bytes of them have been taken, and more may come.

    Bodies of `Results` count, too; `lanes` says which.
    """

    kind: ClassVar[int] = 14
    size: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """Client to one pod: nobody waits for these calls, which `submit` made, any more.

    Those that have not started come back (`Returned`); of those that run, the CPU process is ended.
    """

    kind: ClassVar[int] = 15
    calls: list[int]


@dataclass(frozen=True, slots=True)
class Held:
    """Pod to a client that was made in a call: calls of yours wait here, and none runs.

    For each of the pod's CPUs is held by a call that has made a client of its own on this pool.
    Said every second for as long as that is so.
    """

    kind: ClassVar[int] = 16


@dataclass(frozen=True, slots=True)
class Occupied:
    """Pod to client: calls of yours wait, as every CPU process is at work for other clients.

    Attributes:
        holders: (client, its CPU processes, seconds after which it is given up unless it is heard;
            negative where it is there).
    """

    kind: ClassVar[int] = 17
    holders: list[tuple[str, int, float]]


@dataclass(frozen=True, slots=True)
class Left:
    """Pod to a client that has left with a signal: none of its calls runs any more.

    What they have said until then has come before this.
    """

    kind: ClassVar[int] = 18


Message = (
    Attach
    | Group
    | Renew
    | Recall
    | Detach
    | Chunk
    | Hello
    | Results
    | Returned
    | NotInitialized
    | Goodbye
    | Printed
    | Yield
    | Credit
    | Cancel
    | Held
    | Occupied
    | Left
)
