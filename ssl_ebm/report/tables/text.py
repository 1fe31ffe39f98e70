"""Tables on a terminal."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Container, Sequence

from ssl_ebm.report.tables.intervals import Row, shown_columns
from ssl_ebm.report.tables.measures import Measure

WIDTH = 120  # characters of a terminal


def text_table(
    blocks: Sequence[Sequence[Sequence[str]]], notes: Sequence[str] = (), *, words: Container[int] = (0,)
) -> str:
    """Blocks of lines of cells in aligned columns, then notes, with a rule between all that are not empty.

    Args:
        blocks: The first holds the headings.
        notes: Each is broken at `WIDTH`.
        words: Columns that are set to the left; numbers are set to the right.
    """
    widths = [max(map(len, column)) for column in zip(*itertools.chain(*blocks), strict=True)]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            text.ljust(width) if i in words else text.rjust(width)
            for i, (text, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(aligned).rstrip()

    parts = [list(map(line, block)) for block in blocks]
    parts.append([textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes])
    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    return f"\n{rule}\n".join("\n".join(part) for part in parts if part)


def plain_text(rows: Sequence[Row], notes: Sequence[str]) -> str:
    """The table of results, at most 120 columns wide: runs, then baselines.

    Where it would be wider, families give way to the objectives that they follow from, and long names are shortened.
    """
    columns = shown_columns(rows)
    marks = [f" {''.join(row.marks)}" if row.marks else "" for row in rows]
    longest = max(len(row.name + mark) for row, mark in zip(rows, marks, strict=True))
    if columns[0].key == "objective" and longest > _room(rows, columns):
        columns = [column for column in columns if column.key != "family"]
    room = _room(rows, columns)
    lines = [
        [shorten(row.name, room - len(mark)) + mark, *map(row.show, columns)]
        for row, mark in zip(rows, marks, strict=True)
    ]
    trained = sum(not row.baseline for row in rows)
    heads = ["run", *(column.head for column in columns)]
    words = [0, *(i for i, column in enumerate(columns, 1) if column.is_text)]
    return text_table([[heads], lines[:trained], lines[trained:]], notes, words=words)


def _room(rows: Sequence[Row], columns: Sequence[Measure]) -> int:
    """Characters left for names."""
    widths = [max(len(column.head), *(len(row.show(column)) for row in rows)) for column in columns]
    return WIDTH - sum(widths) - 2 * len(widths)


def shorten(text: str, width: int) -> str:
    """At most `width` characters; the middle gives way, since names differ at their ends."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
