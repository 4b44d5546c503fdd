"""What can be chosen for some calls, and what cannot."""

import pytest

from k8sfutures.options import Options


def test_what_is_given_is_kept():
    options = Options.of(2, (ValueError, KeyError), 3)
    assert options == Options(2, (ValueError, KeyError), 3.0)
    assert type(options.timeout) is float
    assert Options.of(None, OSError, None).retry_on == (OSError,)
    assert Options.of(0, (), None) == Options(0)


@pytest.mark.parametrize(
    ("values", "kind", "words"),
    [
        ((-1, (), None), ValueError, "retries must be >= 0, not -1"),
        ((True, (), None), TypeError, "retries must be an integer or None, not True"),
        ((1.5, (), None), TypeError, "retries must be an integer or None, not 1.5"),
        ((None, int, None), TypeError, "retry_on must be .*; <class 'int'> is none"),
        ((None, ValueError("x"), None), TypeError, "retry_on must be"),
        ((None, [ValueError], None), TypeError, "retry_on must be"),
        (
            (None, (), 0),
            ValueError,
            r"timeout must be above 0 and at most 1e\+09 seconds, not 0; leave",
        ),
        ((None, (), float("nan")), ValueError, "not nan"),
        ((None, (), float("inf")), ValueError, "not inf"),
        ((None, (), 10**400), ValueError, "not 10000"),
        ((None, (), 1e10), ValueError, "not 10000000000.0; leave it out for no limit"),
        ((None, (), "3"), TypeError, "timeout must be a number of seconds or None, not '3'"),
        ((None, (), True), TypeError, "not True"),
    ],
)
def test_what_cannot_work_is_refused(values, kind, words):
    with pytest.raises(kind, match=words):
        Options.of(*values)


def test_what_no_retries_are_left_for_is_idle():
    assert Options(0, (OSError,)).is_idle(3)
    assert Options(None, (OSError,)).is_idle(0)
    assert not Options(1, (OSError,)).is_idle(0)
    assert not Options(0).is_idle(3)


def test_options_add_up():
    both = Options(1, (KeyError,), 2.0)
    assert Options().over(both) == both
    assert Options(0, (OSError,), 1.0).over(both) == Options(0, (OSError,), 1.0)
    assert both.over(None) == both
