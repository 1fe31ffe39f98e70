"""What kNN and linear probes were chosen by, and further probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np
from markupsafe import Markup

from ssl_ebm.report.page.figures.axes import number
from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import Figure, ShadedCell, opacity
from ssl_ebm.report.runs import Group
from ssl_ebm.report.tables.measures import percent
from ssl_ebm.report.tables.sheet import Sheet


def probes(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> dict[str, Any]:
    """Grids of kNN and sweeps of the linear probe, on validation; the table of other probes, on test."""
    encoders = [group.first.results["rows"]["encoder"] for group in groups]
    grids = [_validation_grid(encoder["knn"]) for encoder in encoders]
    shades = min(grid.min() for grid in grids), max(grid.max() for grid in grids)
    sweep = [accuracy for encoder in encoders for accuracy in encoder["linear"]["validation"]]
    margin = 0.06 * (max(sweep) - min(sweep)) or 0.05
    domain = (min(sweep) - margin, max(sweep) + margin)
    choices = []
    for group, encoder, grid in zip(groups, encoders, grids, strict=True):
        knn, linear = encoder["knn"], encoder["linear"]
        note = (
            f"On test: kNN {percent(knn['headline']['accuracy'])}, of the choice {percent(knn['chosen']['accuracy'])}; "
            f"linear {percent(linear['test']['top1'])}, its calibration error {percent(linear['test']['ece'])}"
        )
        choices.append(Figure.of(group, _knn_table(knn, grid, *shades) | {"sweep": _sweep(group, domain)}, note))
    return {"choices": choices, "further": sheets.get("probes")}


def _sweep(group: Group, domain: tuple[float, float]) -> Markup:
    """The linear probe's validation accuracy by its strength, with a ring around the choice."""
    linear = group.first.results["rows"]["encoder"]["linear"]
    points = [(log10(c), accuracy) for c, accuracy in zip(linear["strengths"], linear["validation"], strict=True)]
    return line_chart(
        [Line(points, group.look, ring=linear["strengths"].index(linear["strength"]))],
        title=f"Validation accuracy of {group.name}'s linear probe by inverse regularisation",
        x_label="C, inverse L2 strength",
        y_label="linear probe, validation, %",
        size=(360, 160),
        show=lambda accuracy: number(100 * accuracy),
        y_domain=domain,
        log_x=True,
    )


def _validation_grid(knn: Mapping[str, Any]) -> np.ndarray:
    """Accuracies of kNN by k (rows) and by temperature, uniform weights last."""
    return np.column_stack((knn["validation"]["weighted"], knn["validation"]["uniform"]))


def _knn_table(knn: Mapping[str, Any], grid: np.ndarray, low: float, high: float) -> dict[str, Any]:
    """Headings and rows of the grid; the cells of the choice and of the headline setting have a CSS class."""
    validation = knn["validation"]
    temperatures = [*validation["temperatures"], None]

    def cell(k: int, temperature: float | None, accuracy: float) -> ShadedCell:
        styles = [s for s in ("chosen", "headline") if (knn[s]["k"], knn[s]["temperature"]) == (k, temperature)]
        return ShadedCell(text=percent(accuracy), opacity=opacity(accuracy, low, high), style=" ".join(styles))

    rows = []
    for k, used, accuracies in zip(validation["ks"], validation["ks_used"], grid, strict=True):
        name = f"k {k}" if k == used else f"k {k} (bank {used})"
        rows.append((name, [cell(k, t, float(a)) for t, a in zip(temperatures, accuracies, strict=True)]))
    return {
        "heads": ["uniform" if t is None else f"T {number(t).removeprefix('0')}" for t in temperatures],
        "rows": rows,
    }
