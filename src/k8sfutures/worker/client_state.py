"""What a CPU process keeps for one client: its functions, its blobs, and what it has set up."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgpack

from ..bodies import PARTS, loads, unpacked
from ..scopes import Loaded, Scope
from .bulk import Blob, File
from .forwarding import Setup
from .frames import BLOBS, DROP, FUNCTIONS, INITIALIZE, RELEASE


class ClientState:
    """See the module's text."""

    __slots__ = ("_blobs", "_functions", "_pickles", "initializer", "reporting", "scope", "setup")

    def __init__(self) -> None:
        self._blobs: dict[int, Blob] = {}
        self._pickles: dict[int, bytes] = {}
        self._functions: dict[int, Loaded] = {}
        self.initializer: bytes | None = None
        self.reporting: bytes | None = None
        self.setup: Setup | None = None
        self.scope = Scope()

    def take(self, kind: int, content: Any, files: deque[File]) -> None:
        """Take in a frame.

        Args:
            kind: which; see `frames`.
            content: what it has for this client.
            files: that have come, for blobs.
        """
        if kind == FUNCTIONS:
            self._pickles.update(content)
        elif kind == RELEASE:
            for function in content:
                self._pickles.pop(function, None)
                self._functions.pop(function, None)
        elif kind == INITIALIZE:
            self.initializer = content
        elif kind == BLOBS:
            for number, blob_kind, data in content:
                self._blobs[number] = Blob(blob_kind, data, files)
        elif kind == DROP:
            for number in content:
                self._blobs.pop(number, None)

    def function(self, function_id: int) -> Any:
        """A function, loaded once."""
        function = self._functions.get(function_id)
        if function is None:
            function = self.scope.load(lambda: self.loads(self._pickles[function_id]))
            self._functions[function_id] = function
        return self.scope.use(function)

    def loads(self, body: bytes) -> Any:
        """Load a body of the client's."""
        return loads(body, self._part)

    def _part(self, number: int) -> memoryview:
        return self._blobs[number].own_copy()

    def items(self, body: bytes) -> list[bytes | None]:
        """The bodies of a range's items."""
        if body[:1] == bytes((PARTS,)):
            (number,), *_ = unpacked(body)
            body = bytes(self._part(number))
        found: list[bytes | None] = msgpack.unpackb(body)
        return found
