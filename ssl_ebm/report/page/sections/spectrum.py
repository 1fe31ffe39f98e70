"""Rank of the features during training, their spectrum after it, and their health."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import Figure, many
from ssl_ebm.report.page.sections.training import by_epoch
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Sheet

SMALLEST = 1e-6  # part of the spectrum: what is below it is rounding


def spectrum(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> dict[str, Any] | None:
    """RankMe by epoch, singular values of held-out features, and the table of the features' health."""
    figures = [figure for figure in (by_epoch(groups, "rankme", "RankMe"), _singular_values(groups)) if figure]
    health = sheets.get("health")
    return {"figures": figures, "health": health} if figures or health else None


def _singular_values(groups: Sequence[Group]) -> Figure | None:
    """A curve a group; None where no group has a spectrum."""
    lines = []
    for group in groups:
        values = lookup(group.first.results, "rows", "encoder", "health", "spectrum") or []
        points = [(float(i), log10(value)) for i, value in enumerate(values, 1) if value > SMALLEST]
        lines.append(Line(points, group.look, group.name))
    if not any(line.points for line in lines):
        return None
    chart = line_chart(
        lines,
        title="Singular values of held-out features, all runs",
        x_label="index of the singular value",
        y_label="part of the sum",
        log_y=True,
        named=many(groups),
    )
    return Figure(content=chart)
