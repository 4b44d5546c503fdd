"""What a CPU process keeps for one client: its functions, its blobs, and what it has set up.

Before anything of a client is loaded or called, the client's own modules are put in place: those
that the function needs, and those that the arguments need besides (see `modules`).
"""

from __future__ import annotations

from collections import deque
from contextvars import Context
from typing import Any

import msgpack

from ..bodies import PARTS, Modules, loads, unpacked
from ..scopes import Loaded, Scope
from ..surroundings import Surroundings, unpack
from .bulk import Blob, File
from .forwarding import Setup
from .frames import BLOBS, DROP, FUNCTIONS, INITIALIZE, RELEASE, SURROUNDINGS
from .modules import Environments
from .surroundings import Left


class ClientState:
    """See the module's text.

    Args:
        name: the client's.
        environments: of the process.
    """

    __slots__ = (
        *("_blobs", "_environments", "_functions", "_hashes", "_needs", "_pickles"),
        *("context", "initializer", "left", "name", "reporting", "scope", "setup", "surroundings"),
    )

    def __init__(self, name: str, environments: Environments) -> None:
        self.name = name
        self._environments = environments
        self._needs: tuple[str, ...] = ()  # of what is being loaded, or runs
        self._hashes: dict[str, int] = {}  # of bundles, and their blobs
        self._blobs: dict[int, Blob] = {}
        self._pickles: dict[int, bytes] = {}
        self._functions: dict[int, tuple[Loaded, tuple[str, ...]]] = {}
        self.initializer: bytes | None = None
        self.reporting: bytes | None = None
        self.surroundings: Surroundings | None = None
        self.setup: Setup | None = None
        self.left: Left | None = None
        self.scope = Scope()
        self.context = Context()
        """Its context variables, the settings of `decimal` and of NumPy's errors among them."""

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
        elif kind == SURROUNDINGS:
            self.surroundings = unpack(content)
            self.scope.begin(self.surroundings.main)
            self._environments.begin(self.name, self.surroundings.directory)
        elif kind == BLOBS:
            for number, blob_kind, data in content:
                self._blobs[number] = Blob(blob_kind, data, files)
        elif kind == DROP:
            for number in content:
                self._blobs.pop(number, None)

    def function(self, function_id: int) -> Any:
        """A function, loaded once; the modules that it needs are in place afterwards."""
        known = self._functions.get(function_id)
        if known is None:
            self._need(())
            function = self.scope.load(lambda: self.loads(self._pickles[function_id]))
            self._functions[function_id] = function, self._needs
        else:
            function, needs = known
            self._need(needs)
        return self.scope.use(function)

    def initializing(self, body: bytes) -> Any:
        """The client's initializer with its arguments, with their modules in place."""
        self._need(())
        return self.loads(body)

    def loads(self, body: bytes) -> Any:
        """Load a body of the client's, with modules in place that it needs besides."""
        return loads(body, self._part, self._enter)

    def _enter(self, modules: Modules) -> None:
        self._hashes.update((digest, number) for number, digest in modules)
        self._need((*self._needs, *(digest for _, digest in modules if digest not in self._needs)))

    def _need(self, needs: tuple[str, ...]) -> None:
        self._needs = needs
        self._environments.activate(self.name, needs, self._bundle)

    def _bundle(self, digest: str) -> memoryview:
        return self._part(self._hashes[digest])

    def _part(self, number: int) -> memoryview:
        return self._blobs[number].own_copy()

    def items(self, body: bytes) -> list[bytes | None]:
        """The bodies of a range's items."""
        if body[:1] == bytes((PARTS,)):
            (number,), *_ = unpacked(body)
            body = bytes(self._part(number))
        found: list[bytes | None] = msgpack.unpackb(body)
        return found
