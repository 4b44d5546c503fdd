"""What the agent sends to its clients: in order, bulky outcomes ahead in chunks."""

from __future__ import annotations

from ..codec import Codec
from ..lanes import Bulk, Lane, Taken, weight_of
from ..link import Endpoint
from ..messages import Credit, Message, Results
from .shared_memory import Shared


class Post:
    """See the module's text.

    Args:
        codec: signs.
        endpoint: publishes.
    """

    def __init__(self, codec: Codec, endpoint: Endpoint) -> None:
        self._codec = codec
        self._endpoint = endpoint
        self._lanes: dict[str, Lane] = {}
        self._taken: dict[str, Taken] = {}

    def send(self, client: str, message: Message) -> None:
        """Send a message after all that waits for this client."""
        lane = self._lanes.get(client)
        weight = 0
        if type(message) is Results:
            for call, item, _, _, body in message.outcomes:
                weight += len(body or b"")
                if type(body) is Shared:
                    lane = self._lanes.setdefault(client, Lane())
                    lane.put(Bulk(call, item, body.memory))
            weight = weight_of(weight)
            if weight and lane is None:
                lane = self._lanes[client] = Lane()
        if lane is None or (lane.idle and not weight):
            self.now(client, message)
            return
        lane.put(message, weight)
        self._pump(client, lane)

    def now(self, client: str, message: Message) -> None:
        """Send a message whose place among the others is of no importance."""
        self._endpoint.send(client, self._codec.encode(message, client))

    def _pump(self, client: str, lane: Lane) -> None:
        for message in lane.take():
            self.now(client, message)

    def credit(self, client: str, size: int) -> None:
        """A client has taken so many bytes of chunks, and of messages that count."""
        lane = self._lanes.get(client)
        if lane is not None:
            lane.credit(size)
            self._pump(client, lane)

    def taken(self, client: str, size: int, *, last: bool) -> None:
        """A chunk from a client has arrived; it is told when it may send more."""
        told = self._taken.setdefault(client, Taken()).add(size, last=last)
        if told:
            self.now(client, Credit(told))

    def forget(self, client: str) -> None:
        """A client begins anew, or is gone: nothing is under way any more."""
        self._lanes.pop(client, None)
        self._taken.pop(client, None)
