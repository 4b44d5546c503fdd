"""Blobs: the bulky parts of calls and functions, each sent to a pod once.

A blob is bytes that do not change, under an id that is never used again. What is pickled is
compared with the blobs there are by its contents, so that an array that a hundred calls share is
one blob, whoever holds it, and an array that was changed in between is another.

A blob lives for as long as anything refers to it: a call that has not been settled, a function;
and the most recent ones, up to a bound, for calls to come. When it goes, so do the pods'
copies of it.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakValueDictionary

from . import bodies
from .bulk_memory import MOST_KEPT, PART_OF_MEMORY
from .messages import DATA, INLINE_LIMIT, MODULES
from .module_blobs import Attached, ModuleBlobs
from .serialization import dumps, split
from .shipping import Shipper

_SAMPLE: Final = 64


class Blob:
    """See the module's text.

    Attributes:
        id: unique in its executor.
        kind: `messages.DATA` or `messages.MODULES`.
        data: its bytes.
    """

    __slots__ = ("__weakref__", "_gone", "data", "id", "kind", "wanted_again")

    def __init__(self, number: int, kind: int, data: bytes, gone: deque[int]) -> None:
        self.id = number
        self.kind = kind
        self.data = data
        self.wanted_again = False  # whether a second call has asked for it
        self._gone = gone

    def __del__(self) -> None:
        self._gone.append(self.id)


class Bulky(bytes):
    """A body whose parts are blobs; keeps them alive.

    Attributes:
        blobs: its parts.
        in_pickle: whether any of them is of the pickle itself, and not a buffer beside it.
    """

    blobs: tuple[Blob, ...] = ()
    in_pickle = False


class Blobs:
    """The blobs of one executor. Safe for threads that submit at the same time.

    Args:
        kept: bytes of blobs that no call needs at the moment to keep for later ones; each pod keeps
            as much.
        shipper: of the user's own modules.
    """

    def __init__(self, kept: int = MOST_KEPT, shipper: Shipper | None = None) -> None:
        self._kept = kept
        self._modules = ModuleBlobs(shipper or Shipper(), self._bundle)
        self._ids = itertools.count(1)
        self._lock = threading.Lock()
        self._known: WeakValueDictionary[tuple[Any, ...], Blob] = WeakValueDictionary()
        self._recent: OrderedDict[int, Blob] = OrderedDict()
        self._size = 0
        self._gone: deque[int] = deque()
        self._alive: set[int] = set()

    def take_gone(self) -> list[int]:
        """Ids of the blobs that are gone since the last time."""
        with self._lock:
            gone = [self._gone.popleft() for _ in range(len(self._gone))]
            self._alive.difference_update(gone)
        return gone

    def is_alive(self, number: int) -> bool:
        """Whether there is a blob with this id, or `take_gone` has not told yet that it is gone."""
        return number in self._alive

    def keep(self, data: bytes | memoryview, kind: int = DATA) -> Blob:
        """The blob with these bytes.

        Args:
            data: copied, unless it is ``bytes`` or there is a blob like it.
            kind: what they are.
        """
        size = len(data)
        middle = size // 2
        key = (
            kind,
            size,
            bytes(data[:_SAMPLE]),
            bytes(data[middle : middle + _SAMPLE]),
            bytes(data[-_SAMPLE:]),
        )
        known = self._known.get(key)
        if known is not None and _equal(known.data, data):
            known.wanted_again = True
            self._touch(known)
            return known
        blob = Blob(next(self._ids), kind, bytes(data), self._gone)
        with self._lock:
            self._known[key] = blob
            self._alive.add(blob.id)
        self._touch(blob)
        return blob

    def _bundle(self, data: bytes) -> Blob:
        blob = self.keep(data, MODULES)
        blob.wanted_again = True  # it is no part of what an item of a map takes
        return blob

    def _touch(self, blob: Blob) -> None:
        dropped = []
        with self._lock:
            if self._recent.pop(blob.id, None) is None:
                self._size += len(blob.data)
            self._recent[blob.id] = blob
            while self._size > self._kept:
                _, oldest = self._recent.popitem(last=False)
                self._size -= len(oldest.data)
                dropped.append(oldest)
        # Outside the lock: some end here.
        dropped.clear()

    def forget_recent(self) -> None:
        """No call is to come any more: nothing is kept for one."""
        with self._lock:
            recent, self._recent = self._recent, OrderedDict()
            self._size = self._kept = 0
        recent.clear()

    # --- bodies

    def dumps(self, obj: object) -> bytes:
        """Pickle an object, its bulky parts as blobs.

        Args:
            obj: anything.

        Returns:
            A body; where it has parts, it is `Bulky`.

        Raises:
            Exception: what pickling raised.
        """
        segments, buffers = split(obj, INLINE_LIMIT)
        modules = self._modules.of(segments)
        if not buffers and len(segments) == 1 and len(segments[0]) <= INLINE_LIMIT:
            return segments[0] if modules is None else _with_modules(modules, segments[0])
        used: list[Blob] = []

        def number_of(data: bytes | memoryview) -> int:
            used.append(self.keep(data))
            return used[-1].id

        numbers = [
            segment if len(segment) <= INLINE_LIMIT else number_of(segment) for segment in segments
        ]
        in_pickle = bool(used)
        body = Bulky(bodies.with_parts(numbers, [number_of(one.raw()) for one in buffers]))
        body.blobs, body.in_pickle = tuple(used), in_pickle
        return body if modules is None else _with_modules(modules, body)

    def dumps_initializer(self, obj: object) -> bytes:
        """Pickle what every process loads before it runs calls, in one piece.

        Args:
            obj: anything.

        Returns:
            A body; its modules are among those of every function from now on.

        Raises:
            Exception: what pickling raised.
        """
        data = dumps(obj)
        modules = self._modules.always(data)
        return data if modules is None else _with_modules(modules, data)

    def dumps_call(
        self, function: Callable[..., object], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> bytes:
        """Pickle a call whose callable travels with it.

        Args:
            function: a callable with state of its own.
            args: its positional arguments.
            kwargs: its keyword arguments.

        Returns:
            The body of ``((function, *args), kwargs)``. Where the callable is bulky, it is
            pickled by itself, so that its state is the same blob in every call.

        Raises:
            Exception: what pickling raised.
        """
        body = self.dumps(((function, *args), kwargs))
        if not isinstance(body, Bulky) or not body.in_pickle:
            return body
        callee = self.dumps(function)
        if not isinstance(callee, Bulky):
            return body
        arguments = self.dumps((args, kwargs))
        both = Bulky(bodies.pair(callee, arguments))
        both.blobs = callee.blobs + blobs_of(arguments)
        return both


def _with_modules(modules: Attached, body: bytes) -> Bulky:
    whole = Bulky(modules.prefix + body)
    whole.blobs = modules.blobs + blobs_of(body)
    whole.in_pickle = isinstance(body, Bulky) and body.in_pickle
    return whole


def kept_in_pods(memory: str | None) -> int:
    """Bytes of blobs that no call needs at the moment, and that pods of a size may keep.

    Args:
        memory: what a pod may use, as Kubernetes writes it, or None for no limit.
    """
    if memory is None:
        return MOST_KEPT
    from .quantities import quantity

    return min(MOST_KEPT, int(quantity(memory)) // PART_OF_MEMORY)


def blobs_of(body: bytes | None) -> tuple[Blob, ...]:
    """The blobs that a body needs."""
    return body.blobs if isinstance(body, Bulky) else ()


def size_of(body: bytes) -> int:
    """Bytes of a body and of the blobs that nothing else has needed yet."""
    return len(body) + sum(len(blob.data) for blob in blobs_of(body) if not blob.wanted_again)


def _equal(known: bytes, data: bytes | memoryview) -> bool:
    # Of the same size. `startswith` compares with memcmp, which memoryviews do not.
    return known == data if isinstance(data, bytes) else known.startswith(data)
