"""The trained energy of held-out pairs: histograms, ROC curves, calibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log10

import numpy as np

from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.figures.ridges import ridges
from ssl_ebm.report.page.sections.layout import legend, many, panels, table
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.measures import ratio
from ssl_ebm.report.tables.sheet import Sheet

KINDS = {
    "positive": "two views of one image",
    "same_class": "two images of one class",
    "different_class": "two images of different classes",
}
LOWEST_RATE = 1e-3  # at the left end of ROC curves


def energies(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> str:
    """All of it, of the groups whose energy is there."""
    trained = [group for group in groups if lookup(group.first.results, "energy", "trained") is not None]
    if not trained:
        return ""
    roc = "".join(
        roc_chart(groups, ("energy", kind, "roc"), title)
        for kind, title in (("trained", "The trained energy"), ("features", "The cosine of the features"))
    )
    curves = (
        "<h3>ROC</h3><p>Pairs of views of one image found, by part of the other pairs let through, over all thresholds "
        "on the energy. The axis is logarithmic: what a verifier can afford lies at its left.</p>"
        f"{legend(groups)}"
        f'<div class="panels wide">{roc}</div>'
        if roc
        else ""
    )
    sheet = sheets.get("calibration")
    calibration = f"<h3>{sheet.title}</h3>{table(sheet)}" if sheet else ""
    return (
        "<p>Two views of one image should lie to the left of all others. Images of one class are not asked to; where "
        "they do, the energy has found the classes by itself. Each ridge is scaled to its own peak, its tick is the "
        f"median; the outer 0.1% are cut. Axes of two runs have nothing in common.</p>{panels(trained, _histograms)}"
        f"{curves}{calibration}"
    )


def _histograms(group: Group) -> tuple[str, str]:
    run = group.first
    trained, features = run.results["energy"]["trained"], run.results["energy"]["features"]
    d_prime = "–" if trained["d_prime"] is None else f"{trained['d_prime']:.2f}".replace("-", "−")
    caption = (
        f"AUROC {ratio(trained['anchor_auroc'])} per anchor, {ratio(trained['global_auroc'])} global; d′ {d_prime}."
        f" Cosine of features: AUROC {ratio(features['anchor_auroc'])}"
    )
    histograms = [(text, trained["histograms"][kind]) for kind, text in KINDS.items()]
    expression = run.results["objective"]["energy"]
    title = f"Energies of three kinds of pairs under {group.name}: {expression}"
    return caption, ridges(histograms, trained["edges"], look=group.look, title=title, x_label=f"E = {expression}")


def roc_chart(groups: Sequence[Group], path: Sequence[str], title: str) -> str:
    """ROC curves at a path of the results, over a logarithmic rate of false positives; empty where there are none."""
    lines = []
    for group in groups:
        curve = lookup(group.first.results, *path)
        if curve:
            lines.append(Line(_from_lowest(curve["fpr"], curve["tpr"]), group.look, group.name))
    if not lines:
        return ""
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
    return f"<figure><figcaption><strong>{title}</strong></figcaption>{chart}</figure>"


def _from_lowest(rates: Sequence[float], found: Sequence[float]) -> list[tuple[float, float]]:
    """(log10 of the rate, part found) from the lowest rate on, where it lies on the line between its neighbours."""
    first = (log10(LOWEST_RATE), float(np.interp(LOWEST_RATE, rates, found)))
    return [first, *((log10(x), y) for x, y in zip(rates, found, strict=True) if x > LOWEST_RATE)]
