"""The bundles of the user's own modules as blobs: what a pickle needs, put before it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from .bodies import before_modules
from .bundles import Bundle
from .imports import take_noted
from .shipping import Shipper

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
        self._known: dict[tuple[Bundle, ...], Attached] = {}

    def of(self, segments: Sequence[bytes]) -> Attached | None:
        """What goes before a pickle; None where that is nothing.

        Args:
            segments: of the pickle.
        """
        noted = take_noted()
        if len(segments) == 1:
            bundles = self._shipper.needs(segments[0], noted)
        else:
            bundles = self._shipper.needs(b"".join(_code(segments)), noted)
        return self._attached(bundles) if bundles else None

    def always(self, segments: Sequence[bytes]) -> Attached | None:
        """Likewise, of a pickle that every process loads that runs calls.

        Args:
            segments: of the pickle.
        """
        bundles = self._shipper.needs(segments[0], take_noted())
        self._shipper.always_ship(bundles)
        return self._attached(bundles) if bundles else None

    def _attached(self, bundles: tuple[Bundle, ...]) -> Attached:
        known = self._known.get(bundles)
        if known is None:
            made = Attached(bundles, self._keep)
            with self._lock:
                if len(self._known) > 100:  # they differ by reloads, and old ones are of no use
                    self._known.clear()
                known = self._known.setdefault(bundles, made)
        return known


def _code(segments: Sequence[bytes]) -> Iterator[bytes]:
    """The segments of a pickle but for those that are one bulky bytes object or text each."""
    before = b""
    for segment in segments:
        size = len(segment)
        short, long = before[-5:], before[-9:]
        is_bulky = short[:1] in _BULKY[0] and short[1:] == (size & 0xFFFF_FFFF).to_bytes(
            4, "little"
        )
        is_bulky = is_bulky or (long[:1] in _BULKY[1] and long[1:] == size.to_bytes(8, "little"))
        if not (before and is_bulky):
            yield segment
        before = segment
