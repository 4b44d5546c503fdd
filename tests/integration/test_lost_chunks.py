"""The connection of a client or a pod is cut while chunks are under way, and comes back."""

from collections.abc import Callable

import pytest
from faults import wait_until

from k8sfutures.codec import _CHUNK_MARK, _PREFIX
from k8sfutures.testing import MemoryCluster

SIZE = 5_000_000  # five chunks


class Scissors:
    """Cuts a participant off as a chunk is sent, and heals it a few messages of that kind later."""

    def __init__(self, cluster: MemoryCluster, *, from_pods: bool, victim: str, heal_after: int):
        self.cluster, self.from_pods, self.victim = cluster, from_pods, victim
        self.chunks = 0
        self.heal_after = heal_after
        self.passed_on = cluster.switchboard.send
        cluster.switchboard.send = self.send

    def send(self, sender: str, peer: str, body: bytes) -> None:
        is_chunk = body[_PREFIX : _PREFIX + 2] == _CHUNK_MARK
        if is_chunk and (sender in self.cluster.pods) == self.from_pods:
            self.chunks += 1
            sides = {"sender": sender, "receiver": peer}
            if self.chunks == 2:
                self.cluster.cut(sides[self.victim])
            elif self.chunks == 2 + self.heal_after:
                self.cluster.heal(sides[self.victim])
        self.passed_on(sender, peer, body)


@pytest.fixture
def cluster():
    with MemoryCluster([1]) as running:
        yield running


@pytest.mark.parametrize("heal_after", [1, 2, 3])
@pytest.mark.parametrize("victim", ["sender", "receiver"])
@pytest.mark.parametrize("from_pods", [True, False])
def test_what_is_lost_half_way_is_sent_again(
    cluster: MemoryCluster, from_pods: bool, victim: str, heal_after: int
) -> None:
    call: tuple[Callable[..., object], object]
    call = (bytes, SIZE) if from_pods else (len, b"1" * SIZE)
    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        scissors = Scissors(cluster, from_pods=from_pods, victim=victim, heal_after=heal_after)
        result = ex.submit(*call).result()
    assert result == (bytes(SIZE) if from_pods else SIZE)
    assert scissors.chunks > 5, "nothing was sent again"


def test_results_that_a_broker_drops_by_itself_come_with_the_next(cluster: MemoryCluster) -> None:
    """Its administrator may have queues keep no more than so much, and drop the oldest."""
    passed_on = cluster.switchboard.send
    dropped: list[bytes] = []

    def send(sender: str, peer: str, body: bytes) -> None:
        if not dropped and sender in cluster.pods:
            dropped.append(body)
        else:
            passed_on(sender, peer, body)

    with cluster.executor() as ex:
        assert ex.submit(pow, 2, 3).result() == 8
        cluster.switchboard.send = send  # type: ignore[method-assign]
        lost = ex.submit(pow, 3, 3)
        wait_until(lambda: dropped, "a message of the pod")
        assert ex.submit(pow, 4, 3).result(30) == 64
        assert lost.result(30) == 27


def say(words: str) -> str:
    print(words, flush=True)
    return words


def test_what_a_call_has_said_is_there_before_its_result_though_it_was_lost_on_the_way(
    cluster: MemoryCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    passed_on = cluster.switchboard.send
    lost: list[bytes] = []

    def send(sender: str, peer: str, body: bytes) -> None:
        if not lost and sender in cluster.pods and b"said before" in body:
            lost.append(body)
        else:
            passed_on(sender, peer, body)

    with cluster.executor() as ex:
        cluster.switchboard.send = send  # type: ignore[method-assign]
        assert ex.submit(say, "said before").result(30) == "said before"
        assert "said before" in capsys.readouterr().out
    assert lost
