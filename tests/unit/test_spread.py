"""Which CPUs a local pod begins with, beside those of other pools."""

from __future__ import annotations

import pytest

from k8sfutures.pods.spread import least_used_first


@pytest.mark.parametrize(
    ("others", "order"),
    [
        pytest.param([], [0, 1, 2, 3], id="it is alone"),
        pytest.param([(0,)], [1, 2, 3, 0], id="beside a pod of one CPU"),
        pytest.param([(0, 1, 2, 3)], [3, 2, 1, 0], id="beside one that has them all"),
        pytest.param([(1, 3), (2, 0)], [0, 3, 1, 2], id="what others begin with counts most"),
        pytest.param([(7,)], [0, 1, 2, 3], id="beside one with CPUs that it may not use"),
    ],
)
def test_the_order_of_the_cpus(others: list[tuple[int, ...]], order: list[int]) -> None:
    assert least_used_first([2, 0, 3, 1], others) == order


def test_pods_begin_with_different_cpus_while_there_are_some() -> None:
    pods: list[list[int]] = []
    for _ in range(8):
        pods.append(least_used_first(range(8), pods))
    assert sorted(pod[0] for pod in pods) == list(range(8))
