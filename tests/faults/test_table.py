"""`docs/faults.md` names tests that there are, and every test of a fault."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAMED = re.findall(r"`(tests/\S+?)::(\w+)`", (ROOT / "docs" / "faults.md").read_text("utf-8"))


def names_in(path):
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_each_row_names_tests_that_there_are():
    assert [f"{path}::{name}" for path, name in NAMED if name not in names_in(path)] == []


def test_each_test_of_a_fault_has_a_row():
    named = {name for _, name in NAMED}
    for path in ("test_broker.py", "test_client.py", "test_half_open.py", "test_pods.py"):
        assert names_in(f"tests/faults/{path}") <= named, path
