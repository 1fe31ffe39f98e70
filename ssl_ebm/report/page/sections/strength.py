"""Energy of an image and its augmentation, by the augmentation's strength."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from ssl_ebm.report.page.figures.curves import Line, line_chart
from ssl_ebm.report.page.sections.layout import legend, many, table
from ssl_ebm.report.runs import Group, lookup
from ssl_ebm.report.tables.sheet import Sheet


def strength(groups: Sequence[Group], sheets: Mapping[str, Sheet]) -> str:
    """One plot an augmentation, energies on each objective's own scale."""
    found = [lookup(group.first.results, "energy", "strength") or {} for group in groups]
    figures = []
    compact = not many(groups)
    for name in dict.fromkeys(name for own in found for name in own):
        lines = [
            Line(relative(own[name], group.values("energy", "trained", "mean", "negative")[0]), group.look, group.name)
            for group, own in zip(groups, found, strict=True)
            if name in own
        ]
        title = escape(name.replace("_", " "))
        chart = line_chart(
            lines,
            title=f"Relative energy by strength of {name.replace('_', ' ')}",
            x_label="strength",
            y_label="relative energy",
            size=(360, 220) if compact else (440, 240),
            x_domain=(0.0, 1.0),
            named=many(groups),
        )
        figures.append(f"<figure><figcaption><strong>{title}</strong></figcaption>{chart}</figure>")
    if not figures:
        return ""
    sheet = sheets.get("strength")
    return (
        "<p>Mean energy of a held-out image with its augmentation, from none to one that leaves little of the image. A "
        "good energy rises. Scales differ between objectives, so each is set to its own: 0 is the energy without "
        "augmentation, 1 the mean energy of two different images.</p>"
        f'{legend(groups)}<div class="panels{"" if compact else " wide"}">{"".join(figures)}</div>'
        + (f"<h3>{sheet.title}</h3>{table(sheet)}" if sheet else "")
    )


def relative(curve: Mapping[str, Sequence[float]], different: float) -> list[tuple[float, float]]:
    """(level, (E - E₀) / (E⁻ - E₀)): E₀ at the lowest level, E⁻ that of different images; 0 where they are equal."""
    start = curve["energy"][0]
    scale = different - start
    return [
        (float(level), (energy - start) / scale if scale else 0.0)
        for level, energy in zip(curve["levels"], curve["energy"], strict=True)
    ]
