"""Every kind of definition, from every kind of `__main__`; see `programs/kinds.py`."""

from __future__ import annotations

import ast

import pytest

from tests.definitions.conftest import WAYS, kinds

CASES = [
    node.name
    for node in ast.parse(kinds()).body
    if isinstance(node, ast.FunctionDef)
    and any(isinstance(one, ast.Name) and one.id == "case" for one in node.decorator_list)
]

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", CASES)
def test_it_arrives_works_and_comes_back(case, way, reports):
    error = reports(way)[case]
    assert error is None, error
