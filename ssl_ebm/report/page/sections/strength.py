"""Energy of an image and its augmentation, by the augmentation's strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import Figure, many
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Sheet


def strength(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> dict[str, Any] | None:
    """A chart an augmentation, energies on each objective's own scale; and the table of their monotonicity."""
    curves = [lookup(group.first.results, "energy", "strength") or {} for group in groups]
    figures = []
    for name in dict.fromkeys(name for augmentations in curves for name in augmentations):
        lines = [
            Line(_scaled(augmentations[name], group), group.look, group.name)
            for group, augmentations in zip(groups, curves, strict=True)
            if name in augmentations
        ]
        title = name.replace("_", " ")
        chart = line_chart(
            lines,
            title=f"Relative energy by strength of {title}",
            x_label="strength",
            y_label="relative energy",
            size=(440, 240) if many(groups) else (360, 220),
            x_domain=(0.0, 1.0),
            named=many(groups),
        )
        figures.append(Figure(content=chart, title=title))
    return {"figures": figures, "sheet": sheets.get("strength")} if figures else None


def _scaled(curve: Mapping[str, Sequence[float]], group: Group) -> list[tuple[float, float]]:
    return relative(curve, group.values("energy", "trained", "mean", "negative")[0])


def relative(curve: Mapping[str, Sequence[float]], different: float) -> list[tuple[float, float]]:
    """(level, (E - E₀) / (E⁻ - E₀)): E₀ at the lowest level, E⁻ that of different images; 0 where they are equal."""
    start = curve["energy"][0]
    scale = different - start
    return [
        (float(level), (energy - start) / scale if scale else 0.0)
        for level, energy in zip(curve["levels"], curve["energy"], strict=True)
    ]
