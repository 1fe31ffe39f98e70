"""Histograms of several kinds of pairs above each other."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

import numpy as np
from markupsafe import Markup

from ssl_ebm.report.looks import Look
from ssl_ebm.report.page.figures.axes import Axes, number, ticks


def ridges(
    histograms: Sequence[tuple[str, Sequence[int]]], edges: Sequence[float], *, look: Look, title: str, x_label: str
) -> Markup:
    """Histograms above each other over one x, each scaled to its own peak, with a tick at its median.

    Args:
        histograms: Names and counts; the outer 0.1% of each are cut.
        edges: Of the bins, one more than counts.
        look: Gives the first histogram its colour; the others are grey.
        title: What the chart says to those who do not see it.
        x_label: Below the x axis.
    """
    counts, bounds = _cropped(np.array([count for _, count in histograms], dtype=float), np.asarray(edges, dtype=float))
    band, left, label = 56, 6, textwrap.fill(x_label, 50)
    foot = 38 + 14 * label.count("\n")
    axes = Axes((bounds[0], bounds[-1]), (0.0, 1.0), (360, band * len(counts) + 6 + foot), (0, 6, foot, left))
    parts = [f'<text x="354" y="{band - 40}" text-anchor="end">← compatible</text>']
    for i, ((name, _), count) in enumerate(zip(histograms, counts, strict=True)):
        base = band * (i + 1) + 2
        heights = base - 36 * count / max(count.max(), 1.0)
        steps = "".join(
            f"L{axes.x(a):.1f} {h:.1f}L{axes.x(b):.1f} {h:.1f}"
            for a, b, h in zip(bounds[:-1], bounds[1:], heights, strict=True)
        )
        middle = axes.x(_median(count, bounds))
        parts.append(
            f'<g class="{look.style if i == 0 else "other"}">'
            f'<path class="ridge" d="M{axes.x(bounds[0]):.1f} {base}{steps}L{axes.x(bounds[-1]):.1f} {base}Z"/>'
            f'<line class="median" x1="{middle:.1f}" y1="{base}" x2="{middle:.1f}" y2="{base - 36}"/>'
            f'<text class="label" x="{left}" y="{base - 42}">{escape(name)}</text></g>'
        )
    return axes.svg(title, *parts, axes.x_axis(label, [(v, number(v)) for v in ticks(bounds[0], bounds[-1])]))


def _cropped(counts: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bins between the .1% and 99.9% points of all rows, joined so that about fifty are left."""
    share = counts.cumsum(1) / np.maximum(counts.sum(1, keepdims=True), 1)
    first = int((share < 0.001).all(0).sum())
    last = max(first, int((share < 0.999).any(0).sum()))
    counts, bounds = counts[:, first : last + 1], bounds[first : last + 2]
    join = max(1, round(counts.shape[1] / 50))
    starts = np.arange(0, counts.shape[1], join)
    return np.add.reduceat(counts, starts, axis=1), np.append(bounds[:-1][starts], bounds[-1])


def _median(count: np.ndarray, bounds: np.ndarray) -> float:
    """The value that halves a histogram, its counts spread evenly within their bins."""
    cumulative = np.append(0, count.cumsum())
    return float(np.interp(cumulative[-1] / 2, cumulative, bounds))
