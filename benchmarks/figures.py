"""Figures with their spread, as a table for people and as JSON for programs."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Figure:
    """One row: what was measured, in each round, for the standard library and for us.

    Attributes:
        name: of the row.
        unit: of its values.
        higher_is_better: of two values.
        standard: the standard library's, one for each round; empty where it has no such thing.
        ours: likewise.
    """

    name: str
    unit: str
    higher_is_better: bool
    standard: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float | None:
        """Ours divided by the standard library's, of the medians."""
        if not self.standard or not self.ours:
            return None
        return statistics.median(self.ours) / statistics.median(self.standard)

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "name": self.name,
            "unit": self.unit,
            "better": "higher" if self.higher_is_better else "lower",
            "standard_library": _summary(self.standard),
            "k8sfutures": _summary(self.ours),
            "ratio": self.ratio,
        }


def _summary(rounds: list[float]) -> dict[str, Any] | None:
    return {"median": statistics.median(rounds), "rounds": rounds} if rounds else None


def table(figures: Iterable[Figure]) -> str:
    """Rows of medians, with the lowest and the highest round, and the ratio."""
    rows = [("median (lowest … highest round)", "", "standard library", "k8sfutures", "ratio")]
    for figure in figures:
        ratio = figure.ratio
        rows.append(
            (
                f"{figure.name}, {figure.unit}",
                "more is better" if figure.higher_is_better else "less is better",
                _cell(figure.standard),
                _cell(figure.ours),
                "" if ratio is None else f"{ratio:.2f}",
            )
        )
    return lines_of(rows)


def lines_of(rows: Sequence[tuple[str, ...]]) -> str:
    """Align columns: words to the left, figures to the right; the first row is the heading."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    words = [not any(_is_figure(row[column]) for row in rows[1:]) for column in range(len(widths))]
    lines = [
        "  ".join(
            cell.ljust(width) if is_words else cell.rjust(width)
            for cell, width, is_words in zip(row, widths, words, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("─" * width for width in widths), *lines[1:]])


def _is_figure(cell: str) -> bool:
    return cell[:1].isdigit()


def _cell(rounds: list[float]) -> str:
    if not rounds:
        return "-"
    low, middle, high = min(rounds), statistics.median(rounds), max(rounds)
    return f"{number(middle)} ({number(low)} … {number(high)})"


def number(value: float) -> str:
    """With about three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
