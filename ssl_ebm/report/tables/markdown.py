"""The report's tables as Markdown, for a pull request or a notebook."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ssl_ebm.report.runs import EvaluatedRun, Study, group
from ssl_ebm.report.similarity_of_runs import MATRICES
from ssl_ebm.report.tables.further import sheets
from ssl_ebm.report.tables.intervals import Row
from ssl_ebm.report.tables.measures import measure_of
from ssl_ebm.report.tables.results import run_sheet, study_sheet
from ssl_ebm.report.tables.sheet import Sheet, SheetCell


def markdown(
    runs: Sequence[EvaluatedRun],
    rows: Sequence[Row],
    *,
    notes: Sequence[str],
    warnings: Sequence[str],
    study: Study | None = None,
    matrices: Mapping[str, Any] | None = None,
) -> str:
    """The same numbers as `page` shows, without its pictures; arguments as there."""
    groups = group(runs, study)
    data = runs[0].results["protocol"]["data"]
    title = f"{study.name} on {data}" if study else f"{len(runs)} run{'s' * (len(runs) > 1)} on {data}"
    warnings = list(dict.fromkeys([*warnings, *(study.warnings if study else ())]))
    parts = [f"# {plain(title)}"]
    if warnings:
        parts.append("Before comparing:\n\n" + "\n".join(f"- {plain(warning)}" for warning in warnings))
    every = run_sheet(rows, notes, groups)
    if study is None:
        parts.append(table(every))
    else:
        parts += [table(study_sheet(study, groups, rows)), *_found(study), _titled("Every run", table(every))]
    parts += [_titled(sheet.title, table(sheet)) for sheet in sheets(groups).values()]
    parts += _matrices(matrices)
    return "\n\n".join(parts) + "\n"


def table(sheet: Sheet) -> str:
    """A Markdown table with its footnotes; the best and what is tied with it in bold, ties with =."""
    titles = [plain(f"{head.group}: {head.title}" if head.group else head.title) for head in sheet.heads]
    lines = [_line([sheet.first, *titles]), _line(["---", *("---" if h.text else "---:" for h in sheet.heads)])]
    for entry in sheet.entries:
        name = plain(entry.name) + "".join(f"<sup>{plain(mark)}</sup>" for mark in entry.marks)
        lines.append(_line([f"*{name}*" if entry.baseline else name, *map(_cell, entry.cells)]))
    return "\n\n".join(["\n".join(lines), *map(plain, sheet.notes)])


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one cell of a table."""
    for sign in "\\`*_<>[]|":
        text = text.replace(sign, "\\" + sign)
    return " ".join(text.split())


def _titled(title: str, content: str) -> str:
    return f"## {plain(title)}\n\n{content}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: SheetCell) -> str:
    text = plain(cell.text)
    if cell.mark:
        text = f"{'= ' if cell.mark == 'tied' else ''}**{text}**"
    return f"{text} {cell.bound}" if cell.bound else text


def _found(study: Study) -> list[str]:
    """What the tests found, mean ranks, and groups without a found difference."""
    parts = [f"- {plain(finding)}" for finding in study.findings]
    for metric, ranks in study.ranks.items():
        order = sorted(ranks, key=lambda name: ranks[name])
        listed = ", ".join(f"{plain(name)} {ranks[name]:.1f}" for name in order)
        groups = [sorted(own, key=lambda name: ranks.get(name, np.inf)) for own in study.groups.get(metric, ())]
        bars = "; ".join(" = ".join(map(plain, own)) for own in groups if len(own) > 1)
        ties = f" No difference was found within: {bars}." if bars else ""
        parts.append(f"- Mean ranks by {plain(measure_of(metric).title)}: {listed}.{ties}")
    return [_titled("What the tests found", "\n".join(parts))] if parts else []


def _matrices(matrices: Mapping[str, Any] | None) -> list[str]:
    """Similarities of what is shown as one."""
    parts = []
    for key, (title, meaning) in MATRICES.items():
        if matrices and matrices.get(key):
            names = [plain(name) for name in matrices["names"]]
            lines = [_line(["", *names]), _line(["---", *["---:"] * len(names)])]
            for name, row in zip(names, matrices[key], strict=True):
                lines.append(_line([name, *("–" if v is None else f"{v:.2f}" for v in row)]))
            parts.append(_titled(title, "\n".join(lines) + f"\n\n{meaning}"))
    return parts
