"""Bodies: a pickle, and the bulky parts of it that travel and stay beside it.

A body that is small is the pickle itself, whose first byte is `PICKLE`. A bulky one starts with
`PARTS`, then msgpack ``[segments, buffers, ...]``: the segments make up the pickle, and each is
bytes, or an integer that names a part; the buffers are the parts that protocol 5 keeps out of
the pickle (PEP 574). `PAIR` is followed by msgpack ``[callable, (args, kwargs)]``, a body each.
`MODULES` says which of the client's own modules must be in place before the rest is loaded: a
length in 4 bytes, msgpack ``[[number of a part, hash of the bundle in it], ...]``, and a body.

What the integers mean, the holder of the parts knows: ids of blobs in calls, places in the
sender's shared memory in outcomes.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

PICKLE: Final = 0x80
"""The first byte of every pickle of protocol 2 and later."""
PARTS: Final = 0x01
PAIR: Final = 0x02
MODULES: Final = 0x03

Part = Callable[[int], memoryview]
"""Gives a part by its number; its memory is the caller's, to keep and to change."""

Modules = list[tuple[int, str]]
"""(number of a part, hash of the bundle in it)."""


def with_parts(segments: Sequence[bytes | int], buffers: Sequence[int], *more: object) -> bytes:
    """The body of a pickle that has parts.

    Args:
        segments: bytes of the pickle, or numbers of parts, in order.
        buffers: numbers of the parts that are its out-of-band buffers, in order.
        *more: what the holder of the parts wants to add.
    """
    packed: bytes = msgpack.packb((segments, buffers, *more))
    return bytes((PARTS,)) + packed


def pair(function: bytes, arguments: bytes) -> bytes:
    """The body of a call whose callable is a body of its own.

    Args:
        function: the callable's.
        arguments: that of ``(args, kwargs)``.
    """
    packed: bytes = msgpack.packb((function, arguments))
    return bytes((PAIR,)) + packed


def before_modules(modules: Modules) -> bytes:
    """What a body begins with that needs modules.

    Args:
        modules: which.
    """
    packed: bytes = msgpack.packb(modules)
    return bytes((MODULES,)) + len(packed).to_bytes(4, "little") + packed


def loads(
    body: bytes | memoryview, part: Part, enter: Callable[[Modules], None] | None = None
) -> Any:
    """Load what a body holds.

    Args:
        body: of any of the forms.
        part: gives its parts.
        enter: has modules in place, before anything is loaded that needs them.

    Returns:
        The object; for a pair, ``((callable, *args), kwargs)``.

    Raises:
        Exception: whatever unpickling raises.
    """
    first = body[0] if body else PICKLE
    if first == PICKLE:
        return pickle.loads(body)
    if first == MODULES and enter is not None:
        end = 5 + int.from_bytes(body[1:5], "little")
        enter(msgpack.unpackb(memoryview(body)[5:end], use_list=False))
        return loads(memoryview(body)[end:], part, enter)
    if first == PAIR:
        callee, arguments = msgpack.unpackb(memoryview(body)[1:])
        function = loads(callee, part, enter)
        args, kwargs = loads(arguments, part, enter)
        return (function, *args), kwargs
    segments, numbers, *_ = unpacked(body)
    buffers = [part(number) for number in numbers]
    if len(segments) == 1:
        (only,) = segments
        whole = part(only) if isinstance(only, int) else only
        if whole[0] != PICKLE:
            return loads(whole, part, enter)  # a body that was put apart with its own parts
        return pickle.loads(whole, buffers=buffers)
    pieces = [
        part(segment) if isinstance(segment, int) else memoryview(segment) for segment in segments
    ]
    return pickle.Unpickler(_Pieces(pieces), buffers=buffers).load()


def unpacked(body: bytes | memoryview) -> tuple[Any, ...]:
    """What follows `PARTS`: segments, buffers, and what `with_parts` was given besides."""
    found: tuple[Any, ...] = msgpack.unpackb(memoryview(body)[1:], use_list=False)
    return found


def parts_of(body: bytes | memoryview) -> list[int]:
    """Numbers of the parts of a body, in order; none where it is the pickle itself."""
    if not body or body[0] != PARTS:
        return []
    segments, buffers, *_ = unpacked(body)
    return [segment for segment in segments if isinstance(segment, int)] + list(buffers)


class _Pieces(io.RawIOBase):
    """Reads pieces of memory one after the other, without joining them."""

    def __init__(self, pieces: list[memoryview]) -> None:
        self._pieces = pieces
        self._at = 0
        self._offset = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Any, /) -> int:
        """Fill the target, across pieces."""
        wanted = memoryview(target).cast("B")
        done = 0
        while done < len(wanted) and self._at < len(self._pieces):
            piece = self._pieces[self._at]
            taken = min(len(wanted) - done, len(piece) - self._offset)
            wanted[done : done + taken] = piece[self._offset : self._offset + taken]
            done += taken
            self._offset += taken
            if self._offset == len(piece):
                self._at += 1
                self._offset = 0
        return done

    def readline(self, _limit: int | None = -1, /) -> bytes:
        """Only protocols before 2 have lines."""
        raise pickle.UnpicklingError("a pickle of protocol 0 in pieces")


class Segments:
    """The file that a pickler writes to: big bytes objects come as they are, and are kept apart.

    CPython's pickler hands large ``bytes`` and encoded ``str`` to the file without copying them.

    Args:
        limit: bytes of a piece from which on it is a segment of its own.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._small: list[bytes] = []
        self._found: list[bytes] = []
        self.code: list[bytes] = []
        """The segments that are more than one bulky bytes object or text each."""

    def write(self, data: Any, /) -> int:
        """Take a piece: bytes, or a buffer that stays in the pickle and is not very small."""
        if isinstance(data, pickle.PickleBuffer):
            data = data.raw()
        if len(data) < self._limit:
            self._small.append(bytes(data))
        else:
            self._close()
            self._found.append(bytes(data))  # no copy where it is bytes
        return len(data)

    def clear(self) -> None:
        """Forget everything that was written."""
        self._small, self._found, self.code = [], [], []

    def _close(self) -> None:
        if self._small:
            self.code.append(b"".join(self._small))
            self._found.append(self.code[-1])
            self._small = []

    def take(self) -> list[bytes]:
        """All segments, in order."""
        self._close()
        return self._found
