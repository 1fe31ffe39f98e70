"""Rank of the features during training, their spectrum after it, and their health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import legend, many, table
from ssl_ebm.report.page.sections.training import together
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Sheet

SMALLEST = 1e-6  # part of the spectrum: what is below it is rounding


def spectrum(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> str:
    """All three."""
    figures = together(groups, "rankme", "RankMe") + _singular_values(groups)
    sheet = sheets.get("health")
    if not figures and sheet is None:
        return ""
    shown = (
        "<p>RankMe by epoch is of the backbone's features of a training batch: a fall to few dimensions is a collapse. "
        "Singular values are of clean held-out features, as parts of their sum: a steep curve uses few directions.</p>"
        f'{legend(groups)}<div class="panels wide">{figures}</div>'
        if figures
        else ""
    )
    return shown + (f"<h3>{sheet.title}</h3>{table(sheet)}" if sheet else "")


def _singular_values(groups: Sequence[Group]) -> str:
    lines = []
    for group in groups:
        values = lookup(group.first.results, "rows", "encoder", "health", "spectrum") or []
        points = [(float(i), log10(value)) for i, value in enumerate(values, 1) if value > SMALLEST]
        lines.append(Line(points, group.look, group.name))
    if not any(line.points for line in lines):
        return ""
    chart = line_chart(
        lines,
        title="Singular values of held-out features, all runs",
        x_label="index of the singular value",
        y_label="part of the sum",
        log_y=True,
        named=many(groups),
    )
    return f"<figure>{chart}</figure>"
