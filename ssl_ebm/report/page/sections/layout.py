"""Values that the templates of several sections draw: figures with captions, shaded cells, legends, tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ssl_ebm.report.looks import DISTINCT, Look
from ssl_ebm.report.runs import Group
from ssl_ebm.report.tables.sheet import Sheet, SheetHead


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A picture with its caption.

    Attributes:
        content: A chart, or values that the section's template makes a picture of.
        title: The caption's bold words; empty: there is no caption.
        note: The caption's grey words, after the bold ones.
        look: Its swatch stands before the caption; None: no swatch does.
    """

    content: Any
    title: str = ""
    note: str = ""
    look: Look | None = None

    @classmethod
    def of(cls, group: Group, content: Any, note: str = "") -> Figure:
        """A figure whose caption is the group's swatch and name, and a note."""
        return cls(content=content, title=group.name, note=note, look=group.look)


@dataclass(frozen=True, kw_only=True)
class ShadedCell:
    """A cell of a table, the darker the higher its number.

    Attributes:
        text: The number as it is shown.
        opacity: Of the cell's colour, in percent (`opacity`); None: the cell has no number.
        hint: Words that appear on pointing.
        style: CSS classes.
    """

    text: str
    opacity: int | None = None
    hint: str = ""
    style: str = ""


def opacity(value: float, low: float, high: float) -> int:
    """Percent, from 4 at the lowest value to 50 at the highest: text stays legible on it."""
    return round(4 + 46 * (value - low) / max(high - low, 1e-9))


def many(groups: Sequence[Group]) -> bool:
    """True if there are more groups than colours: a colour is a family's then, and curves are named at their ends."""
    return len(groups) > DISTINCT


def legend(groups: Sequence[Group]) -> dict[str, Look]:
    """Names and looks below a heading: of the groups or, of many, of their families; of one group, nothing."""
    if many(groups):
        return {group.family: Look(group.look.colour) for group in groups}
    return {group.name: group.look for group in groups} if len(groups) > 1 else {}


def class_names(groups: Sequence[Group], count: int) -> list[str]:
    """The names of the data set's classes, as the first gallery has them; without a gallery, the classes' numbers."""
    for group in groups:
        if group.first.gallery is not None:
            return [str(name) for name in group.first.gallery["classes"]]
    return [f"class {c}" for c in range(count)]


def head_groups(heads: Sequence[SheetHead]) -> list[tuple[str, list[SheetHead]]]:
    """Neighbouring columns that share a heading above their own, by that heading; "" where they have none."""
    return [(name, list(members)) for name, members in groupby(heads, key=lambda head: head.group)]


def table_style(sheet: Sheet) -> str:
    """The table's CSS classes: few columns keep their width, many columns with bounds are set in small print."""
    bounds = any(cell.bound for entry in sheet.entries for cell in entry.cells)
    return "results" + (" few" if len(sheet.heads) <= 6 else " full" if bounds and len(sheet.heads) > 11 else "")
