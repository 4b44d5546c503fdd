"""What an agent and its CPU processes say to each other; see `cpu_process` for how."""

from __future__ import annotations

from typing import Final

TOKEN_SIZE: Final = 4

NO_TOKEN: Final = 0
"""Of no job: what threads say whose client it is not the turn of."""

# Frames from the agent: (kind, client, ...).
JOBS: Final = 0
"""(client, [(token, function id, items, start, stop, body)])"""
FUNCTIONS: Final = 1
"""(client, {function id: pickle})"""
RELEASE: Final = 2
"""(client, [function id])"""
INITIALIZE: Final = 3
"""(client, pickled (function, args)): to run before the client's first call"""
LEAVE: Final = 4
"""(client,): forget everything of this client"""
FORGET: Final = 5
"""(client, [token]): the agent has taken all their items back"""
REPORTING: Final = 6
"""(client, what it wants to hear of what its calls log, or None)"""

BLOBS: Final = 7
"""(client, [(blob id, kind, data)]): where the data is nil, the next open file that came
through the socket has it"""
DROP: Final = 8
"""(client, [blob id]): no call will need them"""

TIMED: Final = 9
"""(client, [token]): their items say when they begin; comes before the jobs"""
ADOPT: Final = 10
"""(pod, node, CPU id): this is where the process is now, which was kept ready"""
GO_ON: Final = 11
"""(nobody,): the process may start its next item; it waits for this after each outcome with a file
in memory"""

SURROUNDINGS: Final = 12
"""(client, what its calls are to see of its process; see `surroundings`): before its first call"""

# Statuses beside those of an outcome.
PRINTED: Final = 20
"""Something that the item said; its kind stands for the microseconds."""
INITIALIZER_RAISED: Final = 21
"""The client's initializer raised; the body is the pickled exception."""
BEGUN: Final = 22
"""The function of the item is called now; said of those that have a limit."""
INITIALIZED: Final = 23
"""The client's initializer has returned, and the item comes next."""
