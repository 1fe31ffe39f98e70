"""Curves of training: what is comparable in one plot, what is not in one plot a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ssl_ebm.report.page.figures.axes import number
from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import Figure, many
from ssl_ebm.report.runs import Group


def training(groups: Sequence[Group]) -> dict[str, Any]:
    """Accuracies of all runs in one chart; energies and losses in a chart a run."""
    accuracy = by_epoch(groups, "knn_validation", "validation kNN, %", lambda value: number(100 * value))
    return {
        "accuracy": [accuracy] if accuracy else [],
        "energy": _apart(groups, ("energy_positive", "energy_negative"), "mean energy"),
        "loss": _apart(groups, ("loss",), "loss"),
    }


def by_epoch(groups: Sequence[Group], key: str, title: str, show: Callable[[float], str] = number) -> Figure | None:
    """A metric of all runs by epoch; other seeds faint, where there are few groups. None where it was not logged."""
    lines = []
    for group in groups:
        first, *others = (run.curve(key) for run in group.runs)
        lines.append(Line(first, group.look, group.name))
        if not many(groups):
            lines += [Line(points, group.look, faint=True) for points in others]
    if not any(line.points for line in lines):
        return None
    chart = line_chart(
        lines, title=f"{title} by epoch, all runs", x_label="epoch", y_label=title, show=show, named=many(groups)
    )
    return Figure(content=chart)


def _apart(groups: Sequence[Group], keys: Sequence[str], title: str) -> list[Figure]:
    """Metrics by epoch, a small chart a group, the first metric in its colour; groups without them are left out."""
    figures = []
    for group in groups:
        lines = [Line(group.first.curve(key), group.look if key == keys[0] else None) for key in keys]
        if any(line.points for line in lines):
            name = f"{title} of {group.name} by epoch"
            chart = line_chart(lines, title=name, x_label="epoch", y_label=title, size=(240, 160))
            figures.append(Figure.of(group, chart))
    return figures
