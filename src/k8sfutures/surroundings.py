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


@dataclass(frozen=True, slots=True)
class Surroundings:
    """See the module's text.

    Attributes:
        argv: the client's ``sys.argv``.
        main: ``__file__`` of its ``__main__``, or None.
        directory: its working directory, where pods are on its machine; else None.
        own: all of its environment that pods may have; None where theirs is to stay.
        named: the variables of the setting ``environment``.
    """

    argv: list[str]
    main: str | None
    directory: str | None
    own: dict[str, str] | None = field(repr=False)
    named: dict[str, str] = field(repr=False)

    def pack(self) -> bytes:
        """As bytes, for `unpack`."""
        # A name of a file that is not in UTF-8 has surrogates; so may have anything else.
        packed: bytes = msgpack.packb(
            [self.argv, self.main, self.directory, self.own, self.named],
            unicode_errors="surrogatepass",
        )
        return packed


def variables() -> dict[str, str]:
    """The environment as it is now; threads of the user's may be changing it."""
    return {name: value for name in os.environ if (value := os.environ.get(name)) is not None}


def unpack(body: bytes) -> Surroundings:
    """What is in a body of `Surroundings.pack`.

    Raises:
        ValueError: it is none.
    """
    try:
        return Surroundings(*msgpack.unpackb(body, unicode_errors="surrogatepass"))
    except (ValueError, TypeError, msgpack.UnpackException) as error:
        raise ValueError(f"surroundings that cannot be read: {type(error).__name__}") from None
