"""How alike what two objectives learnt is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_ebm.report.page.figures.heat_maps import heat_map
from ssl_ebm.report.similarity_of_runs import MATRICES


def similarity(matrices: Mapping[str, Any] | None) -> str:
    """A heat map a measure, with rows and columns of the "names" among `matrices`."""
    if not matrices:
        return ""
    figures = []
    for key, (title, meaning) in MATRICES.items():
        if not matrices.get(key):
            continue
        whole = np.array([[np.nan if v is None else v for v in row] for row in matrices[key]], dtype=float)
        chart = heat_map(matrices["names"], whole, title=f"{title}, all pairs of runs", show=_show)
        caption = f'<strong>{title}</strong> <span class="muted">{meaning}</span>'
        figures.append(f"<figure><figcaption>{caption}</figcaption>{chart}</figure>")
    if not figures:
        return ""
    return (
        "<p>Darker is more alike; every matrix has its own shades, from the least to the most alike pair. Numbers "
        f'appear on pointing.</p><div class="panels wide">{"".join(figures)}</div>'
    )


def _show(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".", 1).replace("-", "−")
