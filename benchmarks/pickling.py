"""What pickling costs: ours beside C pickle's, cloudpickle's and dill's, in one run.

Objects of ``__main__``, as a script has them, are pickled here and unpickled in a process that has
never seen it, as a pod has not. All of them take turns.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import json
import pickle
import platform
import struct
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import cloudpickle
import dill

from k8sfutures import __version__
from k8sfutures.serialization import dumps

from .figures import lines_of, number

Pickler = Callable[[object], bytes]

PICKLERS: dict[str, Pickler] = {
    "C pickle": lambda obj: pickle.dumps(obj, 5),
    "cloudpickle": lambda obj: bytes(cloudpickle.dumps(obj, 5)),
    "dill": lambda obj: bytes(dill.dumps(obj, 5, recurse=True)),
    "k8sfutures": dumps,
}
LOADERS = {"k8sfutures": "k8sfutures.serialization", "dill": "dill"}

# Reads lengths and pickles, loads each so often, and says how long the fastest took, or why not.
LOADER = """
import json, struct, sys, time, {module} as module
source = sys.stdin.buffer
times = []
while header := source.read(12):
    size, count = struct.unpack("<QI", header)
    data, best = source.read(size), None
    try:
        for _ in range(count):
            start = time.perf_counter()
            module.loads(data)
            took = time.perf_counter() - start
            best = took if best is None or took < best else best
    except Exception:
        best = None
    times.append(best)
print(json.dumps(times))
"""

FACTOR = 2


class Colour(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass
class Point:
    x: int
    y: int = 2
    colour: Colour = Colour.RED

    def norm(self) -> float:
        return FACTOR * float(self.x**2 + self.y**2) ** 0.5


def small(x: int) -> int:
    return x + 1


def reading(x: int) -> float:
    return small(x) * FACTOR + Point(x).norm()


def subjects() -> dict[str, object]:
    """What is pickled, by name."""
    found: dict[str, object] = {
        "arguments (1, 'a')": ((1, "a"), {}),
        "a small function": small,
        "a function with a helper, a global and a class": reading,
        "arguments with an object of a class of __main__": ((Point(1),), {}),
        "1,000 such objects": [Point(i) for i in range(1_000)],
        "100,000 tuples": [(i, str(i)) for i in range(100_000)],
        "10 MB of bytes": bytes(10_000_000),
    }
    try:
        import numpy as np
    except ImportError:
        return found
    found["an array of 10 MB"] = np.zeros(1_250_000)
    return found


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pickling", description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.3, help="for each figure")
    arguments = parser.parse_args()
    print(
        f"k8sfutures {__version__}, cloudpickle {cloudpickle.__version__}, dill "
        f"{dill.__version__}, Python {platform.python_version()}; µs, the fastest of those in "
        f"{arguments.seconds} s\n"
    )
    warnings.simplefilter("ignore", dill.PicklingWarning)
    objects = subjects()
    for title, measured in (
        ("pickling", {name: dumping(obj, arguments.seconds) for name, obj in objects.items()}),
        ("unpickling elsewhere", loading(objects, arguments.seconds)),
    ):
        rows = [(title, *PICKLERS)]
        rows += [
            (name, *(_cell(costs.get(by)) for by in PICKLERS)) for name, costs in measured.items()
        ]
        print(lines_of(rows) + "\n")
    sizes = {
        name: {by: len(made) for by, made in all_of(obj).items()} for name, obj in objects.items()
    }
    rows = [("bytes", *PICKLERS)]
    rows += [
        (name, *(f"{found[by]:,}" if by in found else "-" for by in PICKLERS))
        for name, found in sizes.items()
    ]
    print(lines_of(rows))


def all_of(obj: object) -> dict[str, bytes]:
    """The pickles of an object by those that take it."""
    found = {}
    for by, pickler in PICKLERS.items():
        try:
            found[by] = pickler(obj)
        except Exception:  # it is not in the table
            continue
    return found


def dumping(obj: object, seconds: float) -> dict[str, float | None]:
    """Seconds that each takes for an object at best; they take turns."""
    best: dict[str, float | None] = dict.fromkeys(all_of(obj))
    end = time.perf_counter() + seconds * len(best)
    while time.perf_counter() < end:
        for by, known in best.items():
            start = time.perf_counter()
            PICKLERS[by](obj)
            took = time.perf_counter() - start
            best[by] = took if known is None else min(known, took)
    return best


def loading(objects: dict[str, object], seconds: float) -> dict[str, dict[str, float | None]]:
    """Seconds that each takes at best where nothing of this program is known."""
    found: dict[str, dict[str, float | None]] = {name: {} for name in objects}
    pickles = {name: all_of(obj) for name, obj in objects.items()}
    for by in PICKLERS:
        names = [name for name in objects if by in pickles[name]]
        request = b"".join(
            struct.pack("<QI", len(pickles[name][by]), _repeats(len(pickles[name][by]), seconds))
            + pickles[name][by]
            for name in names
        )
        program = LOADER.format(module=LOADERS.get(by, "pickle"))
        done = subprocess.run(
            [sys.executable, "-c", program], input=request, capture_output=True, check=True
        )
        for name, took in zip(names, json.loads(done.stdout), strict=True):
            found[name][by] = took
    return found


def _repeats(size: int, seconds: float) -> int:
    return max(10, int(seconds * 10_000 / (1 + size / 1_000)))


def _cell(seconds: Any) -> str:
    return "-" if seconds is None else number(seconds * 1e6)


if __name__ == "__main__":
    main()
