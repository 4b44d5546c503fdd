"""The encoding and the signature of messages.

A message on the wire::

    digest (32 bytes)  b"k8f"  protocol (1 byte)  header (msgpack)  tail (raw bytes)

The digest is HMAC-SHA256 (RFC 2104) under the pool's key over what follows it, the tail left out.
So far it is the same in every version of the protocol, so that a peer of another one is known for
certain. The header is ``[kind, sender, receiver, counter, field, ...]``. Nothing here is ever
unpickled.

No message counts twice, nor for anybody but its receiver:

* The receiver is "" in what goes to all, and only some kinds do. Else it is an address: a client's
  is its name, which no other client ever has; a pod gives each client one at its `Attach`, in its
  `Hello`. That is of use for as long as the pod remembers this client, and with it the newest of
  its counters. So what was for another pod, or for one that has let go of the client since, is
  refused, however long ago that was, and a pod remembers nothing of those that have left.
* A client remembers the counters of all pods that it has heard of, for as long as it lives.

Only a chunk has a tail, which may be long, and SHA-256 takes 0.5 ms for each MiB: more than all
else that is done to it. So the last field of a chunk's header is the tail's own tag, GMAC with
AES-256 (NIST SP 800-38D), which is 15 times as fast. Its key is the sender's own, HMAC-SHA256 of
the sender's name under the pool's key; its nonce is the counter, which no sender uses twice.

`Codec.decode` raises `MessageError` for anything that is not a well-formed message signed
with our key, for us, and newer than the last one of the same sender, and for no other reason.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import hmac
import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgpack

from .errors import MessageError
from .messages import (
    LARGEST,
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
    Yield,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

_MAGIC: Final = b"k8f" + bytes([PROTOCOL])
_DIGEST_SIZE: Final = 32
_PREFIX: Final = _DIGEST_SIZE + len(_MAGIC)


class Envelope(NamedTuple):
    """A decoded message and the name of the client or pod that signed it."""

    sender: str
    message: Message


# --- the shape of each field, checked after the signature and before anything is used


def _is(*types: type) -> Callable[[object], bool]:
    return lambda value: type(value) in types


_NONE = type(None)
_int, _str, _bytes = _is(int), _is(str), _is(bytes)


def _size(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST


def _ints(value: object) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)


def _rows(*shapes: tuple[type, ...]) -> Callable[[object], bool]:
    """Checks a list of tuples, each of one of these shapes; the only check that is often long."""
    allowed = frozenset(shapes)

    def check(value: object) -> bool:
        return (
            isinstance(value, list)
            and set(map(type, value)) <= {tuple}
            and {tuple(map(type, row)) for row in value} <= allowed
        )

    return check


_calls = _rows((int, int, int, bytes), (int, int, int, _NONE))


def _functions(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(key) is int and type(body) is bytes for key, body in value.items()
    )


def _shares(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(pod) is str
        and type(share) is tuple
        and len(share) == 2
        and type(share[0]) is int
        and _calls(share[1])
        for pod, share in value.items()
    )


def _needs(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(key) is int and _ints(blobs) for key, blobs in value.items()
    )


def _limits(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(key) is int and type(seconds) is float for key, seconds in value.items()
    )


def _versions(value: object) -> bool:
    return type(value) is tuple and tuple(map(type, value)) == (str, int, str)


def _within(value: object) -> bool:
    return value is None or (type(value) is tuple and tuple(map(type, value)) == (str, int))


def _texts(value: object) -> bool:
    return isinstance(value, dict) and all(
        type(key) is str and type(text) is str for key, text in value.items()
    )


_SHAPES: Final[dict[type[Any], tuple[Callable[[object], bool], ...]]] = {
    Attach: (
        *(_versions, _int, _is(float, int), _is(bytes, _NONE), _is(int, _NONE)),
        *(_is(bytes, _NONE), _is(bytes, _NONE), _within),
    ),
    Group: (_int, _functions, _ints, _shares, _needs, _limits),
    Renew: (_int, _int, _ints, _is(bytes, _NONE)),
    Recall: (_ints,),
    Detach: (_int,),
    Chunk: (_int, _int, _size, _size, _is(bytes, memoryview)),
    Hello: (
        *(_str, _str, _int, _ints, _versions, _is(bool), _int, _ints, _int, _texts, _int, _ints),
        _str,
    ),
    Results: (_int, _rows((int, int, int, int, bytes), (int, int, int, int, _NONE))),
    Returned: (_ints, _is(bool)),
    NotInitialized: (_int, _int, _bytes),
    Goodbye: (_str,),
    Printed: (_int, _rows((int, int, int, int, bytes))),
    Yield: (_str,),
    Credit: (_int,),
    Cancel: (_ints,),
    Held: (),
    Occupied: (_rows((str, int, float)),),
    Left: (),
}
_KINDS: Final[dict[int, type[Any]]] = {cls.kind: cls for cls in _SHAPES}
_FIELDS: Final[dict[type[Any], tuple[str, ...]]] = {
    cls: tuple(field.name for field in dataclasses.fields(cls)) for cls in _SHAPES
}
# Lists of plain integers and the rows' own lists come back as lists; rows, shares and versions
# as tuples. msgpack has one sequence type, so the decoder says which where.
_TO_LIST: Final[dict[type[Any], tuple[int, ...]]] = {
    Group: (2,),
    Renew: (2,),
    Recall: (0,),
    Cancel: (0,),
    Hello: (3, 7, 11),
    Results: (1,),
    Returned: (0,),
    Printed: (1,),
    Occupied: (0,),
}


_TO_ALL: Final = frozenset({Attach, Group, Detach, Yield, Hello, Goodbye})
"""The kinds that may have no receiver. A group has each pod's share under that pod's address."""

_NONCE_SIZE: Final = 12
_CHUNK_MARK: Final = bytes((0x99, Chunk.kind))
"""How the header of a chunk begins: an array of nine, the first of them its kind."""

_LONGEST_HEADER: Final = 512
"""Bytes of a chunk's header, at most."""

_RANDOM: Final = re.compile(r"[0-9a-f]{48}")
"""A secret that no person has thought of."""

_CIPHERS: Final = 1024
"""Senders whose keys for tails are kept at hand."""


@functools.lru_cache(maxsize=8)
def derive_key(secret: str) -> bytes:
    """The signing key for a pool, from the `secret` setting or the broker's password.

    Whoever has a message can try passwords on it, as fast as this is. So it is scrypt (RFC 7914)
    with N=2**12, r=8 and p=1: 4 MiB and 10 ms, once for each process. OWASP wants some twenty
    times that for what people log in with; here it would be a fifth of a second before the first
    call. The salt is the same everywhere, since both sides need it and nothing else that they share
    is known to them. A password of a machine's needs none of this: 48 hexadecimal digits (``openssl
    rand -hex 24``, and the local broker's) are 192 random bits, and only hashed.

    Args:
        secret: the text that both sides know.

    Returns:
        32 bytes.
    """
    text, salt = secret.encode(), b"k8sfutures/2"
    if _RANDOM.fullmatch(secret):
        return hmac.digest(salt, text, "sha256")
    return hashlib.scrypt(text, salt=salt, n=2**12, r=8, p=1, dklen=32)


class Codec:
    """Encodes and signs what one client or pod sends; checks and decodes what it receives.

    Not thread-safe: one owner, like everything that it serves.

    Args:
        key: from `derive_key`.
        sender: the name that this side signs with; unique, never used twice.
        counter: where to begin to count. With the time in nanoseconds, whatever should have a name
            that was in use before goes on above it.
    """

    def __init__(self, key: bytes, sender: str, counter: int = 0) -> None:
        self._key = key
        self.sender = sender
        self._counter = counter
        self._newest: dict[str, int] = {}
        self._held: dict[str, str] = {}  # addresses by peer: what it has told us to write
        self._given: dict[str, str] = {}  # addresses by sender: what we have told it to write
        self._tags: dict[str, AESGCM] = {}

    def encode(self, message: Message, to: str = "") -> bytes:
        """The bytes to publish for `message`.

        Args:
            message: what to say.
            to: the name of the peer that it is for, or "" for all.

        Returns:
            The signed message.
        """
        self._counter += 1
        cls = type(message)
        fields = [getattr(message, name) for name in _FIELDS[cls]]
        tail: bytes | memoryview = b""
        if cls is Chunk:
            tail = fields[-1]
            fields[-1] = self._tag(self.sender, self._counter, tail)
        if cls is not Attach:  # that is how an address is come by
            to = self._held.get(to, to)
        if cls is Group:
            fields[3] = {self._held.get(pod, pod): share for pod, share in fields[3].items()}
        signed: bytes = _MAGIC + msgpack.packb([cls.kind, self.sender, to, self._counter, *fields])
        digest = hmac.digest(self._key, signed, "sha256")
        return b"".join((digest, signed, tail)) if tail else digest + signed

    def decode(self, body: bytes) -> Envelope:
        """The message in `body`, if it is one, signed with our key, for us, and no repetition.

        Args:
            body: bytes from the broker.

        Returns:
            The message and its sender.

        Raises:
            MessageError: it is not; the text says why, and shows none of the bytes.
        """
        magic = body[_DIGEST_SIZE:_PREFIX]
        if len(magic) != len(_MAGIC) or magic[:-1] != _MAGIC[:-1]:
            raise MessageError("not a k8sfutures message")
        end = _end_of_header(body) if magic == _MAGIC else len(body)
        digest = hmac.digest(self._key, memoryview(body)[_DIGEST_SIZE:end], "sha256")
        if not hmac.compare_digest(digest, body[:_DIGEST_SIZE]):
            raise MessageError("the signature does not match this pool's key")
        if magic != _MAGIC:
            protocol = magic[-1]
            raise MessageError(
                f"protocol {protocol}, and this side speaks {PROTOCOL}", protocol=protocol
            )
        sender, to, counter, message = _parse(
            memoryview(body)[_PREFIX:end], memoryview(body)[end:], self._check_tail
        )
        self._check_receiver(sender, to, type(message))
        if counter <= self._newest.get(sender, 0):
            raise MessageError(f"repeats or precedes an earlier message of {sender}")
        self._newest[sender] = counter
        return Envelope(sender, message)

    def _check_receiver(self, sender: str, to: str, cls: type[Message]) -> None:
        if sender == self.sender:
            raise MessageError("one of our own, sent back")
        if not to:
            if cls not in _TO_ALL:
                raise MessageError(f"a {cls.__name__} of {sender} without a receiver")
        elif to != self._given.get(sender, self.sender) and not (
            cls is Attach and to == self.sender
        ):
            raise MessageError(
                f"a {cls.__name__} of {sender} for another receiver, or for us as we were",
                stranger=sender if cls is Renew and sender not in self._given else None,
            )

    def _tag(self, sender: str, counter: int, tail: bytes | memoryview) -> bytes:
        cipher = self._tags.get(sender)
        if cipher is None:
            if len(self._tags) >= _CIPHERS:
                self._tags.clear()
            # Here, as it takes 30 ms to import, and many a client has nothing bulky.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM

            key = hmac.digest(self._key, b"k8sfutures chunks " + sender.encode(), "sha256")
            cipher = self._tags[sender] = AESGCM(key)
        return cipher.encrypt(counter.to_bytes(_NONCE_SIZE, "big"), b"", tail)

    def _check_tail(self, sender: str, counter: int, tag: object, tail: memoryview) -> None:
        if type(tag) is not bytes or not hmac.compare_digest(self._tag(sender, counter, tail), tag):
            raise MessageError("the tail of a chunk does not match its tag")

    # --- addresses

    def admit(self, sender: str, address: str) -> str:
        """Give a sender an address of ours, unless it has one.

        Args:
            sender: who has attached.
            address: a text that was never given to anybody.

        Returns:
            The one that it has.
        """
        return self._given.setdefault(sender, address)

    def given(self, sender: str) -> str:
        """The address that a sender has of us; "" where it has none."""
        return self._given.get(sender, "")

    def learn(self, peer: str, address: str) -> bool:
        """Write this address from now on; returns whether it is another than before."""
        before = self._held.get(peer)
        self._held[peer] = address
        return before != address

    def retain(self, senders: Collection[str]) -> None:
        """Forget all senders but these: what they sent until now is for an address of no use."""
        for known in (self._newest, self._given, self._held, self._tags):
            for gone in known.keys() - set(senders) - {self.sender}:
                del known[gone]


def _end_of_header(body: bytes) -> int:
    """Where the header ends, before its signature is checked: only a chunk's ends early."""
    if body[_PREFIX : _PREFIX + 2] != _CHUNK_MARK:
        return len(body)
    unpacker = msgpack.Unpacker(max_buffer_size=_LONGEST_HEADER)
    unpacker.feed(memoryview(body)[_PREFIX : _PREFIX + _LONGEST_HEADER])
    try:
        unpacker.skip()
    except (ValueError, msgpack.UnpackException):
        return len(body)
    end: int = _PREFIX + unpacker.tell()
    return end


def _parse(
    header: memoryview,
    tail: memoryview,
    check: Callable[[str, int, object, memoryview], None],
) -> tuple[str, str, int, Message]:
    """Sender, receiver, counter and message of a header whose signature is right."""
    # The size also bounds what an array may claim to hold, and so what is allocated for it.
    unpacker = msgpack.Unpacker(
        use_list=False, strict_map_key=False, max_buffer_size=max(1, len(header)), raw=False
    )
    unpacker.feed(header)
    try:
        kind, sender, to, counter, *fields = unpacker.unpack()
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise MessageError(f"a header that cannot be read: {error}") from error
    cls = _KINDS.get(kind) if type(kind) is int else None
    if cls is None:
        raise MessageError(f"of an unknown kind: {kind!r:.40}")
    if type(sender) is not str or type(to) is not str or type(counter) is not int or counter < 0:
        raise MessageError(f"a {cls.__name__} whose sender, receiver or counter cannot be read")
    if cls is Chunk and len(fields) == len(_FIELDS[Chunk]):
        check(sender, counter, fields[-1], tail)
        fields[-1] = tail
    elif unpacker.tell() != len(header) or tail:
        raise MessageError(f"a {cls.__name__} with more behind it")
    for index in _TO_LIST.get(cls, ()):
        if index < len(fields) and type(fields[index]) is tuple:
            fields[index] = list(fields[index])
    if cls is Group and len(fields) == 6 and type(fields[3]) is dict:
        fields[3] = {
            pod: (share[0], list(share[1]))
            if type(share) is tuple and len(share) == 2 and type(share[1]) is tuple
            else None
            for pod, share in fields[3].items()
        }
        if type(fields[4]) is dict:
            fields[4] = {
                key: list(blobs) if type(blobs) is tuple else None
                for key, blobs in fields[4].items()
            }
    shapes = _SHAPES[cls]
    if len(fields) != len(shapes):
        raise MessageError(f"a {cls.__name__} with {len(fields)} fields, not {len(shapes)}")
    for name, fits, value in zip(_FIELDS[cls], shapes, fields, strict=True):
        if not fits(value):
            raise MessageError(f"a {cls.__name__} whose {name} has the wrong shape")
    return sender, to, counter, cls(*fields)
