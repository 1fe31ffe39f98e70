"""The trained energy of held-out pairs: histograms, ROC curves, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10
from typing import Any

import numpy as np

from ssl_ebm.report.page.figures.axes import fixed
from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.figures.ridges import ridges
from ssl_ebm.report.page.sections.layout import Figure, many
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.measures import ratio
from ssl_ebm.report.tables.sheet import Sheet

KINDS = {
    "positive": "two views of one image",
    "same_class": "two images of one class",
    "different_class": "two images of different classes",
}
CURVES = {
    "The trained energy": ("energy", "trained", "roc"),
    "The cosine of the features": ("energy", "features", "roc"),
}
LOWEST_RATE = 1e-3  # at the left end of ROC curves


def energies(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> dict[str, Any]:
    """Histograms of the energies of three kinds of pairs, ROC curves, and the table of calibration."""
    return {
        "histograms": [_histograms(group) for group in groups if lookup(group.first.results, "energy", "trained")],
        "roc": roc_charts(groups, CURVES),
        "calibration": sheets.get("calibration"),
    }


def _histograms(group: Group) -> Figure:
    results = group.first.results
    trained, features = results["energy"]["trained"], results["energy"]["features"]
    d_prime = "–" if trained["d_prime"] is None else fixed(trained["d_prime"], 2)
    note = (
        f"AUROC {ratio(trained['anchor_auroc'])} per anchor, {ratio(trained['global_auroc'])} global; d′ {d_prime}."
        f" Cosine of features: AUROC {ratio(features['anchor_auroc'])}"
    )
    expression = results["objective"]["energy"]
    chart = ridges(
        [(name, trained["histograms"][kind]) for kind, name in KINDS.items()],
        trained["edges"],
        look=group.look,
        title=f"Energies of three kinds of pairs under {group.name}: {expression}",
        x_label=f"E = {expression}",
    )
    return Figure.of(group, chart, note)


def roc_charts(groups: Sequence[Group], curves: Mapping[str, Sequence[str]]) -> list[Figure]:
    """ROC curves of all groups over a logarithmic rate of false positives; a chart without a curve is left out.

    Args:
        groups: One curve each.
        curves: Title of each chart, and the path of its curve in the results.
    """
    figures = []
    for title, path in curves.items():
        lines = [
            Line(_from_lowest(curve["fpr"], curve["tpr"]), group.look, group.name)
            for group in groups
            if (curve := lookup(group.first.results, *path))
        ]
        if lines:
            chart = line_chart(
                lines,
                title=f"ROC curves: {title}",
                x_label="false positives",
                y_label="true positives",
                size=(440, 280),
                x_domain=(log10(LOWEST_RATE), 0.0),
                y_domain=(0.0, 1.0),
                log_x=True,
                ends="left",
                named=many(groups),
            )
            figures.append(Figure(content=chart, title=title))
    return figures


def _from_lowest(false_rates: Sequence[float], true_rates: Sequence[float]) -> list[tuple[float, float]]:
    """(log10 of the false rate, true rate) from the lowest rate on, where the true rate is interpolated linearly."""
    first = (log10(LOWEST_RATE), float(np.interp(LOWEST_RATE, false_rates, true_rates)))
    return [first, *((log10(x), y) for x, y in zip(false_rates, true_rates, strict=True) if x > LOWEST_RATE)]
