"""What a pod has of blobs, as its client knows it; a fake pod keeps what arrives."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from k8sfutures.blobs import Blob, Blobs
from k8sfutures.freight import Freight
from k8sfutures.lanes import WINDOW
from k8sfutures.messages import CHUNK_SIZE

SMALL, LARGE = 10, WINDOW + 2 * CHUNK_SIZE


def take(freight):
    return list(freight.take())


def always(_number):
    return True


class TestFreight:
    def test_a_blob_goes_once(self):
        freight, blob = Freight(), Blobs().keep(bytes(SMALL))
        freight.add([blob, blob])
        assert len(take(freight)) == 1
        freight.add([blob])
        assert take(freight) == []

    def test_what_the_pod_says_that_it_has_does_not_go(self):
        freight, blob = Freight(), Blobs().keep(bytes(SMALL))
        freight.has([blob.id], always)
        freight.add([blob])
        assert take(freight) == []

    def test_a_blob_that_is_gone_is_forgotten_once(self):
        freight, blob = Freight(), Blobs().keep(bytes(SMALL))
        freight.add([blob])
        take(freight)
        assert freight.release([blob.id, 99]) == [blob.id]
        assert freight.release([blob.id]) == []

    def test_while_chunks_of_it_wait_it_is_not_forgotten(self):
        """Else the pod forgets what then arrives, and keeps it for ever."""
        freight, blob = Freight(), Blobs().keep(bytes(LARGE))
        freight.add([blob])
        take(freight)
        assert freight.release([blob.id]) == []
        freight.credit(WINDOW)
        take(freight)
        assert freight.release([]) == [blob.id]

    def test_what_is_gone_while_the_pod_was_away_is_forgotten_when_it_is_back(self):
        freight, blob = Freight(), Blobs().keep(bytes(SMALL))
        freight.add([blob])
        take(freight)
        freight.begin_anew()
        assert freight.release([blob.id]) == []
        freight.has([blob.id], lambda _number: False)
        assert freight.release([]) == [blob.id]

    def test_after_a_lost_connection_all_goes_again_that_the_pod_does_not_have(self):
        blobs, freight = Blobs(), Freight()
        arrived, lost = blobs.keep(b"1" * SMALL), blobs.keep(b"2" * SMALL)
        freight.add([arrived, lost])
        take(freight)
        freight.begin_anew()
        freight.has([arrived.id], always)
        freight.add([arrived, lost])
        assert [chunk.subject for chunk in take(freight)] == [lost.id]


class Machine(RuleBasedStateMachine):
    """A client with its blobs, and one pod whose connection is lost now and then."""

    def __init__(self):
        super().__init__()
        self.blobs = Blobs(kept=0)
        self.freight = Freight()
        self.held: list[Blob] = []
        self.pod: set[int] = set()  # what the pod has
        self.partly: int | None = None  # of what it has a part
        self.away = False
        self.fill = 0

    @rule(size=st.sampled_from([SMALL, LARGE]))
    def need_a_new_one(self, size):
        self.fill += 1
        self.held.append(self.blobs.keep(self.fill.to_bytes(4, "big") + bytes(size)))
        self.freight.add([self.held[-1]])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def need_one_again(self, data):
        self.freight.add([self.held[data.draw(st.integers(0, len(self.held) - 1))]])

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def need_one_no_more(self, data):
        del self.held[data.draw(st.integers(0, len(self.held) - 1))]

    @rule()
    def chunks_arrive(self):
        for chunk in self.freight.take():
            if self.away:
                continue
            if chunk.index == 0:
                self.partly = chunk.subject
            elif self.partly != chunk.subject:
                continue
            if chunk.is_last:
                self.pod.add(chunk.subject)
                self.partly = None
            self.freight.credit(len(chunk.tail))

    @rule()
    def a_second_passes(self):
        for number in self.freight.release(self.blobs.take_gone()):
            assert number not in {blob.id for blob in self.held}, "it is needed"
            if not self.away:
                self.pod.discard(number)

    @rule()
    def the_connection_is_lost(self):
        self.away, self.partly = True, None

    @precondition(lambda self: self.away)
    @rule()
    def the_pod_comes_back(self):
        self.away = False
        self.freight.begin_anew()
        self.freight.has(sorted(self.pod), self.blobs.is_alive)

    @invariant()
    def known_is_known(self):
        assert self.freight._loading <= self.freight._known
        assert self.freight._ended <= self.freight._known

    def teardown(self):
        if self.away:
            self.the_pod_comes_back()
        self.freight.add(self.held)
        for _ in range(4 * self.fill + 4):  # a large one takes two windows
            self.chunks_arrive()
        needed = {blob.id for blob in self.held}
        assert needed <= self.pod, "a call waits for ever"
        self.a_second_passes()
        assert self.pod == needed, "the pod keeps what nobody needs"


Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestMachine = Machine.TestCase
