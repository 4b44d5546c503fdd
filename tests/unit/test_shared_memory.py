import errno
import gc
import os
import pickle
import resource
import socket
from collections import deque
from pathlib import Path

import numpy as np
import pytest

from k8sfutures.bodies import PARTS, loads, unpacked
from k8sfutures.messages import DATA, INLINE_LIMIT, RESULT
from k8sfutures.place import Place
from k8sfutures.serialization import split
from k8sfutures.worker import bulk, shared_memory
from k8sfutures.worker.processes import Channels
from k8sfutures.worker.shared_memory import Shared

SIZE = 1_000_000


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def mappings():
    return Path("/proc/self/maps").read_text().count("k8sfutures (deleted)")


@pytest.fixture(autouse=True)
def nothing_stays_open():
    gc.collect()
    before = open_files(), mappings()
    yield
    gc.collect()
    assert (open_files(), mappings()) == before


@pytest.fixture
def file():
    descriptor = shared_memory.holding([b"1" * SIZE])
    yield descriptor
    os.close(descriptor)


class TestFiles:
    @pytest.mark.parametrize("count", [0, 1, 3, 5000])
    def test_hold_pieces_one_after_the_other(self, count):
        pieces = [bytes([n % 256]) * (n % 7) for n in range(count)]
        descriptor = shared_memory.holding(pieces)
        whole = b"".join(pieces)
        assert os.pread(descriptor, len(whole) + 1, 0) == whole
        os.close(descriptor)

    def test_a_new_one_has_a_size(self):
        descriptor = shared_memory.new(SIZE)
        assert os.fstat(descriptor).st_size == SIZE
        os.close(descriptor)


class TestOwnCopies:
    def test_are_changed_without_anybody_elses_seeing_it(self, file):
        one, other = (shared_memory.own_copy(file, SIZE) for _ in range(2))
        one[0] = 0
        assert other[0] == ord("1")
        assert os.pread(file, 1, 0) == b"1"

    def test_need_no_open_file(self, file):
        before = open_files()
        kept = [np.frombuffer(shared_memory.own_copy(file, SIZE), np.uint8) for _ in range(10)]
        assert open_files() == before
        assert all((array == ord("1")).all() for array in kept)

    def test_are_plain_bytes(self, file):
        memory = shared_memory.own_copy(file, SIZE)
        assert (memory.format, memory.nbytes, memory.ndim) == ("B", SIZE, 1)
        assert not memory.readonly
        assert memory.cast("I")[0] == int.from_bytes(b"1111", "little")

    def test_stay_when_the_file_is_closed(self):
        descriptor = shared_memory.holding([b"1" * SIZE])
        memory = shared_memory.own_copy(descriptor, SIZE)
        os.close(descriptor)
        assert memory == b"1" * SIZE

    def test_cannot_be_made_of_what_is_no_file(self):
        with pytest.raises(OSError, match="Bad file descriptor"):
            shared_memory.own_copy(10_000, SIZE)


class TestViews:
    def test_can_only_be_read(self, file):
        memory = shared_memory.view(file, SIZE)
        assert memory.readonly
        assert memory == b"1" * SIZE

    def test_of_an_outcome_close_its_file(self):
        shared = Shared.of(b"body", shared_memory.holding([b"1" * SIZE]))
        assert shared == b"body"
        assert shared.memory == b"1" * SIZE


def blob_of(descriptor):
    return bulk.Blob(DATA, None, deque([bulk.File(os.dup(descriptor))]))


class TestBlobs:
    def test_that_are_small_are_copied(self):
        blob = bulk.Blob(DATA, b"abc", deque())
        one, other = blob.own_copy(), blob.own_copy()
        one[0] = 0
        assert bytes(other) == b"abc"

    def test_of_more_than_so_many_only_the_memory_is_kept(self, file, monkeypatch):
        monkeypatch.setattr(bulk, "MOST_OPEN", 3)
        before = open_files()
        blobs = [blob_of(file) for _ in range(6)]
        assert open_files() == before + 3
        copies = [blob.own_copy() for blob in blobs]
        for copy in copies:
            copy[0] = 0
        assert open_files() == before + 3
        assert all(blob.own_copy() == b"1" * SIZE for blob in blobs)
        del blobs
        assert open_files() == before
        assert all(copy[1:] == b"1" * (SIZE - 1) for copy in copies)
        del copies
        assert [blob_of(file) for _ in range(3)]
        assert bulk.File._open == 0


class TestOutcomes:
    def load(self, body, descriptor):
        _, _, sizes = unpacked(body)
        data = os.pread(descriptor, 1 << 30, 0)
        os.close(descriptor)
        assert sum(sizes) == len(data)
        starts = [sum(sizes[:at]) for at in range(len(sizes))]
        return loads(body, lambda part: memoryview(bytearray(data[starts[part] :][: sizes[part]])))

    def test_that_are_small_are_their_pickle(self):
        body, file = bulk.outcome_body(*split([1, 2], INLINE_LIMIT))
        assert file is None
        assert pickle.loads(body) == [1, 2]

    @pytest.mark.parametrize(
        "value",
        [
            b"1" * SIZE,
            [b"1" * SIZE, "2" * SIZE, bytearray(SIZE)],
            [(bytes([n]) * (INLINE_LIMIT + 1), bytes([n]) * (INLINE_LIMIT - 99)) for n in range(9)],
        ],
        ids=["bytes", "several", "much between"],
    )
    def test_that_are_bulky_are_small_themselves(self, value):
        body, file = bulk.outcome_body(*split(value, INLINE_LIMIT))
        assert len(body) < INLINE_LIMIT
        assert self.load(body, file) == value

    def test_of_an_initializer_that_raised_fit_into_a_message(self):
        small = pickle.loads(bulk.initializer_error(ValueError("small")))
        assert repr(small) == "ValueError('small')"
        large = pickle.loads(bulk.initializer_error(ValueError("x" * 20_000_000)))
        assert "raised ValueError, whose pickle has 2000" in str(large)
        assert str(large).endswith("x'")
        assert len(str(large)) < 2000


@pytest.fixture
def channels():
    running = Channels(Place("pod", "node", 0))
    theirs, *rest = (os.dup(descriptor) for descriptor in running.hand_over())
    running.handed_over()
    with socket.socket(fileno=theirs) as process:
        yield running, process
    running.close()
    for descriptor in rest:
        os.close(descriptor)


def files_of(count):
    return [shared_memory.holding([f"{n:06}".encode()]) for n in range(count)]


def received_by(process, size):
    """What the process gets, as it takes it in: bytes, and what is in the files."""
    files: deque[bulk.File] = deque()
    data = b""
    while len(data) < size:
        data += bulk.receive(process, 1 << 20, files)
    return data, [int(bytes(file.own_copy())) for file in files]


class TestChannels:
    @pytest.mark.parametrize("count", [0, 1, 64, 65, 200])
    def test_files_come_in_order_and_before_their_frame(self, channels, count):
        ours, process = channels
        files = files_of(count)
        assert ours.feed([("frame", bytes(1000)), ("more",)], [], files)
        shared_memory.close(files)
        data, found = received_by(process, len(ours._packer.pack(("frame", bytes(1000)))) + 6)
        assert found == list(range(count))
        assert data.endswith(b"more")

    def test_what_the_socket_does_not_take_waits_with_its_files(self, channels):
        ours, process = channels
        large = bytes(5_000_000)
        assert not ours.feed([("first", large)], [])
        files = files_of(70)
        assert not ours.feed([("second",)], [], files)
        shared_memory.close(files)
        got: deque[bulk.File] = deque()
        data = b""
        while not data.endswith(b"second"):
            data += bulk.receive(process, 1 << 20, got)
            done = ours.resume()
        assert done
        assert len(got) == 70

    def test_of_a_process_that_has_died_no_file_stays_open(self, channels):
        ours, process = channels
        files = files_of(3)
        ours.feed([("first", bytes(5_000_000))], [], files)
        process.close()
        assert ours.feed([("second",)], [], files)
        shared_memory.close(files)

    def test_outcomes_come_with_their_memory(self, channels):
        ours, process = channels
        body, file = bulk.outcome_body([b"1" * SIZE], [])
        assert body[0] == PARTS
        bulk.send(process, ours._packer.pack((5, 0, RESULT, 1, body)), file)
        process.sendall(ours._packer.pack((6, 0, RESULT, 1, b"\x80small")))
        (large,), closed = ours.read()  # the kernel ends it after a file
        (small,), closed = ours.read()
        assert not closed
        assert large[:4] == (5, 0, RESULT, 1)
        assert large[4].memory == b"1" * SIZE
        assert small == (6, 0, RESULT, 1, b"\x80small")

    def test_the_last_ones_of_a_process_that_died_do_too(self, channels):
        ours, process = channels
        body, file = bulk.outcome_body([b"1" * SIZE], [])
        bulk.send(process, ours._packer.pack((5, 0, RESULT, 1, body)), file)
        body, file = bulk.outcome_body([b"2" * SIZE], [])
        half = ours._packer.pack((6, 0, RESULT, 1, body))
        bulk.send(process, half[: len(half) // 2], file)
        process.close()
        (frame,) = ours.read_rest()
        assert frame[4].memory == b"1" * SIZE

    def test_an_outcome_without_its_file_is_none(self, channels):
        ours, process = channels
        process.sendall(ours._packer.pack((5, 0, RESULT, 1, bytes((PARTS,)))))
        with pytest.raises(ValueError, match="without its file"):
            ours.read()


class TestLimits:
    def test_a_process_whose_calls_keep_all_files_open_says_so(self, channels):
        ours, process = channels
        ours.feed([("frame",)], [], files := files_of(2))
        shared_memory.close(files)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
        fill = [os.dup(0) for _ in range(highest)]  # whatever is free below
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(fill) + 1, hard))
            with pytest.raises(OSError, match="so many files open") as caught:
                bulk.receive(process, 1 << 20, deque())
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            shared_memory.close(fill)
        assert caught.value.errno == errno.EMFILE

    def test_an_outcome_passes_while_many_files_are_on_their_way(self, channels, monkeypatch):
        """The kernel counts those of all processes of a user against the limit of the sender."""
        ours, process = channels
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == hard:
            pytest.skip("the limit cannot be raised here")
        limits = []

        def send_fds(sock, buffers, fds):
            limits.append(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            if len(limits) == 1:
                raise OSError(errno.ETOOMANYREFS, "Too many references")
            return real(sock, buffers, fds)

        real = socket.send_fds
        monkeypatch.setattr(socket, "send_fds", send_fds)
        body, file = bulk.outcome_body([b"1" * SIZE], [])
        bulk.send(process, ours._packer.pack((5, 0, RESULT, 1, body)), file)
        ((*_, shared),), _ = ours.read()
        assert shared.memory == b"1" * SIZE
        assert limits == [soft, hard]
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (soft, hard)
