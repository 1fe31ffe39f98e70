"""The tables of results and, of a study, who could be told from whom."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ssl_ebm.report.page.figures.ranks import rank_chart
from ssl_ebm.report.page.sections.layout import folded, table
from ssl_ebm.report.runs import Group, Study
from ssl_ebm.report.tables.intervals import Row
from ssl_ebm.report.tables.measures import measure_of
from ssl_ebm.report.tables.results import run_sheet, study_sheet


def results(rows: Sequence[Row], notes: Sequence[str], groups: Sequence[Group], study: Study | None) -> str:
    """One row a run or, of a study, one an objective and every run below."""
    runs = table(run_sheet(rows, notes, groups))
    if study is None:
        return runs
    found = "".join(f"<li>{escape(finding)}</li>" for finding in study.findings)
    said = f"<h3>What the tests found</h3><ul>{found}</ul>" if found else ""
    return table(study_sheet(study, groups, rows)) + said + _ranks(study, groups) + folded("Every run", runs)


def _ranks(study: Study, groups: Sequence[Group]) -> str:
    """Mean ranks of every metric."""
    looks = {group.name: group.look for group in groups}
    figures = []
    for metric, ranks in study.ranks.items():
        if len(ranks) < 2:
            continue
        title = measure_of(metric).title
        chart = rank_chart(
            {name: float(rank) for name, rank in ranks.items()},
            study.groups.get(metric, ()),
            looks=looks,
            title=f"Mean ranks by {title}, best first: "
            + ", ".join(f"{name} {rank:.1f}" for name, rank in sorted(ranks.items(), key=lambda item: item[1])),
            x_label="mean rank, 1 is best",
        )
        figures.append(f"<figure><figcaption><strong>{escape(title)}</strong></figcaption>{chart}</figure>")
    if not figures:
        return ""
    return (
        "<h3>Who could be told from whom</h3><p>Mean ranks over seeds. A bar joins objectives between which no "
        "difference was found: an order inside a bar is not a result.</p>"
        f'<div class="panels wide">{"".join(figures)}</div>'
    )
