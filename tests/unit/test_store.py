import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from k8sfutures.lanes import Bulk
from k8sfutures.messages import CHUNK_SIZE, DATA, MODULES
from k8sfutures.worker import shared_memory
from k8sfutures.worker import store as module
from k8sfutures.worker.frames import BLOBS
from k8sfutures.worker.store import SHARED, Store

CLIENT = "client-1"


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def chunks_of(number, data, kind=DATA):
    return list(iter(Bulk(number, kind, data).next, None))


def put(store, number, data, client=CLIENT, kind=DATA):
    return [store.add(client, chunk) for chunk in chunks_of(number, data, kind)]


def read(store, *numbers, client=CLIENT):
    """The blobs as a CPU process gets them: (id, kind, bytes)."""
    frames, files = store.frames(client, numbers)
    waiting = list(files)
    found = []
    for kind, name, rows in frames:
        assert (kind, name) == (BLOBS, client)
        for number, blob_kind, data in rows:
            if data is None:
                descriptor = waiting.pop(0)
                data = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
            found.append((number, blob_kind, data))
    assert not waiting
    return found


@pytest.fixture
def store():
    running = Store()
    before = open_files()
    yield running
    running.forget(CLIENT)
    assert open_files() == before


class TestArriving:
    @pytest.mark.parametrize("size", [1, SHARED - 1, SHARED, SHARED + 1, 3 * CHUNK_SIZE + 5])
    def test_a_blob_is_there_when_its_last_chunk_is(self, store, size):
        data = os.urandom(size)
        complete = put(store, 7, data, kind=MODULES)
        assert complete == [False] * (len(complete) - 1) + [True]
        assert read(store, 7) == [(7, MODULES, data)]

    def test_blobs_of_clients_are_their_own(self, store):
        put(store, 7, b"mine")
        put(store, 7, b"theirs", client="client-2")
        assert read(store, 7) == [(7, DATA, b"mine")]
        assert read(store, 7, client="client-2") == [(7, DATA, b"theirs")]

    def test_a_chunk_out_of_order_drops_its_blob(self, store):
        first, second, third = chunks_of(7, bytes(3 * CHUNK_SIZE))
        store.add(CLIENT, first)
        assert not store.add(CLIENT, third)
        assert not store.add(CLIENT, second)

    def test_a_first_chunk_begins_anew(self, store):
        first, *_ = chunks_of(7, b"1" * 3 * CHUNK_SIZE)
        store.add(CLIENT, first)
        data = b"2" * 3 * CHUNK_SIZE
        assert put(store, 7, data)[-1]
        assert read(store, 7) == [(7, DATA, data)]

    def test_a_blob_that_comes_again_takes_the_place_of_itself(self, store):
        put(store, 7, bytes(2 * SHARED))
        before = open_files()
        put(store, 7, bytes(2 * SHARED))
        assert open_files() == before

    def test_what_is_partly_there_is_dropped_when_its_client_begins_anew(self, store):
        put(store, 6, bytes(2 * SHARED))
        before = open_files()
        first, second, _ = chunks_of(7, bytes(3 * SHARED))
        store.add(CLIENT, first)
        store.begin_anew(CLIENT)
        assert open_files() == before
        assert not store.add(CLIENT, second)
        assert len(read(store, 6)) == 1

    def test_a_pod_without_open_files_keeps_it_all_the_same(self, store, monkeypatch):
        def none_left(_size):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(shared_memory, "new", none_left)
        data = os.urandom(3 * SHARED)
        put(store, 7, data)
        assert read(store, 7) == [(7, DATA, data)]


class TestGoing:
    def test_what_is_released_is_closed(self, store):
        before = open_files()
        put(store, 6, bytes(2 * SHARED))
        first, _ = chunks_of(7, bytes(2 * SHARED))
        store.add(CLIENT, first)
        assert open_files() == before + 2
        store.release(CLIENT, [6, 7, 99])
        assert open_files() == before

    def test_a_client_that_leaves_takes_all_of_its_own_along(self, store):
        put(store, 6, bytes(2 * SHARED), client="client-2")
        before = open_files()
        put(store, 6, bytes(2 * SHARED))
        store.forget(CLIENT)
        assert open_files() == before
        store.forget("client-2")
        store.forget("client-3")


class TestFrames:
    def test_of_many_small_blobs_are_several(self, store, monkeypatch):
        monkeypatch.setattr(module, "_LONGEST_FRAME", 100)
        for number in range(10):
            put(store, number, bytes([number]) * 30)
        put(store, 10, bytes(SHARED))
        frames, files = store.frames(CLIENT, range(11))
        assert len(frames) == 4
        assert len(files) == 1
        assert [number for number, _, _ in read(store, *range(11))] == list(range(11))

    def test_of_one_that_is_longer_is_one(self, store, monkeypatch):
        monkeypatch.setattr(module, "_LONGEST_FRAME", 100)
        put(store, 1, bytes(300))
        assert read(store, 1) == [(1, DATA, bytes(300))]


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.integers(1, 3), st.integers(0, 3)) | st.sampled_from(["anew", "release"]),
        max_size=40,
    )
)
def test_whatever_comes_no_blob_is_wrong_and_no_file_stays_open(steps):
    """Chunks of three blobs in any order, of which the first is 0."""
    bodies = {n: bytes([n]) * (n * CHUNK_SIZE + n) for n in (1, 2, 3)}
    chunks = {n: chunks_of(n, bodies[n]) for n in bodies}
    before = open_files()
    store = Store()
    complete = set()
    for step in steps:
        if step == "anew":
            store.begin_anew(CLIENT)
        elif step == "release":
            store.release(CLIENT, [1, 2])
            complete -= {1, 2}
        elif step[1] < len(chunks[step[0]]) and store.add(CLIENT, chunks[step[0]][step[1]]):
            complete.add(step[0])
    for number in complete:
        assert read(store, number) == [(number, DATA, bodies[number])]
    assert open_files() <= before + 2 * 3
    store.forget(CLIENT)
    assert open_files() == before
