"""What an accuracy cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from ssl_ebm.report.page.figures.axes import number
from ssl_ebm.report.page.figures.scatter import Point, scatter
from ssl_ebm.report.page.sections.layout import table
from ssl_ebm.report.runs import Group, Study
from ssl_ebm.report.tables.sheet import Sheet

AXES = {
    "train_seconds": ("training, minutes", 60.0),
    "flops_per_image": ("forward pass of the backbone, MFLOPs an image", 1e6),
}


def cost(groups: Sequence[Group], sheets: Mapping[str, Sheet], study: Study | None) -> str:
    """Accuracy by time and, where they differ, by FLOPs; and the numbers."""
    figures = "".join(_against(groups, key, study) for key in AXES)
    sheet = sheets.get("cost")
    if not figures and sheet is None:
        return ""
    text = "<p>Accuracy of the linear probe on test images by what pretraining cost; upper left is best.</p>"
    shown = f'{text}<div class="panels wide">{figures}</div>' if figures else ""
    return shown + (table(sheet) if sheet else "")


def _against(groups: Sequence[Group], key: str, study: Study | None) -> str:
    label, unit = AXES[key]
    points = []
    for group in groups:
        costs, tops = group.values("cost", key), group.values("rows", "encoder", "linear", "test", "top1")
        if costs and tops:
            known = study.table.get(group.name, {}).get("linear") if study else None
            y, low, high = (known["mean"], known["low"], known["high"]) if known else (fmean(tops), None, None)
            points.append(Point(fmean(costs) / unit, y, group.look, group.name, low, high))
    if not points or (key == "flops_per_image" and len({point.x for point in points}) < 2):
        return ""
    chart = scatter(
        points,
        title=f"Linear accuracy by {label}",
        x_label=label,
        y_label="linear probe, test, %",
        show=lambda v: number(100 * v),
    )
    return f"<figure>{chart}</figure>"
