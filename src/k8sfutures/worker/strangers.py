"""Whose calls have started the threads that outlive them.

What such a thread says while a call of another client runs in its process is for neither: it has
not to do with that call, and its own may not be there any more.
"""

from __future__ import annotations

import threading
from weakref import WeakKeyDictionary


class Strangers:
    """The threads of clients whose turn it is not."""

    def __init__(self) -> None:
        self._owners: WeakKeyDictionary[threading.Thread, str] = WeakKeyDictionary()
        self._turn: str | None = None

    def turn(self, client: str) -> None:
        """A client's turn begins."""
        self._turn = client

    def left(self) -> None:
        """It has ended: threads that are new are that client's."""
        if self._turn is not None and threading.active_count() > 1:
            main = threading.main_thread()
            for thread in threading.enumerate():
                if thread is not main:
                    self._owners.setdefault(thread, self._turn)

    def is_here(self) -> bool:
        """Whether the thread that asks is one."""
        if not self._owners:
            return False
        return self._owners.get(threading.current_thread(), self._turn) != self._turn
