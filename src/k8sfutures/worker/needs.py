"""What the calls of one client need beside themselves: which blobs, and which are there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..bodies import parts_of
from ..messages import Call


class Needs:
    """See the module's text.

    Args:
        initializer: the client's, which every call needs, or None.

    Attributes:
        have: ids of the blobs that are there.
        parked: calls that wait for blobs, by id, in the order in which they came.
    """

    def __init__(self, initializer: bytes | None = None) -> None:
        self.have: set[int] = set()
        self.parked: dict[int, Call] = {}
        self._always = parts_of(initializer) if initializer else []
        self._of_calls: dict[int, list[int]] = {}
        self._of_functions: dict[int, list[int]] = {}
        self._missing: dict[int, set[int]] = {}  # of parked calls
        self._awaited: dict[int, list[int]] = {}  # blob -> calls that were parked for it
        self._released: set[int] = set()

    def __bool__(self) -> bool:
        """Whether any call or function needs anything."""
        return bool(self._of_calls or self._of_functions or self._always)

    def note(self, needs: Mapping[int, list[int]], calls: Iterable[Call]) -> None:
        """Take in what a group says of its functions, and of these calls."""
        if needs:
            self._of_functions.update((-key, blobs) for key, blobs in needs.items() if key < 0)
            self._of_calls.update((call[0], needs[call[0]]) for call in calls if call[0] in needs)

    def of(self, call: Call) -> list[int]:
        """The blobs that a call needs, those of its function and of the initializer included."""
        of_function, own = self._of_functions.get(call[1], []), self._of_calls.get(call[0], [])
        return self._always + of_function + own

    def park(self, call: Call) -> bool:
        """Keep a call whose blobs are not all there; returns whether that is so."""
        missing = set(self.of(call)) - self.have
        if not missing:
            return False
        self.parked[call[0]] = call
        self._missing[call[0]] = missing
        for blob in missing:
            self._awaited.setdefault(blob, []).append(call[0])
        return True

    def arrived(self, blob: int) -> list[Call]:
        """A blob is there; returns the calls that waited for it and can run."""
        self.have.add(blob)
        ready = []
        for call_id in self._awaited.pop(blob, ()):
            missing = self._missing.get(call_id)
            if missing is not None:  # else it has been taken back
                missing.discard(blob)
                if not missing:
                    del self._missing[call_id]
                    ready.append(self.parked.pop(call_id))
        return ready

    def begin_anew(self) -> list[int]:
        """What has not arrived will not; returns the calls that are given up for it."""
        given_up = list(self.parked)
        for call_id in given_up:
            self.finished(call_id)
        self._awaited.clear()
        return given_up

    def finished(self, call_id: int) -> None:
        """A call needs nothing any more."""
        self._of_calls.pop(call_id, None)
        if self.parked.pop(call_id, None) is not None:
            del self._missing[call_id]

    def forget_functions(self, functions: Iterable[int]) -> None:
        """No call will use these functions again."""
        for function in functions:
            self._of_functions.pop(function, None)

    def release(self, blobs: Iterable[int], at_work: Iterable[Call]) -> list[int]:
        """No other call will need these blobs.

        Args:
            blobs: their ids.
            at_work: the calls that are here and not parked.

        Returns:
            Those that can go now; those of calls that are here go with a later release.
        """
        self._released.update(blobs)
        if not self._released:
            return []
        needed: set[int] = set()
        for call in (*self.parked.values(), *at_work):
            needed.update(self.of(call))
        gone = sorted(self._released - needed)
        self._released.difference_update(gone)
        self.have.difference_update(gone)
        return gone
