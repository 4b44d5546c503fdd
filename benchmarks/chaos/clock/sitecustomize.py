"""Has the wall clock of a process jump, as one that is set anew does: for clients and local pods.

The machine's own clock is not touched. Python imports this before anything else, where this folder
is on its path; ``CHAOS_CLOCK`` names a file with the seconds to add, in 8 bytes.
"""

import mmap
import os
import time

if "CHAOS_CLOCK" in os.environ:
    with open(os.environ["CHAOS_CLOCK"], "rb") as file:  # noqa: PTH123
        _seconds = memoryview(mmap.mmap(file.fileno(), 8, prot=mmap.PROT_READ)).cast("d")
    _time, _time_ns = time.time, time.time_ns
    time.time = lambda: _time() + _seconds[0]
    time.time_ns = lambda: _time_ns() + int(_seconds[0]) * 10**9
