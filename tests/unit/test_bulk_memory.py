"""The C library keeps large blocks, which is to cost no memory itself."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes, threading
from k8sfutures.bulk_memory import get_used_to_bulk

MIB = 1024 * 1024

def most():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024

before = most()
get_used_to_bulk()
get_used_to_bulk()
threads = [threading.Thread(target=get_used_to_bulk) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(most() - before)

class Info(ctypes.Structure):  # struct mallinfo2, mallinfo(3)
    _fields_ = [(name, ctypes.c_size_t) for name in
        "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
if mallinfo is not None:
    mallinfo.restype = Info
    mapped = mallinfo().hblks
    block = bytearray(20 * MIB)
    print(mallinfo().hblks - mapped)
"""


def test_it_takes_no_memory_however_often_and_on_whichever_thread():
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True
    )
    grown, *mapped = map(int, run.stdout.split())
    assert grown < 10, f"{grown} MiB"
    assert mapped in ([], [0])
