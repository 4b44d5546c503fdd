"""What an executor sends, in messages of a size that brokers take.

What is bulky is put apart as blobs, which calls then need; what is small and too much together
goes in several messages. They are numbered so that a pod, which ignores a message that is not
newer than the last one, and a client that hears how far a pod has come, both understand them:
the parts of group n have the numbers from ``n * MOST_PARTS`` on, and the last one has the
highest.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .blobs import Blob, Blobs, Bulky, blobs_of
from .bodies import with_parts
from .functions import PickledFunction
from .messages import GROUP_LIMIT, INLINE_LIMIT, Call, Group

MOST_PARTS: Final = 1 << 20
"""Of one group; 4 TiB of what is small."""

_ROW: Final = 24
"""Bytes that a call takes beside its body, or its limit, or a blob it needs: at most, about."""


def last_number(group: int) -> int:
    """The number of the last message of a group."""
    return group * MOST_PARTS + MOST_PARTS - 1


def group_until(number: int) -> int:
    """The last group of which a pod has all messages that has this one and all before it."""
    return (number + 1) // MOST_PARTS - 1


class Cargo:
    """See the module's text.

    Args:
        blobs: of the executor.
        initializer: of the executor, with its arguments, or None.
    """

    def __init__(self, blobs: Blobs, initializer: PickledFunction | None) -> None:
        self._blobs = blobs
        self._functions: dict[int, Bulky] = {}
        self.initializer_name = "" if initializer is None else initializer.name
        self.initializer = None if initializer is None else self._within_limit(initializer.data)
        """As it travels with each `Attach`; what it has apart, every call needs."""

    def load(self, group: Group) -> tuple[list[Group], dict[str, list[Blob]]]:
        """Put apart what is bulky in a group, note what its calls need, and number it.

        Args:
            group: by the scheduler; changed in place.

        Returns:
            The messages to send, in order; and the blobs that each pod needs for its share.
        """
        needed: dict[str, list[Blob]] = {}
        functions, needs, of_functions = group.functions, group.needs, self._functions
        total = 0
        for number, data in functions.items():
            # The same blobs for as long as it lives: pods know what a function needs by its id.
            body = of_functions[number] if number in of_functions else self._within_limit(data)
            total += len(body)
            if isinstance(body, Bulky):
                functions[number] = of_functions[number] = body
                needs[-number] = [blob.id for blob in body.blobs]
        for number in group.released:
            of_functions.pop(number, None)
        always = blobs_of(self.initializer)
        row = _row_of(group)
        for name, (_, calls) in group.shares.items():
            used = list(always)
            for at, call in enumerate(calls):
                if of_functions and call[1] in of_functions:
                    used += of_functions[call[1]].blobs
                body = call[3] or b""
                if len(body) > INLINE_LIMIT:
                    body = self._within_limit(body)
                    calls[at] = (*call[:3], body)
                total += len(body) + row
                if isinstance(body, Bulky):
                    total += _ROW * len(body.blobs)
                    used += body.blobs
                    needs[call[0]] = [blob.id for blob in body.blobs]
            if used:
                needed[name] = used
        if total <= GROUP_LIMIT:
            last = last_number(group.number)
            whole = Group(last, functions, group.released, group.shares, needs, group.limits)
            return [whole], needed
        return list(_parts(group)), needed

    def _within_limit(self, body: bytes) -> bytes:
        """A body that is bulky itself as a blob, with those that it needs."""
        if len(body) <= INLINE_LIMIT:
            return body
        blob = self._blobs.keep(bytes(body))
        apart = Bulky(with_parts([blob.id], []))
        apart.blobs = (blob, *blobs_of(body))
        return apart


def _row_of(group: Group) -> int:
    return 2 * _ROW if group.limits else _ROW


def _parts(group: Group) -> Iterator[Group]:
    """A group in several: for all pods what concerns all, then to each pod its share."""
    first, row = group.number * MOST_PARTS, _row_of(group)
    parts: list[tuple[dict[int, bytes], list[int], dict[str, tuple[int, list[Call]]]]] = []
    functions: dict[int, bytes] = {}
    size = 0
    for number, body in group.functions.items():
        if size + len(body) > GROUP_LIMIT:
            parts.append((functions, [], {}))
            functions, size = {}, 0
        functions[number] = body
        size += len(body)
    if functions or group.released:
        parts.append((functions, group.released, {}))
    for name, (limit, calls) in group.shares.items():
        start = size = 0
        for at, call in enumerate(calls):
            body = call[3] or b""
            length = len(body) + row + _ROW * len(blobs_of(body))
            if size + length > GROUP_LIMIT:
                parts.append(({}, [], {name: (limit, calls[start:at])}))
                start, size = at, 0
            size += length
        parts.append(({}, [], {name: (limit, calls[start:])}))
    last = len(parts) - 1
    for at, (some, released, shares) in enumerate(parts):
        ids = [-number for number in some]
        ids += [call[0] for _, calls in shares.values() for call in calls]
        needs = {number: group.needs[number] for number in ids if number in group.needs}
        limits = {number: group.limits[number] for number in ids if number in group.limits}
        number = last_number(group.number) if at == last else first + at
        yield Group(number, some, released, shares, needs, limits)
