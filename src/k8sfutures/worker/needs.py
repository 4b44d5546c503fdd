"""What the calls of one client need beside themselves: which blobs, and which are there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..messages import Call


class Needs:
    """See the module's text.

    Attributes:
        have: ids of the blobs that are there.
        parked: calls that wait for blobs, by id.
    """

    def __init__(self) -> None:
        self.have: set[int] = set()
        self.parked: dict[int, Call] = {}
        self._of_calls: dict[int, list[int]] = {}
        self._of_functions: dict[int, list[int]] = {}
        self._released: set[int] = set()

    def __bool__(self) -> bool:
        """Whether any call or function needs anything."""
        return bool(self._of_calls or self._of_functions)

    def note(self, needs: Mapping[int, list[int]], calls: Iterable[Call]) -> None:
        """Take in what a group says of its functions, and of these calls."""
        if needs:
            self._of_functions.update((-key, blobs) for key, blobs in needs.items() if key < 0)
            self._of_calls.update((call[0], needs[call[0]]) for call in calls if call[0] in needs)

    def of(self, call: Call) -> list[int]:
        """The blobs that a call needs, those of its function included."""
        return self._of_functions.get(call[1], []) + self._of_calls.get(call[0], [])

    def park(self, call: Call) -> bool:
        """Keep a call whose blobs are not all there; returns whether that is so."""
        if self.have.issuperset(self.of(call)):
            return False
        self.parked[call[0]] = call
        return True

    def arrived(self, blob: int) -> list[Call]:
        """A blob is there; returns the calls that waited for it and can run."""
        self.have.add(blob)
        ready = [call for call in self.parked.values() if self.have.issuperset(self.of(call))]
        for call in ready:
            del self.parked[call[0]]
        return ready

    def begin_anew(self) -> list[int]:
        """What has not arrived will not; returns the calls that are given up for it."""
        given_up = list(self.parked)
        for call_id in given_up:
            self.finished(call_id)
        return given_up

    def finished(self, call_id: int) -> None:
        """A call needs nothing any more."""
        self._of_calls.pop(call_id, None)
        self.parked.pop(call_id, None)

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
