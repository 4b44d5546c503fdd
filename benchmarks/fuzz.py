"""Forged and damaged messages, by the hundred thousand: dropped, and nothing of them unpickled.

::

    python -m benchmarks.fuzz --messages 100000 --seed 1

Two parts, each with so many messages; any seed can be run again.

*Forged*: a client and a pod at work on an in-memory link. What they say is captured; and it is
damaged, cut, mixed, signed with another key, and sent again as it was, to either of them, while
they go on working. Each of these must be dropped, and none may be unpickled, in any process: the
pickles in them would leave a trace.

*Signed*: messages whose structure is damaged and that are signed with the right key all the same,
as a peer with a fault might send them. They must be messages or be refused, within bounded memory.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import hmac
import logging
import os
import pickle
import random
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import msgpack

from k8sfutures.chunks import Assembly
from k8sfutures.codec import Codec
from k8sfutures.errors import MessageError
from k8sfutures.link import LinkEvent, Received
from k8sfutures.messages import (
    EXCEPTION,
    PROTOCOL,
    Attach,
    Cancel,
    Chunk,
    Credit,
    Detach,
    Goodbye,
    Group,
    Held,
    Hello,
    Left,
    Message,
    NotInitialized,
    Occupied,
    Printed,
    Recall,
    Renew,
    Results,
    Returned,
    Versions,
    Yield,
)
from k8sfutures.testing import MemoryCluster
from k8sfutures.worker.store import Store

MAGIC = b"k8f" + bytes([PROTOCOL])
DIGEST = 32
MOST_MEMORY = 256 * 1024 * 1024
"""Bytes that may be taken besides, by all that is sent."""


class Trap:
    """Whoever unpickles it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.makedirs, (str(self.path), 0o777, True)


def sign(key: bytes, content: bytes) -> bytes:
    """A message with this content."""
    return hmac.digest(key, MAGIC + content, "sha256") + MAGIC + content


def messages(trap: bytes) -> list[Message]:
    """One of each kind, with a pickle wherever there can be one."""
    calls = [(1, 1, 0, trap), (2, 1, 3, trap)]
    return [
        Attach(tuple(Versions.ours()), 0, 60.0, trap, None, None, trap, ("pod", 0)),
        Group(1 << 40, {1: trap}, [], {"pod": (2, calls), "other": (1, calls)}, {1: [5]}, {1: 0.5}),
        Renew(0, 0, []),
        Recall([1, 2]),
        Detach(9),
        Chunk(5, -1, 0, len(trap), trap),
        Hello("pod", "n", 1, [0], tuple(Versions.ours()), True, 0, [], 0, {}, 2, [], "address"),
        Results(1, [(1, 0, 0, 5, trap), (2, 1, 1, 5, trap)]),
        Returned([1], False),
        NotInitialized(0, EXCEPTION, trap),
        Goodbye("so"),
        Printed(1, []),
        Yield("pool"),
        Credit(1),
        Cancel([1, 2]),
        Held(),
        Occupied([("client", 2, -1.0)]),
        Left(),
    ]


class Forger:
    """Makes what nobody has signed, of what somebody has.

    Args:
        chance: where all choices come from.
        captured: real messages.
        peers: names to pretend to be.
        trap: a pickle that leaves a trace.
    """

    def __init__(
        self, chance: random.Random, captured: list[bytes], peers: list[str], trap: bytes
    ) -> None:
        self._chance = chance
        self._captured = captured
        self._peers = peers
        self._messages = messages(trap)
        self._ways: dict[str, Callable[[bytes], bytes]] = {
            "random bytes": lambda _: chance.randbytes(chance.randrange(300)),
            "random after the mark": lambda body: (
                body[:DIGEST] + MAGIC + chance.randbytes(chance.randrange(300))
            ),
            "cut": lambda body: body[: chance.randrange(len(body))],
            "longer": lambda body: body + chance.randbytes(chance.randrange(1, 50)),
            "bits flipped": self._flipped,
            "sent again": lambda body: body,
            "another's digest": lambda body: chance.choice(captured)[:DIGEST] + body[DIGEST:],
            "spliced": self._spliced,
            "another key": self._another_key,
            "no digest": lambda body: bytes(DIGEST) + body[DIGEST:],
            "claims to be huge": lambda _: chance.randbytes(DIGEST) + MAGIC + self._huge(),
        }

    @property
    def ways(self) -> list[str]:
        """What it does, in words."""
        return list(self._ways)

    def make(self, way: str) -> bytes:
        """A message that must be dropped."""
        while True:
            original = self._chance.choice(self._captured)
            made = self._ways[way](original)
            # By chance it could be as it was; then it is a repetition, which counts elsewhere.
            if way == "sent again" or made not in (original, b""):
                return made

    def _flipped(self, body: bytes) -> bytes:
        changed = bytearray(body)
        for _ in range(self._chance.randint(1, 8)):
            changed[self._chance.randrange(len(changed))] ^= 1 << self._chance.randrange(8)
        return bytes(changed)

    def _spliced(self, body: bytes) -> bytes:
        other = self._chance.choice(self._captured)
        at = self._chance.randrange(DIGEST, len(body))
        return body[:at] + other[self._chance.randrange(len(other)) :] + b"!"

    def _another_key(self, _body: bytes) -> bytes:
        forger = Codec(self._chance.randbytes(32), self._chance.choice(self._peers), 1 << 62)
        to = self._chance.choice(["", *self._peers])
        return forger.encode(self._chance.choice(self._messages), to)

    def _huge(self) -> bytes:
        return bytes((self._chance.choice((0xC6, 0xDB, 0xDD, 0xDF)),)) + b"\xff\xff\xff\xff"


@contextlib.contextmanager
def _listening(cluster: MemoryCluster) -> Iterator[list[bytes]]:
    """Keeps what is published from now on."""
    heard: list[bytes] = []
    board = cluster.switchboard
    send, broadcast = board.send, board.broadcast

    def on_send(sender: str, peer: str, body: bytes) -> None:
        heard.append(bytes(body))
        send(sender, peer, body)

    def on_broadcast(sender: str, body: bytes, **more: bool) -> None:
        heard.append(bytes(body))
        broadcast(sender, body, **more)

    board.send, board.broadcast = on_send, on_broadcast  # type: ignore[method-assign]
    try:
        yield heard
    finally:
        board.send, board.broadcast = send, broadcast  # type: ignore[method-assign]


class _Counting:
    """Counts what all codecs of this process decode, and what they refuse."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()
        self.taken = 0
        self.crashes: list[str] = []
        self._lock = threading.Lock()
        self._decode = Codec.decode

    def __enter__(self) -> Self:
        counting, decode = self, self._decode

        def counted(codec: Codec, body: bytes) -> Any:
            try:
                found = decode(codec, body)
            except MessageError as error:
                with counting._lock:
                    counting.refused[str(error)] += 1
                raise
            except BaseException as error:
                counting.crashes.append(f"{type(error).__name__}: {error}")
                raise
            with counting._lock:
                counting.taken += 1
            return found

        Codec.decode = counted  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        Codec.decode = self._decode  # type: ignore[method-assign]

    @property
    def dropped(self) -> int:
        with self._lock:
            return sum(self.refused.values())


def forged(count: int, seed: int) -> Counter[str]:
    """Forged messages to a client and a pod that work; returns how many of each kind there were.

    Raises:
        AssertionError: one was not dropped, or was unpickled, or the two do not work any more.
    """
    chance = random.Random(seed)
    made: Counter[str] = Counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        MemoryCluster([2]) as cluster,
        _Counting() as counting,
    ):
        trace = Path(folder, "unpickled")
        with _listening(cluster) as heard, cluster.executor() as ex:
            assert ex.submit(pow, 2, 3).result(30) == 8
            assert list(ex.map(pow, range(100), range(100))) == [n**n for n in range(100)]
            assert len(ex.submit(bytes, 3_000_000).result(30)) == 3_000_000
            assert ex.submit(len, bytes(3_000_000)).result(30) == 3_000_000
            (client,) = cluster.clients
            (pod,) = cluster.pods
            # Without the tails of chunks, so that there is time for many.
            captured = [body for body in heard if len(body) < 5_000]
            captured += [body for body in heard if len(body) >= 5_000][:2]
            forger = Forger(chance, captured, [client, pod], pickle.dumps(Trap(trace)))
            before = _memory()
            dropped = counting.dropped
            emitters: list[Callable[[LinkEvent], None]] = [
                cluster.switchboard.queues[name] for name in (client, pod)
            ]
            for number in range(count):
                way = forger.ways[number % len(forger.ways)]
                chance.choice(emitters)(Received(forger.make(way)))
                made[way] += 1
                if number % 1000 == 999:
                    # Both have looked at all until now, and still work.
                    assert ex.submit(pow, 3, 3).result(30) == 27
            assert list(ex.map(pow, range(100), range(100))) == [n**n for n in range(100)]
            deadline = time.monotonic() + 30
            while counting.dropped - dropped < count and time.monotonic() < deadline:
                threading.Event().wait(0.01)
            assert counting.dropped - dropped == count, (counting.dropped - dropped, count)
            assert not counting.crashes, counting.crashes
            assert cluster.pods == [pod], "the pod is the same"
            grown = _memory() - before
            assert grown < MOST_MEMORY, f"{grown / 1e6:.0f} MB more"
        assert not trace.exists(), "a forged message was unpickled"
    return made


def signed(count: int, seed: int) -> Counter[str]:
    """Damaged messages with a right signature; returns how many were messages, and how many not.

    Raises:
        AssertionError: they took too much memory.
        Exception: whatever a decoder raised that is no `MessageError`.
    """
    chance = random.Random(seed)
    key = chance.randbytes(32)
    trap = pickle.dumps(Trap(Path("/nonexistent/unpickled")))
    seeds = [
        Codec(key, "peer", chance.randrange(1 << 40)).encode(message, "me")[DIGEST + len(MAGIC) :]
        for message in messages(trap)
    ]
    outcome: Counter[str] = Counter()
    before = _memory()
    for _ in range(count):
        content = _damaged(chance, chance.choice(seeds))
        codec = Codec(key, "me")
        try:
            envelope = codec.decode(sign(key, content))
        except MessageError:
            outcome["refused"] += 1
            continue
        outcome["taken"] += 1
        if isinstance(envelope.message, Chunk):
            assembly, store = Assembly(), Store()
            assembly.add(envelope.message)
            store.add(envelope.sender, envelope.message)
            store.forget(envelope.sender)
    grown = _memory() - before
    assert grown < MOST_MEMORY, f"{grown / 1e6:.0f} MB more"
    return outcome


_WEIRD: list[Any] = [
    *(None, True, False, -1, 0, 1 << 40, (1 << 64) - 1, -(1 << 63), 1.5, float("nan")),
    *("", "me", "peer", b"", [], {}, [[]], {1: []}, [None], {"me": (1, [])}, "\u0000", 2**31),
    msgpack.ExtType(5, b"x"),
    msgpack.Timestamp(1, 1),
]


def _damaged(chance: random.Random, content: bytes) -> bytes:
    """The content of a message with something wrong in it: in its bytes, or in its fields."""
    if chance.random() < 0.3:
        raw = bytearray(content)
        for _ in range(chance.randint(1, 4)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        return bytes(raw[: chance.randint(1, len(raw))] if chance.random() < 0.3 else raw)
    unpacker = msgpack.Unpacker(strict_map_key=False)
    unpacker.feed(content)
    fields = unpacker.unpack()
    for _ in range(chance.randint(1, 3)):
        _damage(chance, fields)
    packed: bytes = msgpack.packb(fields)
    return packed + (chance.randbytes(5) if chance.random() < 0.1 else b"")


def _damage(chance: random.Random, value: list[Any] | dict[Any, Any]) -> None:
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    if not keys:
        return
    at = chance.choice(keys)
    inner = value[at]
    if isinstance(inner, list | dict) and inner and chance.random() < 0.7:
        _damage(chance, inner)
    elif chance.random() < 0.2 and isinstance(value, list):
        if chance.random() < 0.5:
            del value[at]
        else:
            value.insert(at, copy.deepcopy(chance.choice(_WEIRD)))
    else:
        value[at] = copy.deepcopy(chance.choice(_WEIRD))


def _memory() -> int:
    """Bytes that this process has had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run both parts, and print what was sent."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    logging.getLogger("k8sfutures").setLevel(logging.CRITICAL)
    loaded: list[str] = []

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "pickle.find_class" and details[1] == "makedirs":
            loaded.append(str(details))

    sys.addaudithook(watch)
    made = forged(given.messages, given.seed)
    print(f"forged, seed {given.seed}: {sum(made.values())} dropped, none unpickled")
    for way, number in made.items():
        print(f"  {number:8} {way}")
    outcome = signed(given.messages, given.seed)
    print(f"signed and damaged: {outcome['refused']} refused, {outcome['taken']} were messages")
    assert not loaded, loaded


if __name__ == "__main__":
    main()
