"""Programs that share warm pods do not meet there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]

PROGRAM = """
import sys
from k8sfutures import K8sRabbitExecutor

mine = sys.argv[1]
count = 0

class Thing:
    whose = mine

    def look(self):
        return self.whose, mine

def touch(thing):
    global count
    count += 1
    Thing.seen = count
    import __main__
    return thing, isinstance(thing, Thing), thing.look(), count, __main__.mine, Thing.seen

with K8sRabbitExecutor(1) as ex:
    for turn in sys.stdin:
        thing, *said = ex.submit(touch, Thing()).result(60)
        print(type(thing) is Thing, *said, hasattr(Thing, "seen"), flush=True)
"""


def test_classes_and_globals_of_the_same_name_are_each_programs_own(pods):
    environment = os.environ | {
        f"K8SFUTURES_{name.upper()}": str(value) for name, value in pods.items()
    }
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, name],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    try:
        for turn in (1, 2, 3):
            for program, name in zip(programs, ("one", "two"), strict=True):
                program.stdin.write("go\n")
                program.stdin.flush()
                assert program.stdout.readline().strip() == (
                    f"True True ('{name}', '{name}') {turn} {name} {turn} False"
                )
    finally:
        for program in programs:
            program.stdin.close()
            program.wait(30)
            program.stdout.close()
