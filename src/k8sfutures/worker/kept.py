"""How much of what a client's calls have made its pod keeps for it, and when that is too much.

A pod keeps an outcome until its client has confirmed it. A client that is suspended, or whose
callbacks take their time, confirms nothing, and its calls must not fill the pod meanwhile. So:

* while its share of the room or more is kept for a client, none of its calls is started there;
  what it has waiting stays where it is, in the queue, and what a process was given ahead is taken
  back;
* after an outcome with a file in memory, which has no bound of its own, a CPU process starts
  nothing before its agent says so (`frames.GO_ON`).

So what is kept for a client stays below that, and one outcome more for each CPU process; a
single outcome may be larger. The share is each client's own: a slow one neither
takes the others' room nor their turns, since no process waits for it that could work for them.
What of it is at the broker is bounded by `lanes.WINDOW`.
The agent itself never waits: it reads what its processes say, keeps the leases, and serves calls
of others all the while, and no process is ever stuck half-way in an outcome.
"""

from __future__ import annotations

from collections import deque

from ..bulk_memory import MOST_KEPT, PART_OF_MEMORY


class Room:
    """How many bytes of outcomes are kept for each client. Pure.

    Args:
        memory: bytes that the pod may use, or None for no limit.
    """

    __slots__ = ("_all", "share")

    def __init__(self, memory: int | None = None) -> None:
        self._all = None if memory is None else memory // PART_OF_MEMORY
        self.share = MOST_KEPT
        """Bytes from which on a client's calls have to wait."""
        self.divide(1)

    def divide(self, clients: int) -> None:
        """There are so many clients now."""
        if self._all is not None:
            self.share = max(1, min(MOST_KEPT, self._all // max(1, clients)))


class Kept:
    """Counts the bytes of the outcomes of one client. Pure.

    Args:
        room: of its pod.
    """

    __slots__ = ("_gone", "_marks", "_room", "made")

    def __init__(self, room: Room) -> None:
        self._room = room
        self.made = 0
        """Bytes of all outcomes that there were; added to as one is made."""
        self._gone = 0
        self._marks: deque[tuple[int, int]] = deque()  # number of results, bytes made by then

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self.made - self._gone

    @property
    def is_full(self) -> bool:
        """Whether no call is to be started that would make more."""
        return self.made - self._gone >= self._room.share

    def sent(self, number: int) -> None:
        """All that was made so far is in the results up to this number."""
        self._marks.append((number, self.made))

    def confirmed(self, number: int) -> None:
        """The client has the results up to this number."""
        while self._marks and self._marks[0][0] <= number:
            self._gone = self._marks.popleft()[1]
