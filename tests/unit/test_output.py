"""What calls say, at the client: marks, order, bounds; and what reaches loggers and filters."""

import io
import logging
import sys
import threading
import warnings

import pytest

from k8sfutures.messages import DROPPED, RECORD, STDERR, STDOUT, WARNING
from k8sfutures.outcomes import mark_of
from k8sfutures.output import MOST_WAITING, Heard, Marker, Printer
from k8sfutures.records import pack_record, pack_warning


def shown(*pieces):
    """What is written for (mark, text) pieces on stdout, and for (mark, text, 2) on stderr."""
    marker = Marker()
    out = []
    for mark, text, *stream in pieces:
        out += marker.lines(mark, *(stream or [1]), text)
    marker.end(out)
    return "".join(text for _, text in out)


class TestMarks:
    @pytest.mark.parametrize(
        ("function", "index", "mark"),
        [
            ("simulate", None, "simulate#12"),
            ("simulate", 3, "simulate[3]"),
            ("test.<locals>.work", None, "work#12"),
            ("test.<locals>.<lambda>", 0, "lambda[0]"),
            ("Model.fit", None, "Model.fit#12"),
            ("x" * 500, None, "x" * 40 + "#12"),
        ],
    )
    def test_a_call_is_named_shortly(self, function, index, mark):
        assert mark_of(function, 12, index) == mark

    def test_every_line_has_one(self):
        assert shown(("f#1", "a\nb\n")) == "f#1 | a\nf#1 | b\n"

    def test_an_empty_line_has_no_space_behind_it(self):
        assert shown(("f#1", "\n")) == "f#1 |\n"

    def test_stderr_has_the_same(self):
        out = Marker().lines("f#1", 2, "a\n")
        assert out == [(2, "f#1 | a\n")]

    def test_a_line_that_comes_in_parts(self):
        assert shown(("f#1", "a"), ("f#1", "b"), ("f#1", "c\nd\n")) == "f#1 | abc\nf#1 | d\n"

    def test_a_line_that_is_not_ended_is_ended_before_anothers(self):
        assert shown(("f#1", "a"), ("g#2", "b\n"), ("f#1", "c\n")) == (
            "f#1 | a\ng#2 | b\nf#1 | c\n"
        )

    def test_it_is_ended_on_its_own_stream(self):
        marker = Marker()
        assert marker.lines("f#1", 1, "a") == [(1, "f#1 | a")]
        assert marker.lines("f#1", 2, "b\n") == [(1, "\n"), (2, "f#1 | b\n")]

    def test_a_line_that_is_written_over_stays_one_line(self):
        bar = shown(("f#1", "\r 10%"), ("f#1", "\r100%"), ("f#1", "\n"))
        assert bar == "f#1 |  10%\rf#1 | 100%\n"

    def test_what_is_shorter_covers_what_was_there(self):
        assert shown(("f#1", "\rlong"), ("f#1", "\rx")) == "f#1 | long\rf#1 | x   \n"

    def test_bars_of_several_calls_share_a_line(self):
        assert shown(("f#1", "\rA"), ("g#2", "\rB"), ("g#2", "text\n")).count("\n") == 1

    def test_other_lines_do_not_write_into_a_bar(self):
        assert shown(("f#1", "\rA"), ("g#2", "text\n")) == "f#1 | A\ng#2 | text\n"

    def test_windows_ends_are_ends(self):
        assert shown(("f#1", "a\r\nb\r\n")) == "f#1 | a\nf#1 | b\n"


def say(*lines, output="marked"):
    """Have a printer say (kind, body) of item 0 of a map, and wait until it has."""
    printer = Printer("test", output)
    hear(printer, *lines)
    printer.close(10)


def hear(printer, *lines):
    heard = Heard("pod-1", [(7, 0, 3, kind, body) for kind, body in lines])
    printer.hear(heard, lambda pod, call: (1, 5), lambda function: "simulate")


class TestPrinter:
    def test_text_goes_to_its_stream(self, capsys):
        say((STDOUT, b"a\n"), (STDERR, b"b\n"))
        assert capsys.readouterr() == ("simulate[5] | a\n", "simulate[5] | b\n")

    def test_plain_text_is_as_it_was_written(self, capsys):
        say((STDOUT, b"a\r"), (STDOUT, b"b"), output="plain")
        assert capsys.readouterr().out == "a\rb"

    def test_a_line_that_is_open_is_ended_at_the_end(self, capsys):
        say((STDOUT, b"a"))
        assert capsys.readouterr().out == "simulate[5] | a\n"

    def test_what_was_cut_is_told(self, capsys):
        say((STDOUT, b"a"), (DROPPED, b"123456 7000000"))
        assert capsys.readouterr() == (
            "simulate[5] | a\n",
            "simulate[5] | [k8sfutures: 123,456 lines dropped, 7,000,000 bytes]\n",
        )

    def test_a_terminal_that_is_stopped_holds_up_nobody(self, capsys, monkeypatch):
        go_on = threading.Event()

        class Stopped(io.StringIO):
            def write(self, text):
                go_on.wait(20)
                return super().write(text)

        out = Stopped()
        monkeypatch.setattr(sys, "stdout", out)
        printer = Printer("test")
        piece = b"x" * 999_999 + b"\n"
        for _ in range(2 * MOST_WAITING // len(piece)):
            hear(printer, (STDOUT, piece))  # or this would wait for ever
        go_on.set()
        printer.close(20)
        assert MOST_WAITING / 2 < len(out.getvalue()) < 1.2 * MOST_WAITING
        assert "lines dropped, as they came faster than they go" in capsys.readouterr().err

    def test_a_stream_that_is_not_there_harms_nothing(self, capsys, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        say((STDOUT, b"a\n"), (STDERR, b"b\n"))
        assert capsys.readouterr().err == "simulate[5] | b\n"

    def test_a_record_that_is_none_harms_nothing(self, capsys, caplog):
        say((RECORD, b"\xc1"), (RECORD, b"\x80"), (WARNING, b"\x80"), (STDERR, b"b\n"))
        assert capsys.readouterr().err == "simulate[5] | b\n"
        assert len(caplog.messages) == 3
        assert all("cannot show what simulate[5] says" in text for text in caplog.messages)


def record(level=logging.WARNING, *, message="%s it is", args=("here",), **given):
    made = logging.getLogger("their.app").makeRecord(
        "their.app", level, "/pod/app.py", 42, message, args, None, "work"
    )
    made.__dict__.update(given)
    return made


class TestRecords:
    def test_a_record_comes_to_the_logger_of_its_name(self, caplog):
        say((RECORD, pack_record(record())))
        (got,) = caplog.records
        assert (got.name, got.levelno, got.getMessage()) == (
            *("their.app", logging.WARNING),
            "simulate[5] | here it is",
        )
        assert (got.pathname, got.lineno, got.funcName) == ("/pod/app.py", 42, "work")
        assert (got.k8s_call, got.k8s_pod, got.k8s_cpu_id) == ("simulate[5]", "pod-1", 3)

    def test_plain_messages_have_no_mark(self, caplog):
        say((RECORD, pack_record(record())), output="plain")
        assert caplog.messages == ["here it is"]
        assert caplog.records[0].k8s_call == "simulate[5]"

    def test_levels_here_hold(self, caplog):
        with caplog.at_level(logging.ERROR, "their.app"):
            say((RECORD, pack_record(record())))
        assert not caplog.records

    def test_exceptions_and_extras_travel_as_what_can(self, caplog):
        try:
            raise ValueError("inside")
        except ValueError:
            given = {"exc_info": sys.exc_info(), "user": "ada", "lock": threading.Lock()}
        say((RECORD, pack_record(record(**given))))
        (got,) = caplog.records
        assert got.user == "ada"
        assert not hasattr(got, "lock")
        assert "ValueError: inside" in logging.Formatter().format(got)
        assert got.created == pytest.approx(record().created, abs=60)

    def test_a_call_within_a_call_stays_the_one_that_said_it(self, caplog):
        say((RECORD, pack_record(record(k8s_call="inner#1", k8s_pod="pod-2"))))
        assert (caplog.records[0].k8s_call, caplog.records[0].k8s_pod) == ("inner#1", "pod-2")


class OwnWarning(UserWarning):
    def __init__(self, text, *, level):
        super().__init__(text)
        self.level = level


class TestWarnings:
    def warned(self, *packed, action="default"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter(action)
            say(*[(WARNING, body) for body in packed])
        return [(one.category, str(one.message), one.filename, one.lineno) for one in caught]

    def test_a_warning_is_one_here(self):
        body = pack_warning(RuntimeWarning("careful"), RuntimeWarning, "/pod/a.py", 7)
        assert self.warned(body) == [(RuntimeWarning, "careful", "/pod/a.py", 7)]

    def test_filters_here_hold(self):
        body = pack_warning(RuntimeWarning("again"), RuntimeWarning, "/pod/b.py", 7)
        assert self.warned(body, action="ignore") == []
        assert len(self.warned(body, body)) == 1, "once for each place"
        assert len(self.warned(body, body, action="always")) == 2

    def test_where_a_filter_makes_errors_it_is_logged(self, caplog):
        body = pack_warning(RuntimeWarning("an error"), RuntimeWarning, "/pod/c.py", 7)
        assert self.warned(body, action="error") == []
        assert caplog.messages == ["simulate[5] was warned: RuntimeWarning: an error"]

    def test_a_class_that_cannot_be_made_or_found_is_its_base(self):
        body = pack_warning(OwnWarning("own", level=1), OwnWarning, "/pod/d.py", 7)
        assert self.warned(body) == [(UserWarning, "own", "/pod/d.py", 7)]
        body = body.replace(OwnWarning.__module__.encode(), b"x" * len(OwnWarning.__module__))
        assert self.warned(body) == [] or self.warned(body)[0][0] is UserWarning
