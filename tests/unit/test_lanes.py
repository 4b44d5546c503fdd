from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from k8sfutures.lanes import COUNTED, CREDIT_EVERY, WINDOW, Bulk, Lane, Taken
from k8sfutures.messages import CHUNK_SIZE, DATA, Credit, Goodbye

SIZES = st.sampled_from([0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 3 * CHUNK_SIZE + 5])
SIZES |= st.just(WINDOW + CHUNK_SIZE)
ZEROS = memoryview(bytes(WINDOW + CHUNK_SIZE))


def chunks_of(size):
    return list(iter(Bulk(1, DATA, ZEROS[:size]).next, None))


@given(SIZES)
def test_a_body_is_cut_into_chunks_that_say_where_they_belong(size):
    chunks = chunks_of(size)
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert {(chunk.subject, chunk.item, chunk.size) for chunk in chunks} == {(1, DATA, size)}
    assert {len(chunk.tail) for chunk in chunks[:-1]} <= {CHUNK_SIZE}
    assert sum(len(chunk.tail) for chunk in chunks) == size
    assert [chunk.is_last for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_the_chunks_are_the_body():
    data = bytes(range(256)) * 10_000
    chunks = list(iter(Bulk(1, DATA, data).next, None))
    assert b"".join(chunk.tail for chunk in chunks) == data


WEIGHTS = st.sampled_from([0, COUNTED, CREDIT_EVERY + 1, WINDOW + 1]).map(
    lambda weight: ("message", weight)
)


@given(st.lists(SIZES | WEIGHTS, max_size=8), st.data())
def test_all_arrives_in_order_and_about_a_window_is_under_way(items, data):
    """A peer takes what comes in its own time."""
    lane, taken = Lane(), Taken()
    wire: deque[object] = deque()
    waiting = deque(enumerate(items))
    arrived: list[tuple[int, int]] = []
    weights = {number: item[1] for number, item in enumerate(items) if isinstance(item, tuple)}

    def weight_of(message):
        if isinstance(message, Goodbye):
            return weights[int(message.reason)]
        return len(message.tail)

    while waiting or wire or not lane.idle:
        moves = [move for move, can in (("put", waiting), ("take", wire)) if can]
        if data.draw(st.sampled_from(moves)) == "put":
            number, item = waiting.popleft()
            if number in weights:
                lane.put(Goodbye(str(number)), weights[number])
            else:
                lane.put(Bulk(number, 0, ZEROS[:item]))
        else:
            message = wire.popleft()
            if isinstance(message, Goodbye):
                arrived.append((int(message.reason), 0))
                told = taken.add(weight_of(message), last=False)
            else:
                arrived.append((message.subject, len(message.tail)))
                told = taken.add(len(message.tail), last=message.is_last)
            if told:
                lane.credit(told)
        wire.extend(lane.take())
        under_way = [weight for message in wire if (weight := weight_of(message))]
        assert sum(under_way[:-1]) < WINDOW
        assert lane.idle or wire, "it waits for ever"
    assert [number for number, _ in arrived] == sorted(number for number, _ in arrived)
    for number, item in enumerate(items):
        size = 0 if number in weights else item
        assert sum(taken for one, taken in arrived if one == number) == size


def test_a_message_passes_when_nothing_bulky_waits_before_it():
    lane = Lane()
    assert lane.idle
    lane.put(Credit(1))
    assert list(lane.take()) == [Credit(1)]
    assert lane.idle


def test_a_message_waits_behind_what_is_bulky():
    lane = Lane()
    lane.put(Bulk(1, 0, ZEROS))
    lane.put(Credit(1))
    assert Credit(1) not in list(lane.take())
    lane.credit(2 * CHUNK_SIZE)
    assert list(lane.take())[-1] == Credit(1)


def test_after_a_lost_connection_nothing_waits_and_nothing_is_under_way():
    lane = Lane()
    lane.put(Bulk(1, 0, ZEROS))
    list(lane.take())
    lane.reset()
    assert lane.idle
    lane.put(Bulk(2, 0, ZEROS))
    assert len(list(lane.take())) == WINDOW // CHUNK_SIZE


def test_more_credit_than_was_under_way_is_none():
    lane = Lane()
    lane.credit(WINDOW)
    lane.put(Bulk(1, 0, ZEROS))
    assert len(list(lane.take())) == WINDOW // CHUNK_SIZE


class TestTaken:
    def test_tells_now_and_then(self):
        taken = Taken()
        told = [taken.add(CHUNK_SIZE, last=False) for _ in range(8)]
        assert sum(told) == 8 * CHUNK_SIZE
        assert sorted(set(told)) == [0, CREDIT_EVERY]

    def test_tells_at_once_of_a_last_chunk(self):
        taken = Taken()
        assert taken.add(CHUNK_SIZE, last=False) == 0
        assert taken.add(5, last=True) == CHUNK_SIZE + 5
