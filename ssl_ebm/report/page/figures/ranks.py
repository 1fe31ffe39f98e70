"""Mean ranks on a line, and bars over groups without a found difference: a critical-difference figure.

Names stand below each other rather than at the ends of elbows, so that twenty of them are legible on a phone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from markupsafe import Markup

from ssl_ebm.report.looks import Look
from ssl_ebm.report.page.figures.axes import LETTER, Axes, number, ticks
from ssl_ebm.report.tables.text import shorten

WIDTH, ROW, BAR, NAME_LENGTH = 440, 18, 9, 18


def rank_chart(
    ranks: Mapping[str, float], groups: Sequence[Sequence[str]], *, looks: Mapping[str, Look], title: str, x_label: str
) -> Markup:
    """One row a name, best first; each bar at the right joins the dots of one group of at least two.

    Args:
        ranks: Mean rank of each name, 1 the best.
        groups: Maximal groups without a found difference.
        looks: Of the names that have one; others are grey.
        title: What the chart says to those who do not see it.
        x_label: Below the line.
    """
    order = sorted(ranks, key=lambda name: (ranks[name], name))
    place = {name: i for i, name in enumerate(order)}
    bars = sorted(sorted(place[name] for name in group if name in place) for group in groups)
    bars = [bar for bar in bars if len(bar) > 1]
    left = 12 + round(LETTER * max(len(shorten(name, NAME_LENGTH)) for name in order))
    right, bottom = 14 + BAR * len(bars), 38
    axes = Axes(
        (1.0, max(2.0, *ranks.values())),
        (0.5 - len(order), 0.5),
        (WIDTH, ROW * len(order) + 6 + bottom),
        (6, right, bottom, left),
    )
    parts = []
    for name, i in place.items():
        x, y = axes.x(ranks[name]), axes.y(-i)
        look = looks.get(name, Look(0))
        parts.append(
            f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH - right}" y2="{y:.1f}"/>'
            f'<text class="label" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(shorten(name, NAME_LENGTH))}'
            f'</text><g class="{look.style if name in looks else "other"}">{look.marker(x, y)}'
            f"<title>{escape(name)}: {ranks[name]:.2f}</title></g>"
        )
    for k, bar in enumerate(bars):
        x = WIDTH - right + 12 + BAR * k
        dots = "".join(f"M{x} {axes.y(-i):.1f}h0" for i in bar)
        parts.append(f'<path class="bar" d="M{x} {axes.y(-bar[0]):.1f}V{axes.y(-bar[-1]):.1f}"/>')
        parts.append(f'<path class="joint" d="{dots}"/>')
    marks = [(value, number(value)) for value in ticks(*axes.domains[0], 3)]
    return axes.svg(title, *parts, axes.x_axis(x_label, marks))
