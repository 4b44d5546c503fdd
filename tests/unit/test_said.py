"""What calls say on its way through a pod: whole characters, bounded, counted; and last words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from k8sfutures.messages import DROPPED, RECORD, STDERR, STDOUT, Attach
from k8sfutures.worker import said as module
from k8sfutures.worker.kept import Room
from k8sfutures.worker.ledger import Client, Job, Part, Slot
from k8sfutures.worker.said import (
    LAST_FRAMES,
    LAST_LINES,
    MOST_OF_CALL,
    MOST_OF_CLIENT,
    SOONEST,
    Said,
    Sayings,
    Words,
    cost_of,
)

LINE = b"x" * 79 + b"\n"
CRASH = (
    *(b"before\nFatal Python error: ", b"Segmentation fault\n\n"),
    b'Current thread 0x0123 (most recent call first):\n  File "f.py", line 4 in f\n',
)


class TestBounds:
    def test_pieces_of_one_call_are_put_together(self):
        said = Said()
        for body in (b"a", b"b\n"):
            assert said.add(1, 0, 3, STDOUT, body)
        said.add(1, 0, 3, STDERR, b"c\n")
        said.add(2, 0, 4, STDERR, b"d\n")
        said.add(2, 0, 4, RECORD, b"r")
        said.add(2, 0, 4, RECORD, b"s")
        assert said.take()[0] == [
            *((1, 0, 3, STDOUT, b"ab\n"), (1, 0, 3, STDERR, b"c\n")),
            *((2, 0, 4, STDERR, b"d\n"), (2, 0, 4, RECORD, b"r"), (2, 0, 4, RECORD, b"s")),
        ]
        assert said.lines == []

    def flood(self, said, call, pieces):
        return sum(said.add(call, 0, 3, STDOUT, LINE * 100) for _ in range(pieces))

    def test_one_call_is_cut_and_others_are_not(self):
        said = Said()
        most = MOST_OF_CALL // cost_of(LINE * 100)
        assert self.flood(said, 1, 1000) == most
        assert most * 100 > 10_000, "lines of a call that pass at once"
        assert self.flood(said, 2, 1) == 1

    def test_all_calls_together_are_cut(self):
        said = Said()
        for call in range(100):
            self.flood(said, call, 50)
        size = sum(len(line[4]) for line in said.take()[0])
        assert MOST_OF_CLIENT / 2 < size < MOST_OF_CLIENT

    def test_what_was_sent_and_is_not_confirmed_counts_as_well(self):
        said = Said()
        for call in range(100):
            self.flood(said, call, 50)
        _, cost = said.take()
        said.renew(1.0, unconfirmed=cost)  # it is kept, to be sent again if need be
        assert self.flood(said, 101, 50) < 50
        said.renew(2.0, unconfirmed=0)
        assert self.flood(said, 102, 50) == 50

    @pytest.mark.parametrize("every", [0.1, 0.5, 0.7, 1.0])
    def test_signs_of_life_count_for_the_time_that_has_passed(self, every):
        """A client confirms at once what a pod says that is to end."""
        said = Said()
        said.renew(0.0)
        sent, told, signs = {1: 0, 2: 0}, 0, int(10 / every)
        for sign in range(1, signs + 1):
            for call in sent:
                self.flood(said, call, 300)
            for call, _, _, kind, body in said.take()[0]:
                sent[call] += cost_of(body)
                told += kind == DROPPED
            said.renew(sign * every)
        for size in sent.values():
            assert 9 < size / MOST_OF_CALL <= 11, "what may come at first, and in each second"
        assert told <= len(sent) * 10 / SOONEST

    def test_what_was_cut_is_told_with_the_next_sign_of_life(self):
        said = Said()
        kept = self.flood(said, 1, 1000)
        said.take()
        said.renew(1.0)
        left = (1000 - kept) * 100
        assert said.take()[0] == [(1, 0, 3, DROPPED, b"%d %d" % (left, left * len(LINE)))]
        assert self.flood(said, 1, 1) == 1

    def test_it_is_told_when_the_call_ends(self):
        said = Said()
        self.flood(said, 1, 1000)
        said.take()
        said.ended(1, 0)
        ((call, item, _, kind, _),) = said.take()[0]
        assert (call, item, kind) == (1, 0, DROPPED)

    def test_no_line_begins_in_its_middle(self):
        said = Said()
        assert not said.add(1, 0, 3, STDOUT, b"x" * MOST_OF_CALL + b"the beg")
        said.renew(1.0)
        assert said.add(1, 0, 3, STDOUT, b"inning\nwhole\n")
        assert said.take()[0][-1] == (1, 0, 3, STDOUT, b"whole\n")
        said.renew(2.0)
        assert said.take()[0] == [(1, 0, 3, DROPPED, b"1 7")]

    @given(st.lists(st.tuples(st.integers(1, 99_999), st.booleans()), max_size=80))
    def test_every_line_and_byte_is_counted(self, pieces):
        said = Said()
        text = (b"x" * 79 + b"\n") * (sum(size for size, _ in pieces) // 80 + 1)
        at = 0
        for size, renewed in pieces:
            said.add(1, 0, 3, STDOUT, text[at : at + size])
            at += size
            if renewed:
                said.renew(float(at))
        said.ended(1, 0)
        lines = size = 0
        for _, _, _, kind, body in said.take()[0]:
            if kind == DROPPED:
                some, more = map(int, body.split())
                lines, size = lines + some, size + more
            else:
                lines, size = lines + body.count(b"\n"), size + len(body)
        assert (lines, size) == (text[:at].count(b"\n"), at)

    def test_nothing_is_remembered_of_calls_that_have_ended(self):
        said = Said()
        for call in range(10):
            self.flood(said, call, 1000)
            said.ended(call, 0)
        said.renew(1.0)
        assert (said._spent, said._dropped, said._cut) == ({}, {}, set())


class TestWords:
    @given(st.text(), st.lists(st.integers(1, 5)))
    def test_characters_are_never_torn(self, text, sizes):
        words, data = Words(), text.encode()
        out = []
        for size in [*sizes, len(data)]:
            piece, data = data[:size], data[size:]
            out.append(words.take((1, 0), STDOUT, piece).decode())
        assert "".join(out) == text

    @given(st.binary(), st.binary())
    def test_no_byte_is_lost_for_longer_than_a_character(self, first, second):
        words = Words()
        out = words.take((1, 0), STDOUT, first) + words.take((1, 0), STDOUT, second)
        assert (first + second).startswith(out)
        assert len(out) >= len(first + second) - 3

    def test_the_last_lines_are_kept(self):
        words = Words()
        for number in range(100):
            words.take((1, 0), number % 2 + 1, b"line %d\n" % number)
        lines = words.last_lines((1, 0))[0].splitlines()
        assert lines == [f"line {number}" for number in range(100 - LAST_LINES, 100)]

    def test_they_are_of_the_item_that_asks(self):
        words = Words()
        words.take((1, 0), STDOUT, b"before\n")
        assert words.last_lines((2, 0)) == ("", "")
        words.take((2, 0), STDOUT, b"now\n")
        assert words.last_lines((2, 0)) == ("now", "")

    def test_a_fatal_error_is_kept_from_its_beginning(self):
        words = Words()
        stack = b"".join(b'  File "f.py", line %d in f\n' % number for number in range(100))
        words.take((1, 0), STDERR, b"before\nFatal Python error: Segmentation fault\n\n" + stack)
        output, stack = words.last_lines((1, 0))
        assert output == "before"
        lines = stack.splitlines()
        assert lines[0] == "Fatal Python error: Segmentation fault"
        assert "line 0 in f" in lines[2]
        assert len(lines) == LAST_FRAMES

    def test_where_python_was_has_no_frames_of_ours(self):
        words = Words()
        stack = 'Stack (most recent call first):\n  File "f.py", line 4 in f\n'
        ours = (
            f'  File "{module.__file__}", line 1 in _call\n  File "<frozen runpy>", line 88 in f\n'
        )
        words.take((1, 0), STDERR, f"before\n{stack}{ours}".encode())
        assert words.last_lines((1, 0)) == (
            "before",
            'Stack (most recent call first):\n  File "f.py", line 4 in f',
        )

    @given(st.lists(st.sampled_from([b"one\n", b"two\n"]), max_size=3), st.integers(0, 30))
    def test_where_python_was_is_told_apart_however_it_comes(self, printed, cut):
        words = Words()
        stack = b'Stack (most recent call first):\n  File "f.py", line 4 in f\n'
        pieces = [*printed, stack[: 32 + cut], stack[32 + cut :]]
        passed = [words.without_stack(words.take((1, 0), STDERR, piece)) for piece in pieces]
        assert b"".join(passed) == b"".join(printed)


class TestWhoseWords:
    @pytest.fixture
    def slot(self):
        client = Client("c", Attach(("3", 3, "3"), 0, 60.0, None, None, b"reporting"), Room())
        slot = Slot(4, ready=True)
        slot.jobs[9] = Job(client, Part((77, 1, 5, b""), 0, 5), 3, 1.0)
        return slot

    def test_the_pipe_speaks_for_the_item_that_runs(self, slot):
        assert Sayings({4: slot}).printed(4, STDERR, b"words\n")
        assert slot.jobs[9].client.said.lines == [(77, 3, 4, STDERR, b"words\n")]

    def test_where_nothing_runs_it_is_for_the_log(self, slot):
        sayings = Sayings({4: Slot(4)})
        assert sayings.printed(4, STDOUT, b"words\n")
        assert sayings.take_log() == b"words\n"
        assert sayings.take_log() == b""

    def test_a_client_that_wants_nothing_gets_nothing(self, slot):
        slot.jobs[9].client.reporting = None
        sayings = Sayings({4: slot})
        sayings.printed(4, STDOUT, b"words\n")
        sayings.heard(slot, 9, 3, RECORD, b"record")
        assert not slot.jobs[9].client.said.lines
        assert sayings.take_log() == b"words\n"
        assert slot.words.last_lines((9, 3)) == ("words", "")

    def test_a_client_that_has_left(self, slot):
        slot.jobs[9].client.gone = True
        sayings = Sayings({4: slot})
        assert sayings.printed(4, STDOUT, b"words\n")
        assert sayings.take_log() == b""

    def say(self, slot, sayings, *pieces):
        for piece in pieces:
            assert sayings.printed(4, STDERR, piece)
        return b"".join(line[4] for line in slot.jobs[9].client.said.take()[0])

    def test_last_words_are_for_the_exception_alone(self, slot):
        sayings = Sayings({4: slot})
        assert self.say(slot, sayings, *CRASH) == b"before\n"
        output, stack = slot.words.last_lines((9, 3))
        assert output == "before"
        assert stack.startswith("Fatal Python error: Segmentation fault")

    def test_and_so_they_are_while_the_process_takes_its_time_to_end(self, slot):
        sayings = Sayings({4: slot})
        assert sayings.last_words() == []
        self.say(slot, sayings, *CRASH)
        assert sayings.last_words() == [4]
        for _ in range(9):
            sayings.tick([4])
        assert self.say(slot, sayings) == b""

    @pytest.mark.parametrize("how", ["it says more", "time passes", "it is too much"])
    def test_those_of_another_process_come_as_soon_as_that_is_known(self, slot, how):
        """A call that has started a program which crashes goes on."""
        sayings = Sayings({4: slot})
        self.say(slot, sayings, *CRASH)
        if how == "it says more":
            sayings.heard(slot, 9, 3, STDOUT, b"more\n")
        elif how == "time passes":
            sayings.tick()
            assert self.say(slot, sayings) == b""
            sayings.tick()
        else:
            sayings.printed(4, STDERR, b"x" * module.MOST_HELD)
        said = self.say(slot, sayings)
        assert said.startswith(b"".join(CRASH).removeprefix(b"before\n"))
        assert self.say(slot, sayings, b"after\n") == b"after\n"
