"""The tables of results and, of a study, who could be told from whom."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ssl_ebm.report.page.figures.ranks import rank_chart
from ssl_ebm.report.page.sections.layout import Figure
from ssl_ebm.report.runs import Group, Study
from ssl_ebm.report.tables.intervals import Row
from ssl_ebm.report.tables.measures import measure_of
from ssl_ebm.report.tables.results import run_sheet, study_sheet


def results(rows: Sequence[Row], notes: Sequence[str], groups: Sequence[Group], study: Study | None) -> dict[str, Any]:
    """The table of runs and, of a study, the table of objectives, the tests' findings and the mean ranks."""
    return {
        "runs": run_sheet(rows, notes, groups),
        "objectives": study_sheet(study, groups, rows) if study else None,
        "findings": study.findings if study else (),
        "ranks": _ranks(study, groups) if study else [],
    }


def _ranks(study: Study, groups: Sequence[Group]) -> list[Figure]:
    """Mean ranks of the objectives, one figure a metric that ranks at least two."""
    looks = {group.name: group.look for group in groups}
    figures = []
    for metric, ranks in study.ranks.items():
        if len(ranks) < 2:
            continue
        title = measure_of(metric).title
        order = ", ".join(f"{name} {rank:.1f}" for name, rank in sorted(ranks.items(), key=lambda item: item[1]))
        chart = rank_chart(
            {name: float(rank) for name, rank in ranks.items()},
            study.groups.get(metric, ()),
            looks=looks,
            title=f"Mean ranks by {title}, best first: {order}",
            x_label="mean rank, 1 is best",
        )
        figures.append(Figure(content=chart, title=title))
    return figures
