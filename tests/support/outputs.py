"""What calls print, as a test waits for it."""

import threading


def wait_for_output(capfd, text):
    """Wait until a call has printed this; returns all that was printed until then."""
    seen = ""
    event = threading.Event()
    for _ in range(600):
        seen += capfd.readouterr().out
        if text in seen:
            return seen
        event.wait(0.05)
    raise AssertionError(f"{text!r} is not in {seen!r}")
