"""What one pod sends to its client: results and output by number, chunks that come ahead. Pure."""

from __future__ import annotations

from typing import Final

from .bodies import PARTS
from .chunks import Assembly, Whole
from .lanes import COUNTED, Taken, weight_of
from .messages import CHUNK_SIZE, CRASHED, Chunk, Outcome, Results

CONFIRM_EVERY: Final = 4 * CHUNK_SIZE
"""Bytes of outcomes after which the pod hears that they are here, and lets them go: less than
what it keeps before our calls have to wait (`worker.kept`), also where it is small and has several
clients."""


class Arrivals:
    """See the module's text.

    Args:
        number: of the last results before the first that come.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        """Of the last results, or output, that are here, and all before them."""
        self._heard = number
        self._assembly = Assembly()
        self._taken = Taken()
        self._unconfirmed = 0

    def begin_anew(self) -> None:
        """What was under way may be lost; all that is not confirmed comes again."""
        self._assembly, self._taken = Assembly(), Taken()

    def resume(self, number: int, *, afresh: bool = False) -> None:
        """The pod says anew what it holds, and sends all after this number.

        Args:
            number: see there.
            afresh: whether it had let go of us, and counts anew.
        """
        self.number = number
        if afresh:
            self._heard = number

    def printed(self, number: int) -> bool | None:
        """Take in what calls have said.

        Args:
            number: of the message.

        Returns:
            Whether it is new. None where what was before it is lost: it comes again with that.
        """
        if number > self.number + 1:
            return None
        self.number = max(self.number, number)
        if number <= self._heard:
            return False
        self._heard = number
        return True

    def chunk(self, message: Chunk) -> int:
        """Take in a chunk; returns how many bytes to tell the pod of now, or 0."""
        complete = self._assembly.add(message)
        return self._taken.add(len(message.tail), last=complete)

    def taken(self, message: Results, size: int) -> int:
        """Results have arrived; returns how many bytes to tell the pod of now, or 0.

        Args:
            message: has them.
            size: its bytes as it came.
        """
        if size < COUNTED:
            return 0
        weight = weight_of(sum(len(outcome[4] or b"") for outcome in message.outcomes))
        return self._taken.add(weight, last=False)

    def results(self, message: Results, size: int) -> list[Outcome] | None:
        """Take in results.

        Args:
            message: has them.
            size: its bytes as it came.

        Returns:
            Their outcomes, with their parts; none where they came before. None where parts are
            missing, or what was said before: they were lost with a connection, and so these results
            count for lost, too. They come again, and what calls have said before them.
        """
        if message.number <= self.number:
            return []
        if message.number > self.number + 1:
            return None
        self._unconfirmed += size
        outcomes: list[Outcome] = []
        for outcome in message.outcomes:
            call, item, status, micros, body = outcome
            if body and body[0] == PARTS and status != CRASHED:
                memory = self._assembly.take(call, item)
                if memory is None:
                    return None
                self._unconfirmed += len(memory)
                outcomes.append((call, item, status, micros, Whole.of(body, memory)))
            else:
                outcomes.append(outcome)
        self.number = message.number
        return outcomes

    def must_confirm(self) -> bool:
        """Whether the pod is to hear at once of what is here; true once for each time."""
        if self._unconfirmed < CONFIRM_EVERY:
            return False
        self._unconfirmed = 0
        return True
