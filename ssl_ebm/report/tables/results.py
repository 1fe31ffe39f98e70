"""The tables of results: one row a run, or one an objective of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ssl_ebm.report.runs import Group, Study
from ssl_ebm.report.tables.intervals import Row, leaders, shown_columns
from ssl_ebm.report.tables.measures import Measure, measure_of, percent, shown_in
from ssl_ebm.report.tables.sheet import Sheet, SheetCell, SheetEntry, SheetHead

BOLD = "Bold: the best run, and those that this many images cannot tell from it; nothing where no run stands out."
TIES = "Bold: the best objective of a column. Bold with =: a tie, no difference to the best was found."


def run_sheet(rows: Sequence[Row], notes: Sequence[str], groups: Sequence[Group]) -> Sheet:
    """Every run, then baselines."""
    columns = shown_columns(rows)
    best = {column.key: leaders(rows, column) for column in columns}
    looks = {run.name: group.look for group in groups for run in group.runs}

    def cell(row: Row, column: Measure) -> SheetCell:
        width = row.half_width(column)
        return SheetCell(
            text=row.show(column),
            value=row.values.get(column.key),
            bound=f"±{100 * width:.1f}" if width is not None and column.show is percent else "",
            mark="best" if row.name in best[column.key] else "",
        )

    entries = [
        SheetEntry(
            name=row.name,
            cells=[cell(row, column) for column in columns],
            look=looks.get(row.name),
            marks=row.marks,
            baseline=row.baseline,
        )
        for row in sorted(rows, key=lambda row: row.baseline)
    ]
    return Sheet(title="Results", heads=[_head(c) for c in columns], entries=entries, notes=[*notes, BOLD])


def study_sheet(study: Study, groups: Sequence[Group], rows: Sequence[Row]) -> Sheet:
    """Every objective, means over its seeds, then baselines."""
    metrics = list(dict.fromkeys(metric for row in study.table.values() for metric in row))
    known = [measure for measure in shown_in("results") if measure.key in metrics]
    columns = known + [column for column in map(measure_of, metrics) if column not in known]
    own = {group.name: group for group in groups}
    marks = {row.name: row.marks for row in rows}
    entries = []
    for name in sorted(study.table, key=lambda name: name not in own):
        member = own.get(name)
        found = study.table[name]
        words = [SheetCell(text=member.family, value=member.family) if member else SheetCell()]
        seeds = str(len(member.runs)) if member else "–"
        words.append(SheetCell(text=seeds, value=len(member.runs) if member else None))
        entries.append(
            SheetEntry(
                name=name if member else name.replace("_", " "),
                cells=[*words, *(_interval(column, found.get(column.key), study, name) for column in columns)],
                look=member.look if member else None,
                marks=marks.get(member.first.name, ()) if member else (),
                baseline=member is None,
            )
        )
    heads = [SheetHead(key="family", title="Family", text=True), SheetHead(key="seeds", title="Seeds")]
    power = _power(study, columns)
    return Sheet(
        title="Results",
        heads=heads + [_head(column) for column in columns],
        entries=entries,
        first="Objective",
        notes=[*study.notes, TIES, *([power] if power else [])],
    )


def _head(column: Measure) -> SheetHead:
    return SheetHead(key=column.key, title=column.title, group=column.group, text=column.is_text)


def _interval(column: Measure, found: Mapping[str, Any] | None, study: Study, name: str) -> SheetCell:
    """A mean over seeds with its interval."""
    if found is None or found.get("mean") is None:
        return SheetCell()
    mean, low, high = float(found["mean"]), found.get("low"), found.get("high")
    bound = ""
    if low is not None and high is not None:
        below, above = _size(column, mean - low), _size(column, high - mean)
        bound = f"±{below}" if below == above else f"−{below} +{above}"
    return SheetCell(text=column.text(mean), value=mean, bound=bound, mark=_mark(study.ties.get(column.key), name))


def _mark(tie: Mapping[str, Any] | None, name: str) -> Literal["", "best", "tied"]:
    if tie is None:
        return ""
    return "best" if tie["best"] == name else "tied" if name in tie["tied"] else ""


def _size(column: Measure, value: float) -> str:
    return column.show(max(value, 0.0))


def _power(study: Study, columns: Sequence[Measure]) -> str:
    found = [(c, study.power[c.key]) for c in columns if study.power.get(c.key) is not None]
    if not found:
        return ""
    sizes = ", ".join(f"{column.title} {_size(column, value or 0.0)}" for column, value in found)
    return f"The smallest differences that so many seeds find with probability .8: {sizes}."
