"""A client of the soak: ``python -m benchmarks.chaos.client SEED NAME LEDGER``.

What its calls do is defined here, since this is its ``__main__``: it travels by value. It works
until its standard input ends, and says in lines of JSON on standard output what it did.
"""

from __future__ import annotations

import contextlib
import dataclasses
import enum
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator

KEPT = 8 << 20
"""Bytes of bulky arguments that an executor keeps for calls to come."""

LEDGER = ""
"""Where calls write down that they run: a file, or ``host:port`` of who counts."""


class Planned(Exception):
    """What calls raise that are to raise."""

    def __init__(self, number: int, *, word: str) -> None:
        super().__init__(f"{word} {number}")
        self.number = number
        self.word = word


def note(number: int) -> int:
    """Write down, in one piece, that a call runs; who counts over the network says how often."""
    words = f"{number} {time.monotonic():.3f} {os.getpid()} {socket.gethostname()}"
    line = f"{words}\n".encode()
    if LEDGER.startswith("/"):
        descriptor = os.open(LEDGER, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)
        return 0
    host, _, port = LEDGER.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as counter:
        counter.sendall(line)
        counter.shutdown(socket.SHUT_WR)
        return int(counter.makefile("rb").readline())  # it has been counted


def attempt(number: int) -> int:
    """Write down that a call runs; returns how often it has by now."""
    times = note(number)
    if times:
        return times
    with open(f"{LEDGER}.{number}", "ab") as file:  # noqa: PTH123
        file.write(b"x")
        return file.tell()


def square(number: int) -> int:
    """Hardly anything."""
    note(number)
    return number * number


def nap(number: int, seconds: float) -> int:
    """Something long."""
    note(number)
    time.sleep(seconds)
    return number


def linger(number: int) -> int:
    """Something that only ends if somebody ends it."""
    note(number)
    time.sleep(600)
    return number


def fail(number: int, word: str) -> None:
    """Raise, in several ways."""
    note(number)
    if word == "exit":
        sys.exit(number)
    if word == "memory":
        raise MemoryError(number)
    try:
        raise KeyError(number)
    except KeyError as error:
        raise Planned(number, word=word) from error


def square_or_fail(number: int, bad: frozenset[int]) -> int:
    """An item of a map."""
    if number in bad:
        fail(number, "item")
    return square(number)


def square_or_crash(number: int, bad: frozenset[int]) -> int:
    """An item of a map."""
    if number in bad:
        crash(number, "SIGKILL")
    return square(number)


def square_or_linger(number: int, endless: frozenset[int]) -> int:
    """An item of a map."""
    return linger(number) if number in endless else square(number)


def fail_until(number: int, times: int, how: str) -> int:
    """Fail so many times, then say how often it has run."""
    ran = attempt(number)
    if ran <= times:
        if how == "raise":
            raise Planned(number, word="attempt")
        if how == "exit":
            os._exit(7)
        time.sleep(600)
    return ran


def where() -> tuple[str, int]:
    """Take a moment; returns which process that was."""
    time.sleep(0.3)
    return socket.gethostname(), os.getpid()


def crash(number: int, how: str) -> None:
    """End the process."""
    note(number)
    faulthandler.disable()
    if how == "_exit":
        os._exit(7)
    if how == "segfault":
        faulthandler._sigsegv()  # type: ignore[attr-defined]  # noqa: SLF001
    os.kill(os.getpid(), signal.Signals[how])
    time.sleep(60)


def poison(number: int, spared: str) -> str:
    """Kill every pod that it meets, but for one that is to stay."""
    note(number)
    zygote = os.getppid()
    with open(f"/proc/{zygote}/stat", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        agent = int(file.read().rpartition(")")[2].split()[1])
    if spared in {str(agent), socket.gethostname()}:
        return "spared"
    note(-agent)
    # In a container the agent is process 1, which nobody can kill from inside; it ends by this.
    os.kill(zygote if agent == 1 else agent, signal.SIGKILL)
    time.sleep(60)
    return "survived"


def take(number: int, spared: str, size: int) -> str:
    """Use more memory than there is, but on the pod that is to stay."""
    note(number)
    if spared == socket.gethostname():
        return "spared"
    block = bytearray(size)
    for at in range(0, size, 4096):
        block[at] = 1
    time.sleep(60)
    return "survived"


def talk(number: int, lines: int) -> int:
    """Print."""
    note(number)
    for line in range(lines):
        print(f"call {number}, line {line}")
    print("no end", end="")
    print("in words", file=sys.stderr)
    return lines


def echo(number: int, data: bytes) -> bytes:
    """Something bulky, there and back."""
    note(number)
    return data[::-1]


def total(number: int, shared: object) -> int:
    """Something bulky that several calls share."""
    note(number)
    return int(sum(memoryview(shared).cast("B")[::4096]))  # type: ignore[arg-type]


@dataclasses.dataclass
class Point:
    """A class that no worker can import."""

    x: int
    y: int

    def moved(self, number: int, step: int) -> Point:
        """Another of its kind."""
        note(number)
        return Point(self.x + step, self.y)


class Colour(enum.Enum):
    """Its members are what they are, on both sides."""

    RED = 1
    BLUE = 2


def other_colour(number: int, colour: Colour) -> Colour:
    """One of two, compared by identity."""
    note(number)
    return Colour.BLUE if colour is Colour.RED else Colour.RED


def steps(number: int, count: int) -> Iterator[int]:
    """A generator: it comes back as a list."""
    note(number)
    for step in range(count):
        yield number + step


def prepare(word: str) -> None:
    """An initializer."""
    global PREPARED  # noqa: PLW0603
    PREPARED = word


PREPARED = ""


def prepared(number: int) -> str:
    """What the initializer has left."""
    note(number)
    return PREPARED


def show_stacks(_number: int, _frame: object) -> None:
    """Say where all threads are; faulthandler, which holds no lock, can crash over running ones."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001
        sys.stderr.write(f"Thread {names.get(ident)}:\n{''.join(traceback.format_stack(frame))}\n")
    sys.stderr.flush()


def main() -> None:
    """Work until told to stop."""
    from benchmarks.chaos.work import Workload
    from k8sfutures import blobs

    # Instead of 256 MiB: more of them come and go, and a leak shows.
    assert blobs.kept_in_pods(None) > KEPT
    blobs.MOST_KEPT = KEPT  # type: ignore[misc]
    assert blobs.kept_in_pods(None) == KEPT, "it is meant to be less"

    signal.signal(signal.SIGUSR1, show_stacks)
    with contextlib.suppress(KeyError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for who started us
    global LEDGER
    seed, name, LEDGER, spared = sys.argv[1:]
    told = os.fdopen(os.dup(1), "w", buffering=1)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123
        sys.stdout = nowhere
        Workload(sys.modules[__name__], int(seed), name, spared, told).run()


if __name__ == "__main__":
    main()
