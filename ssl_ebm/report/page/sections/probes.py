"""What kNN and linear probes were chosen by, and further probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np

from ssl_ebm.report.page.figures.axes import number
from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import folded, many, panels, shade, table
from ssl_ebm.report.runs import Group
from ssl_ebm.report.tables.measures import percent
from ssl_ebm.report.tables.sheet import Sheet


def probes(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> str:
    """Grids of kNN and sweeps of the linear probe, on validation; below, what else was probed on test."""
    encoders = {group.name: group.first.results["rows"]["encoder"] for group in groups}
    grids = {
        name: np.column_stack((e["knn"]["validation"]["weighted"], e["knn"]["validation"]["uniform"]))
        for name, e in encoders.items()
    }
    low, high = min(grid.min() for grid in grids.values()), max(grid.max() for grid in grids.values())
    sweep = [value for encoder in encoders.values() for value in encoder["linear"]["validation"]]
    margin = 0.06 * (max(sweep) - min(sweep)) or 0.05

    def draw(group: Group) -> tuple[str, str]:
        knn, linear = encoders[group.name]["knn"], encoders[group.name]["linear"]
        points = [(log10(c), value) for c, value in zip(linear["strengths"], linear["validation"], strict=True)]
        chart = line_chart(
            [Line(points, group.look, ring=linear["strengths"].index(linear["strength"]))],
            title=f"Validation accuracy of {group.name}'s linear probe by inverse regularisation",
            x_label="C, inverse L2 strength",
            y_label="linear probe, validation, %",
            size=(360, 160),
            show=lambda v: number(100 * v),
            y_domain=(min(sweep) - margin, max(sweep) + margin),
            log_x=True,
        )
        test = linear["test"]
        caption = (
            f"On test: kNN {percent(knn['headline']['accuracy'])}, of the choice {percent(knn['chosen']['accuracy'])}; "
            f"linear {percent(test['top1'])}, its calibration error {percent(test['ece'])}"
        )
        return caption, _knn_grid(knn, grids[group.name], low, high) + chart

    chosen = (
        "<p>Accuracy on the validation split, %, by which k, T and C are chosen: the choice is framed or circled, the "
        "fixed headline setting underlined. Test images are read once, with the choice.</p>" + panels(groups, draw)
    )
    sheet = sheets.get("probes")
    further = table(sheet) if sheet else ""
    if many(groups):
        return further + folded("Choice of k, T and C", chosen)
    return chosen + (f"<h3>{sheet.title}</h3>{further}" if sheet else "")


def _short(value: float) -> str:
    """.07 for .07, without trailing zeros."""
    return number(value).removeprefix("0")


def _knn_grid(knn: Mapping[str, Any], grid: np.ndarray, low: float, high: float) -> str:
    validation = knn["validation"]
    temperatures = [*validation["temperatures"], None]

    def cell(k: int, temperature: float | None, value: float) -> str:
        kinds = [
            kind for kind in ("chosen", "headline") if (knn[kind]["k"], knn[kind]["temperature"]) == (k, temperature)
        ]
        classes = f' class="{" ".join(kinds)}"' if kinds else ""
        return f'<td{classes} style="{shade(value, low, high)}">{percent(value)}</td>'

    heads = "".join(f'<th scope="col">{"uniform" if t is None else f"T {_short(t)}"}</th>' for t in temperatures)
    body = ""
    for k, used, values in zip(validation["ks"], validation["ks_used"], grid, strict=True):
        name = f"k {k}" if k == used else f"k {k} (bank {used})"
        row = "".join(cell(k, t, float(v)) for t, v in zip(temperatures, values, strict=True))
        body += f'<tr><th scope="row">{name}</th>{row}</tr>'
    return f'<table class="heat grid-table"><thead><tr><td></td>{heads}</tr></thead><tbody>{body}</tbody></table>'
