"""What the calls of a pod print and report, on its way to their clients: bounded, and told apart.

Pure, as the dispatcher is that uses it. A call can print more than anyone wants to read, and
must harm nobody by it: neither the agent's memory nor the broker nor the client. So a pod sends
a client no more than `MOST_OF_CLIENT` in a second, and of one call no more than `MOST_OF_CALL`.
What is above is cut, counted and told. It is the client's signs of life that let it send more: one
comes every second, and some besides, as a client confirms at once what a pod says that is to end;
those count for the time that has passed. A client that does not read (a program that is stopped,
say) gives none, and so never has more than that waiting at the broker from any pod.

What was sent is kept until the client has confirmed it, and sent again when a connection was lost.
That counts as well, so that what is said while the broker is away is bounded in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..messages import DROPPED, STDERR, STDOUT
from .frames import NO_TOKEN

if TYPE_CHECKING:
    from .ledger import Slot

MOST_OF_CALL: Final = 2 << 20
"""Bytes, as `cost_of` counts them, of one call in a second: 14,000 lines of 80 characters, faster
than one can read."""

MOST_OF_CLIENT: Final = 8 << 20
"""Likewise of all calls of a client, on this pod."""

SOONEST: Final = 0.5
"""Seconds after a sign of life in which another lets nothing more be sent: what was cut is not to
be told each time."""

OF_A_LINE: Final = 64
"""Bytes that a line counts as beside its text: short ones cost the client as much."""

TAIL: Final = 16384
"""Bytes kept of what a call printed last, to be told if its process dies."""

LAST_LINES: Final = 20
"""Lines told of those."""

LAST_FRAMES: Final = 40
"""Lines told of where Python was as its process died."""

Line = tuple[int, int, int, int, bytes]
"""(call id, item, CPU id, kind, body), see `messages.Printed`."""

_STACK: Final = re.compile(
    rb"^(?:Fatal Python error: |(?:Current thread 0x\w+|Stack) \(most recent call first\):)",
    re.MULTILINE,
)
"""How `faulthandler` begins to tell where Python was; the place is first in what follows."""

_LAST_WORDS: Final = re.compile(rb"^Fatal Python error: ", re.MULTILINE)
"""How it begins as a process crashes, which ends with that."""

MOST_HELD: Final = 1 << 16
"""Bytes of last words that are held back."""


_NOISE: Final = (
    *(f'  File "{file}' for file in (f"{Path(__file__).parent}/", "<frozen runpy>")),
    "Extension modules: ",
)
"""How lines begin that say nothing of the user's: frames of ours, and what has been imported in the
process, by other clients as well."""


def cost_of(body: bytes) -> int:
    """What a piece of text or a record costs those that it goes to, in bytes."""
    return len(body) + OF_A_LINE * (1 + body.count(b"\n"))


class Said:
    """What calls of one client have said, and it has not been sent yet."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._size = 0  # of them
        self._left = MOST_OF_CLIENT
        self._renewed = -math.inf
        self._spent: dict[tuple[int, int], int] = {}
        self._dropped: dict[tuple[int, int], list[int]] = {}  # CPU id, lines, bytes
        self._cut: set[tuple[int, int, int]] = set()  # whose line was cut, with its kind

    def add(self, call: int, item: int, cpu_id: int, kind: int, body: bytes) -> bool:
        """Take something that a call said.

        Args:
            call: its id.
            item: which of its items.
            cpu_id: where it runs.
            kind: one of `messages`.
            body: text in UTF-8, or a record.

        Returns:
            Whether there was room for it.
        """
        key = call, item
        cost = cost_of(body)
        spent = self._spent.get(key, 0) + cost
        if spent > MOST_OF_CALL or cost > self._left:
            self._drop(key, cpu_id, kind, body)
            return False
        if (*key, kind) in self._cut:  # the rest of a line whose beginning is gone comes first
            rest, newline, body = body.partition(b"\n")
            self._drop(key, cpu_id, kind, rest + newline)
            if not body:
                return True
        self._spent[key] = spent
        self._left -= cost
        self._size += cost
        before = self.lines[-1] if self.lines else None
        if kind <= STDERR and before is not None and before[:4] == (call, item, cpu_id, kind):
            self.lines[-1] = (call, item, cpu_id, kind, before[4] + body)
        else:
            self.lines.append((call, item, cpu_id, kind, body))
        return True

    def _drop(self, key: tuple[int, int], cpu_id: int, kind: int, body: bytes) -> None:
        dropped = self._dropped.setdefault(key, [cpu_id, 0, 0])
        dropped[1] += body.count(b"\n") if kind <= STDERR else 1
        dropped[2] += len(body)
        if kind <= STDERR:
            cut = (*key, kind)
            if body.endswith(b"\n"):
                self._cut.discard(cut)
            else:
                self._cut.add(cut)

    def ended(self, call: int, item: int) -> None:
        """The item has an outcome: it says nothing more."""
        if self._spent:
            self._spent.pop((call, item), None)
        if self._dropped:
            self._tell((call, item))
        if self._cut:
            self._cut -= {(call, item, STDOUT), (call, item, STDERR)}

    def renew(self, now: float, unconfirmed: int = 0) -> None:
        """The client has given a sign of life.

        Args:
            now: the time.
            unconfirmed: bytes, as `cost_of` counts them, that were taken and that it may not have.
        """
        seconds = min(1.0, now - self._renewed)
        if seconds < SOONEST:
            return
        self._renewed = now
        most = MOST_OF_CLIENT - self._size - unconfirmed
        self._left = min(most, self._left + int(MOST_OF_CLIENT * seconds))
        less = int(MOST_OF_CALL * seconds)
        self._spent = {key: cost - less for key, cost in self._spent.items() if cost > less}
        for key in list(self._dropped):
            self._tell(key)

    def _tell(self, key: tuple[int, int]) -> None:
        dropped = self._dropped.pop(key, None)
        if dropped is not None:
            cpu_id, lines, size = dropped
            self.lines.append((*key, cpu_id, DROPPED, b"%d %d" % (lines, size)))

    def take(self) -> tuple[list[Line], int]:
        """All that waits, and what it costs."""
        taken = self.lines, self._size
        self.lines, self._size = [], 0
        return taken


class Words:
    """What a CPU process prints: cut where characters end, and the last of it kept."""

    def __init__(self) -> None:
        self._owner = (0, 0)
        self._tail = b""
        self._begun: dict[int, bytes] = {}  # the first bytes of a character, by stream
        self.held = b""
        """What may be the last words of a process that crashes: for its exception alone."""
        self._is_old = False  # it was held at the last look already

    def hold(self, body: bytes) -> bytes:
        """Hold back last words, if these bytes of stderr have any; returns what is to be sent."""
        if not self.held:
            found = _LAST_WORDS.search(body)
            if found is None:
                return body
            self.held, self._is_old = body[found.start() :], False
            return body[: found.start()]
        self.held += body
        return self.let_go()[1] if len(self.held) > MOST_HELD else b""

    def let_go(self) -> tuple[tuple[int, int], bytes]:
        """Hold nothing back any more; returns whose it was (token and item), and what."""
        held, self.held = self.held, b""
        return self._owner, held

    def is_alive(self) -> bool:
        """Whether something is held since before the last time: these were no last words."""
        was_old, self._is_old = self._is_old, bool(self.held)
        return was_old and bool(self.held)

    def take(self, owner: tuple[int, int], stream: int, data: bytes) -> bytes:
        """Take the next bytes of a stream.

        Args:
            owner: token and item that printed them.
            stream: 1 or 2.
            data: as they were written.

        Returns:
            What is to be sent: with the character that was begun before, and without the one
            that is not complete yet.
        """
        if owner != self._owner:
            self._owner = owner
            self._tail = b""
            self._begun.clear()
        self._tail = (self._tail + data[-TAIL:])[-TAIL:]
        if self._begun:
            data = self._begun.pop(stream, b"") + data
        end = _end_of_whole(data)
        if end < len(data):
            self._begun[stream] = data[end:]
            return data[:end]
        return data

    def last_lines(self, owner: tuple[int, int]) -> tuple[str, str]:
        """The last that this item printed, on either stream; and where Python was as it died."""
        if owner != self._owner:
            return "", ""
        at = start_of_stack(self._tail)
        printed, stack = (
            part.decode("utf-8", "replace").splitlines()
            for part in (self._tail[:at], self._tail[at:])
        )
        theirs = [line for line in stack if not line.startswith(_NOISE)]
        return "\n".join(printed[-LAST_LINES:]), "\n".join(theirs[:LAST_FRAMES]).rstrip()

    def without_stack(self, body: bytes) -> bytes:
        """What of these bytes, the last that were taken, comes before where Python was."""
        before = len(self._tail) - len(body)
        return body[: max(0, start_of_stack(self._tail) - max(0, before))]


def start_of_stack(data: bytes) -> int:
    """Where in what a process printed it begins to tell where Python was; its end if nowhere."""
    found = _STACK.search(data)
    return found.start() if found else len(data)


def _end_of_whole(data: bytes) -> int:
    """Where the last complete character of UTF-8 ends."""
    size = len(data)
    for back in range(1, min(3, size) + 1):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4 if byte < 0xF8 else 1
            return size - back if needed > back else size
    return size


class Sayings:
    """Tells whose words are whose.

    Args:
        slots: the dispatcher's, by CPU id.
    """

    def __init__(self, slots: Mapping[int, Slot]) -> None:
        self._slots = slots
        self._log: list[bytes] = []

    def printed(self, cpu_id: int, stream: int, data: bytes) -> bool:
        """Bytes from the pipe of a CPU process: those of the item that runs there.

        Args:
            cpu_id: which process.
            stream: 1 or 2.
            data: as they were written.

        Returns:
            Whether there was room for them.
        """
        slot = self._slots[cpu_id]
        token, item = next(((token, job.next) for token, job in slot.jobs.items()), (0, 0))
        body = slot.words.take((token, item), stream, data)
        if slot.ending is not None and slot.ending.token == token:
            body = slot.words.without_stack(body)  # that is for its exception alone
        elif stream == STDERR:
            body = slot.words.hold(body)
        return self._say(slot, token, item, stream, body)

    def heard(self, slot: Slot, token: int, item: int, kind: int, body: bytes) -> bool:
        """Something that a CPU process said of an item; returns whether there was room for it."""
        if slot.words.held:
            self.release(slot)
        if kind <= STDERR and token != NO_TOKEN:
            body = slot.words.take((token, item), kind, body)
            if slot.ending is not None and slot.ending.token == token:
                body = slot.words.without_stack(body)
        return self._say(slot, token, item, kind, body)

    def release(self, slot: Slot) -> None:
        """A process goes on: what seemed to be its last words was that of another's."""
        (token, item), body = slot.words.let_go()
        self._say(slot, token, item, STDERR, body)

    def last_words(self) -> list[int]:
        """CPU ids of the processes that may have said their last words."""
        return [slot.cpu_id for slot in self._slots.values() if slot.words.held]

    def tick(self, ending: Collection[int] = ()) -> None:
        """Some time has passed, in which a process that crashes would have ended.

        Args:
            ending: CPU ids of processes that do, but whose core takes its time to be written.
        """
        for slot in self._slots.values():
            if slot.cpu_id not in ending and slot.words.is_alive():
                self.release(slot)

    def _say(self, slot: Slot, token: int, item: int, kind: int, body: bytes) -> bool:
        if not body:
            return True
        job = slot.jobs.get(token)
        if job is not None and job.client.gone and not job.client.leaving:
            return True
        if job is not None and job.client.reporting is not None:
            return job.client.said.add(job.part.call[0], item, slot.cpu_id, kind, body)
        if kind <= STDERR:
            self._log.append(body)
        return True

    def take_log(self) -> bytes:
        """What no client wants to hear, since the last time: it belongs into the pod's log."""
        if not self._log:
            return b""
        log, self._log = self._log, []
        return b"".join(log)
