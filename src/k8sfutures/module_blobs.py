"""The bundles of the user's own modules as blobs: what a pickle needs, put before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .bodies import before_modules
from .bundles import Bundle
from .imports import take_noted
from .own_modules import reloads
from .shipping import REFERENCE, Shipper

if TYPE_CHECKING:
    from .blobs import Blob

# Opcodes of a bytes object or a text with a length of 4 bytes, and with one of 8.
_BULKY: Final = (b"BX", b"\x8e\x8d\x96")


class Attached:
    """What goes before a pickle, and the blobs with the bundles that it names."""

    __slots__ = ("blobs", "prefix")

    def __init__(self, bundles: Sequence[Bundle], keep: Callable[[bytes], Blob]) -> None:
        self.blobs = tuple([keep(bundle.body) for bundle in bundles])
        named = zip(self.blobs, bundles, strict=True)
        self.prefix = before_modules([(blob.id, bundle.hash) for blob, bundle in named])


class ModuleBlobs:
    """See the module's text. Safe to use from any thread.

    Args:
        shipper: knows which bundles a pickle needs.
        keep: makes a blob of a bundle.
    """

    def __init__(self, shipper: Shipper, keep: Callable[[bytes], Blob]) -> None:
        self._shipper = shipper
        self._keep = keep
        self._lock = threading.Lock()
        self._looked: object = None
        self._always: Attached | None = None
        self._known: dict[tuple[Bundle, ...], Attached] = {}

    def of(self, segments: Sequence[bytes]) -> Attached | None:
        """What goes before a pickle; None where that is nothing.

        Args:
            segments: of the pickle.
        """
        if self._looked is not reloads["last"]:
            self._look_anew()
        data = segments[0] if len(segments) == 1 else b"".join(_code(segments))
        # Most calls refer to nothing, and this is on the way of every one. (Code that travels
        # refers to what makes it.)
        if data.find(REFERENCE) < 0:
            return self._always
        return self._attached(self._shipper.needs(data, take_noted()))

    def always(self, data: bytes) -> Attached | None:
        """What goes before a pickle that every process loads that runs calls.

        Args:
            data: the pickle.

        Returns:
            It; None where that is nothing. It goes before every other pickle from now on.
        """
        bundles = self._shipper.needs(data, take_noted())
        self._shipper.always_ship(bundles)
        self._look_anew()
        return self._attached(bundles)

    def _look_anew(self) -> None:
        looked = reloads["last"]
        with self._lock:
            self._known.clear()  # calls that need the bundles from before keep them
        self._always = self._attached(self._shipper.needs(b""))
        self._looked = looked

    def _attached(self, bundles: tuple[Bundle, ...]) -> Attached | None:
        if not bundles:
            return None
        known = self._known.get(bundles)
        if known is None:
            made = Attached(bundles, self._keep)
            with self._lock:
                known = self._known.setdefault(bundles, made)
        return known


def _code(segments: Sequence[bytes]) -> Iterator[bytes]:
    """The segments of a pickle but for those that are one bulky bytes object or text each."""
    before = b""
    for segment in segments:
        size = len(segment)
        short, long = before[-5:], before[-9:]
        is_bulky = (short[:1] in _BULKY[0] and short[1:] == _little(size, 4)) or (
            long[:1] in _BULKY[1] and long[1:] == _little(size, 8)
        )
        if not (before and is_bulky):
            yield segment
        before = segment


def _little(number: int, size: int) -> bytes:
    return (number % (1 << 8 * size)).to_bytes(size, "little")
