"""What an accuracy cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from ssl_ebm.report.page.figures.axes import number
from ssl_ebm.report.page.figures.scatter import Point, scatter
from ssl_ebm.report.page.sections.layout import Figure
from ssl_ebm.report.runs import Group, Study
from ssl_ebm.report.tables.sheet import Sheet

AXES = {
    "train_seconds": ("training, minutes", 60.0),
    "flops_per_image": ("forward pass of the backbone, MFLOPs an image", 1e6),
}


def cost(groups: Sequence[Group], sheets: Mapping[str, Sheet], study: Study | None) -> dict[str, Any] | None:
    """Accuracy by time and, where they differ, by FLOPs; and the table of costs."""
    figures = [figure for key in AXES if (figure := _accuracy_by(key, groups, study))]
    sheet = sheets.get("cost")
    return {"figures": figures, "sheet": sheet} if figures or sheet else None


def _accuracy_by(key: str, groups: Sequence[Group], study: Study | None) -> Figure | None:
    """A point a group; None where no group has the cost, or where FLOPs are all equal."""
    label, unit = AXES[key]
    points = []
    for group in groups:
        costs, accuracies = group.values("cost", key), group.values("rows", "encoder", "linear", "test", "top1")
        if costs and accuracies:
            mean = study.table.get(group.name, {}).get("linear") if study else None
            y, low, high = (mean["mean"], mean["low"], mean["high"]) if mean else (fmean(accuracies), None, None)
            points.append(Point(fmean(costs) / unit, y, group.look, group.name, low, high))
    if not points or (key == "flops_per_image" and len({point.x for point in points}) < 2):
        return None
    chart = scatter(
        points,
        title=f"Linear accuracy by {label}",
        x_label=label,
        y_label="linear probe, test, %",
        show=lambda accuracy: number(100 * accuracy),
    )
    return Figure(content=chart)
