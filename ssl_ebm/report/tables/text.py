"""What is compared: runs, columns and rows, how sure each number is, and the table on a terminal."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ssl_ebm.report.tables.measures import COLUMNS, Column

Z = 1.959964  # two-sided 95%
WIDTH = 120  # characters of a terminal


@dataclass(frozen=True, kw_only=True)
class Row:
    """A run, or what needs no training.

    Attributes:
        name: Unique in its table.
        baseline: Whether nothing was trained.
        marks: Symbols of the footnotes that hold for it.
        values: By `Column.key`; None where there is no such number.
        trials: Images of the "test" split and of the "energy" pairs.
        pairs: Which pairs: energies of other ones are not ranked against these.
    """

    name: str
    baseline: bool = False
    marks: tuple[str, ...] = ()
    values: Mapping[str, float | str | None] = field(default_factory=dict)
    trials: Mapping[str, int] = field(default_factory=dict)
    pairs: str = ""

    def show(self, column: Column) -> str:
        """A cell's text."""
        value = self.values.get(column.key)
        if value is None:
            return "–"
        return str(value) if column.is_text else column.show(value).replace("-", "−")

    def half_width(self, column: Column) -> float | None:
        """Half of the 95% interval of a proportion, in the same unit; None where there is none.

        Agresti & Coull 1998: p = (x + z²/2) / (n + z²), z √(p (1 - p) / (n + z²)); not zero at 0 or 1. For an AUROC, a
        mean of n anchors' values in [0, 1], it is an upper bound: no such values have a larger variance than 0s and 1s.
        """
        variance = self.variance(column)
        return None if variance is None else Z * math.sqrt(variance)

    def variance(self, column: Column) -> float | None:
        """The same interval's σ²."""
        value = self.values.get(column.key)
        if column.trials is None or not isinstance(value, (int, float)):
            return None
        n = self.trials[column.trials] + Z**2
        p = (value * self.trials[column.trials] + Z**2 / 2) / n
        return p * (1 - p) / n


def leaders(rows: Sequence[Row], column: Column) -> set[str]:
    """Names of the best run and of those that the images cannot tell from it.

    A gap to the best is real above z √(σ₁² + σ₂²), as if the runs had been tested on different images: the paired test
    is sharper. Empty where there is no interval, fewer than two runs, no run stands out, or their pairs differ.
    """
    known = [
        (row.name, float(row.values[column.key] or 0.0), variance)
        for row in rows
        if not row.baseline and (variance := row.variance(column)) is not None
    ]
    if len(known) < 2 or (column.trials == "energy" and len({row.pairs for row in rows if not row.baseline}) > 1):
        return set()
    _, best, spread = max(known, key=lambda item: item[1])
    tied = {name for name, value, variance in known if best - value <= Z * math.sqrt(variance + spread)}
    return set() if len(tied) == len(known) else tied


def shown_columns(rows: Sequence[Row]) -> list[Column]:
    """All columns, less the objective's where every run is named by it."""
    repeated = all(row.baseline or row.name == row.values.get("objective") for row in rows)
    return [column for column in COLUMNS if not (repeated and column.key == "objective")]


def plain_text(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table on a terminal, at most 120 columns wide: runs, a rule, baselines, footnotes.

    Where it would be wider, families give way to the objectives that they follow from, and long names are shortened.
    """
    columns = shown_columns(rows)
    names = [" ".join([row.name, *filter(None, ["".join(row.marks)])]) for row in rows]
    if columns[0].key == "objective" and max(map(len, names)) > _room(rows, columns):
        columns = [column for column in columns if column.key != "family"]
    room = _room(rows, columns)
    for i, row in enumerate(rows):
        names[i] = shorten(row.name, room - len(names[i]) + len(row.name)) + names[i][len(row.name) :]
    cells = [["run", *(column.head for column in columns)]]
    cells += [[name, *(row.show(column) for column in columns)] for name, row in zip(names, rows, strict=True)]
    widths = [max(map(len, texts)) for texts in zip(*cells, strict=True)]
    left = [True, *(column.is_text for column in columns)]
    lines = [
        "  ".join(
            t.ljust(w) if to_left else t.rjust(w) for t, w, to_left in zip(line, widths, left, strict=True)
        ).rstrip()
        for line in cells
    ]
    rule = "─" * (sum(widths) + 2 * len(columns))
    trained = 1 + sum(not row.baseline for row in rows)
    parts = [
        lines[:1],
        lines[1:trained],
        lines[trained:],
        [textwrap.fill(n, WIDTH, subsequent_indent="  ") for n in notes],
    ]
    return f"\n{rule}\n".join("\n".join(part) for part in parts if part)


def _room(rows: Sequence[Row], columns: Sequence[Column]) -> int:
    """Characters left for names."""
    widths = [max(len(column.head), *(len(row.show(column)) for row in rows)) for column in columns]
    return WIDTH - sum(widths) - 2 * len(widths)


def shorten(text: str, width: int) -> str:
    """At most `width` characters; the middle gives way, since names differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
