"""A symmetric matrix of names by names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from ssl_ebm.report.page.figures.axes import LETTER, svg
from ssl_ebm.report.tables.text import shorten

WIDTH, NAME_LENGTH, NUMBERED = 440, 14, 12  # a larger matrix has no numbers in its cells
PALEST, DARKEST = 0.04, 0.55  # opacity: text stays legible on it


def heat_map(
    names: Sequence[str], matrix: Float[np.ndarray, "n n"], *, title: str, show: Callable[[float], str]
) -> Markup:
    """Cells from the palest, the lowest value off the diagonal, to the darkest, the highest; NaN is left out.

    Args:
        names: Of rows and columns.
        matrix: Symmetric.
        title: What the chart says to those who do not see it.
        show: Value → text.
    """
    n = len(names)
    others = matrix[~np.eye(n, dtype=bool) & np.isfinite(matrix)]
    low, high = (float(others.min()), float(others.max())) if others.size else (0.0, 1.0)
    short = [shorten(name, NAME_LENGTH) for name in names]
    edge = 10 + LETTER * max(map(len, short))
    side = min((WIDTH - edge) / n, 44.0)
    parts = []
    for i, name in enumerate(short):
        middle = edge + (i + 0.5) * side
        for place in (
            f'x="{edge - 6:.1f}" y="{middle + 4:.1f}" text-anchor="end"',
            f'transform="translate({middle + 4:.1f} {edge - 6:.1f}) rotate(-90)"',
        ):
            parts.append(f'<text class="label end" {place}>{escape(name)}</text>')
    for i, j in np.ndindex(n, n):
        value = float(matrix[i, j])
        if not np.isfinite(value):
            continue
        part = float(np.clip((value - low) / max(high - low, 1e-9), 0, 1))
        x, y = edge + j * side, edge + i * side
        parts.append(
            f'<rect class="cell" x="{x:.1f}" y="{y:.1f}" width="{side - 1:.1f}" height="{side - 1:.1f}" '
            f'fill-opacity="{PALEST + (DARKEST - PALEST) * part:.2f}"><title>{escape(names[i])}, {escape(names[j])}: '
            f"{escape(show(value))}</title></rect>"
        )
        if n <= NUMBERED:
            place = f'x="{x + side / 2:.1f}" y="{y + side / 2 + 4:.1f}"'
            parts.append(f'<text class="label end" {place} text-anchor="middle">{escape(show(value))}</text>')
    return svg(title, WIDTH, edge + n * side, *parts)
