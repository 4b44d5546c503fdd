"""What a call is to see of its client's process, as it travels: variables, arguments, places.

A process pool's child has all of that from its parent. Here it goes with the client's `Attach`,
as it was when the executor was made (`client_surroundings`); `worker.surroundings` puts it in
place.
"""

from __future__ import annotations

import os
from dataclasses import field

import msgpack

from .values import dataclass

Variables = dict[bytes, bytes]
"""An environment: as the operating system has it, since not all of it need be text."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """See the module's text.

    Attributes:
        argv: the client's ``sys.argv``.
        main: ``__file__`` of its ``__main__``, or None.
        directory: its working directory, where pods are on its machine; else None.
        own: all of its environment that pods may have, or that in a seal (see `sealing`); None
            where the pod's is to stay.
        named: the variables of the setting ``environment``.
    """

    argv: list[str]
    main: str | None
    directory: str | None
    own: Variables | bytes | None = field(repr=False)
    named: Variables = field(repr=False)

    def pack(self) -> bytes:
        """As bytes, for `unpack`."""
        # A name of a file that is not in UTF-8 has surrogates; so may have anything else.
        packed: bytes = msgpack.packb(
            [self.argv, self.main, self.directory, self.own, self.named],
            unicode_errors="surrogatepass",
        )
        return packed


def variables() -> Variables:
    """The environment as it is now."""
    # Its dict itself: 50 times as fast at each turn of a client, and no thread can come between.
    found: Variables = dict(os.environb._data)  # type: ignore[attr-defined]  # noqa: SLF001
    found.pop(b"", None)  # which a process can be started with, and nobody can set or remove
    return found


def pack_variables(found: Variables) -> bytes:
    """An environment as bytes, for `unpack_variables`."""
    packed: bytes = msgpack.packb(found)
    return packed


def unpack_variables(body: bytes) -> Variables:
    """What is in a body of `pack_variables`."""
    found: Variables = msgpack.unpackb(body)
    return found


def unpack(body: bytes) -> Surroundings:
    """What is in a body of `Surroundings.pack`.

    Raises:
        ValueError: it is none.
    """
    try:
        return Surroundings(*msgpack.unpackb(body, unicode_errors="surrogatepass"))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"surroundings that cannot be read: {type(error).__name__}") from None
