"""`sys.stdout` and `sys.stderr` of a call: lines, bulk, pipes, and what a fork leaves alone."""

import os
import threading

import pytest

from k8sfutures.messages import RECORD, STDERR, STDOUT
from k8sfutures.worker import output
from k8sfutures.worker.output import BURST, PIPE, Allowance, Outlet


class Process:
    """An outlet on two pipes; `sent` is what came as frames."""

    def __init__(self):
        self.sent = []
        pipes = [os.pipe(), os.pipe()]
        self.ends = tuple(write for _, write in pipes)
        self.reads = [read for read, _ in pipes]
        self.outlet = Outlet(lambda kind, body: self.sent.append((kind, body)), self.ends)
        self.out, self.err = self.outlet.streams

    def text(self, stream=STDOUT):
        return b"".join(body for kind, body in self.sent if kind == stream).decode()


@pytest.fixture
def process():
    return Process()


def test_lines_go_on_at_once_and_what_is_not_ended_at_the_end(process):
    process.out.write("a\nb")
    assert process.sent == [(STDOUT, b"a\n")]
    process.out.write("c\nd")
    assert process.sent[1:] == [(STDOUT, b"bc\n")]
    process.outlet.finish()
    assert process.sent[2:] == [(STDOUT, b"d")]


def test_what_is_flushed_goes_on(process):
    print("a", end="", file=process.err, flush=True)
    assert process.sent == [(STDERR, b"a")]


def test_a_line_that_is_drawn_again_and_again_goes_on_now_and_then(process, monkeypatch):
    monkeypatch.setattr(output.time, "monotonic", lambda: 1e9)
    for number in range(100):
        print(f"\r{number}%", end="", file=process.out, flush=True)
    assert process.text() == "\r0%"
    print(file=process.out)
    assert process.text() == "\r0%\r99%\n"


def test_bytes_are_text(process):
    data = "naïve\n".encode()
    process.out.buffer.write(data[:3])
    process.out.buffer.write(memoryview(data[3:]))
    assert process.text() == "naïve\n"


def test_what_is_no_text_is_refused(process):
    with pytest.raises(TypeError, match="must be str, not bytes"):
        process.out.write(b"a")


def test_it_stays_open(process):
    process.out.close()
    assert not process.out.closed
    process.out.reconfigure(line_buffering=False)
    print("a", file=process.out)
    assert process.text() == "a\n"
    assert (process.out.encoding, process.out.name) == ("utf-8", "<stdout>")


def test_what_cannot_be_encoded_is_shown(process):
    process.out.write("\udc80\n")
    assert process.text() == "\\udc80\n"


def test_threads_do_not_write_into_each_others_lines(process):
    barrier = threading.Barrier(4)

    def work(number):
        for _ in range(20):
            process.out.write(f"line {number}")
            barrier.wait(10)
            process.out.write("\n")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    process.outlet.finish()
    lines = sorted(process.text().splitlines())
    assert lines == sorted(f"line {number}" for number in range(4) for _ in range(20))


def test_what_is_in_the_pipes_comes_before_the_next_line_and_at_the_end(process):
    process.out.write("python\n")
    os.write(process.ends[0], b"program\n")
    process.out.write("python\n")
    os.write(process.ends[1], b"trouble\n")
    process.outlet.finish()
    assert process.sent == [
        (STDOUT, b"python\n"),
        (STDOUT, b"program\n"),
        (STDOUT, b"python\n"),
        (STDERR, b"trouble\n"),
    ]


def test_many_lines_go_in_bulk_and_keep_their_order(process, monkeypatch):
    monkeypatch.setattr(output.time, "monotonic", lambda: process.outlet._allowance._at)
    lines = [f"line {number}\n" for number in range(3 * BURST)]
    for line in lines:
        process.out.write(line)
    assert len(process.sent) == BURST
    process.outlet.finish()
    assert process.text() == "".join(lines)


def test_a_large_piece_is_no_frame(process):
    read = []
    reader = threading.Thread(target=lambda: read.append(os.read(process.reads[0], PIPE)))
    reader.start()
    process.out.write("x" * (PIPE + 1) + "\n")
    reader.join()
    process.outlet.finish()
    assert len(read[0]) + len(process.text()) == PIPE + 2
    assert all(len(body) <= PIPE for _, body in process.sent)


def test_a_forked_child_writes_into_the_pipe(process):
    child = os.fork()
    if not child:
        print("from the child", file=process.out)
        process.outlet.record(RECORD, b"record")
        os._exit(len(process.sent))
    _, status = os.waitpid(child, 0)
    assert status == 0
    process.outlet.finish()
    assert process.sent == [(STDOUT, b"from the child\n")]


def test_records_keep_their_place(process):
    os.write(process.ends[0], b"before\n")
    process.outlet.record(RECORD, b"record")
    assert process.sent == [(STDOUT, b"before\n"), (RECORD, b"record")]


def test_an_allowance_comes_back(monkeypatch):
    now = 0.0
    monkeypatch.setattr(output.time, "monotonic", lambda: now)
    allowance = Allowance(2, 10)
    assert [allowance.take() for _ in range(3)] == [True, True, False]
    now = 0.1
    assert [allowance.take() for _ in range(2)] == [True, False]
    now = 100.0
    assert [allowance.take() for _ in range(3)] == [True, True, False]
