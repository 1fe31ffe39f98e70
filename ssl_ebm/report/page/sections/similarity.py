"""Similarity of what two objectives learnt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_ebm.report.page.figures.axes import fixed
from ssl_ebm.report.page.figures.heat_maps import heat_map
from ssl_ebm.report.page.sections.layout import Figure
from ssl_ebm.report.similarity_of_runs import MATRICES


def similarity(matrices: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A heat map of each similarity, with a row and a column a run (`run_similarities`)."""
    figures = []
    for key, (title, meaning) in MATRICES.items():
        if matrices and matrices.get(key):
            matrix = np.array([[np.nan if v is None else v for v in row] for row in matrices[key]], dtype=float)
            chart = heat_map(matrices["names"], matrix, title=f"{title}, all pairs of runs", show=_without_zero)
            figures.append(Figure(content=chart, title=title, note=meaning))
    return {"figures": figures} if figures else None


def _without_zero(value: float) -> str:
    return fixed(value, 2).replace("0.", ".", 1)
