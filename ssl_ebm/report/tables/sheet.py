"""Tables of numbers, before they become HTML, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ssl_ebm.report.looks import Look


@dataclass(frozen=True, kw_only=True)
class SheetHead:
    """A column.

    Attributes:
        key: Unique in its table.
        title: Its heading.
        group: Heading above its own and its neighbours'.
        text: Whether it holds words, which stand to the left.
    """

    key: str
    title: str
    group: str = ""
    text: bool = False


@dataclass(frozen=True, kw_only=True)
class SheetCell:
    """A number or a word.

    Attributes:
        text: As it is shown.
        value: What sorts it; None where there is no such number.
        bound: How sure it is, as it is shown: ±0.7.
        mark: "best", or "tied" with the best: a difference was not found.
    """

    text: str = "–"
    value: int | float | str | None = None
    bound: str = ""
    mark: Literal["", "best", "tied"] = ""


@dataclass(frozen=True, kw_only=True)
class SheetEntry:
    """A row: its name, and a cell a column.

    Attributes:
        name: Unique in its table.
        cells: In the columns' order.
        look: None: it has none in the pictures.
        marks: Symbols of the footnotes that hold for it.
        baseline: Whether nothing was trained.
    """

    name: str
    cells: Sequence[SheetCell]
    look: Look | None = None
    marks: Sequence[str] = ()
    baseline: bool = False


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A table.

    Attributes:
        title: What it is a table of.
        heads: Columns.
        entries: Rows, baselines last.
        first: Heading of the rows' names.
        notes: Footnotes.
    """

    title: str
    heads: Sequence[SheetHead]
    entries: Sequence[SheetEntry]
    first: str = "Run"
    notes: Sequence[str] = ()

    def as_dict(self) -> list[dict[str, Any]]:
        """Values by row and column, for JSON."""
        return [
            {"name": entry.name, "baseline": entry.baseline}
            | {head.key: cell.value for head, cell in zip(self.heads, entry.cells, strict=True)}
            for entry in self.entries
        ]
