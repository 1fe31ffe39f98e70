"""Named points over two measures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

from markupsafe import Markup

from ssl_ebm.report.looks import Look
from ssl_ebm.report.page.figures.axes import LETTER, Axes, number, padded, ticks
from ssl_ebm.report.tables.text import shorten

SIZE, MARGINS, NAME_LENGTH = (440, 320), (26, 16, 38, 44), 16
PLACES = ((8.0, 4.0, "start"), (-8.0, 4.0, "end"), (0.0, -8.0, "middle"), (0.0, 15.0, "middle"))  # of a name: dx, dy
Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Point:
    """A point with its name, and with the interval from `low` to `high` of its y, where both are known."""

    x: float
    y: float
    look: Look
    name: str
    low: float | None = None
    high: float | None = None


def scatter(
    points: Sequence[Point], *, title: str, x_label: str, y_label: str, show: Callable[[float], str] = number
) -> Markup:
    """Points, bars over their intervals, and each name beside its point where it covers least.

    Args:
        points: At least one.
        title: What the chart says to those who do not see it.
        x_label: Below the x axis, which starts at 0.
        y_label: Above the y axis.
        show: Number of the y axis → text.
    """
    ys = [v for point in points for v in (point.y, point.low, point.high) if v is not None]
    axes = Axes((0.0, padded(0.0, max(point.x for point in points))[1]), padded(min(ys), max(ys)), SIZE, MARGINS)
    taken = [_around(axes.x(point.x), axes.y(point.y), 5.0, 5.0) for point in points]
    for point in points:
        if point.low is not None and point.high is not None:
            x = axes.x(point.x)
            taken.append((x - 2, axes.y(point.high), x + 2, axes.y(point.low)))
    parts = []
    for point in sorted(points, key=lambda point: -point.y):
        x, y = axes.x(point.x), axes.y(point.y)
        bar = ""
        if point.low is not None and point.high is not None:
            ends = f'y1="{axes.y(point.low):.1f}" y2="{axes.y(point.high):.1f}"'
            bar = f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" {ends}/>'
        name = shorten(point.name, NAME_LENGTH)
        dx, dy, anchor, box = _place(x, y, LETTER * len(name), taken)
        taken.append(box)
        parts.append(
            f'<g class="{point.look.style}">{bar}{point.look.marker(x, y, 4.5)}</g>'
            f'<text class="label end" x="{x + dx:.1f}" y="{y + dy:.1f}" text-anchor="{anchor}">{escape(name)}</text>'
        )
    marks = [(v, number(v)) for v in ticks(*axes.domains[0], 4)]
    return axes.svg(title, axes.y_axis(y_label, axes.y_marks(show)), axes.x_axis(x_label, marks), *parts)


def _around(x: float, y: float, wide: float, high: float) -> Box:
    """A box of twice this width and height around a point."""
    return x - wide, y - high, x + wide, y + high


def _place(x: float, y: float, width: float, taken: Sequence[Box]) -> tuple[float, float, str, Box]:
    """The place beside a point where a name covers least of the taken boxes: dx, dy, its anchor and its box."""

    def covered(box: Box) -> float:
        outside = max(0.0, MARGINS[3] - box[0]) + max(0.0, box[2] - SIZE[0])
        return 20 * outside + sum(
            max(0.0, min(box[2], b[2]) - max(box[0], b[0])) * max(0.0, min(box[3], b[3]) - max(box[1], b[1]))
            for b in taken
        )

    places = []
    for reach in (1.0, 2.2):
        for dx, dy, anchor in PLACES:
            start, base = x + reach * dx, y + (reach * dy if anchor == "middle" else dy)
            left = start - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
            box = (left, base - 9, left + width, base + 2)
            places.append((covered(box), start - x, base - y, anchor, box))
    _, dx, dy, anchor, box = min(places, key=lambda item: item[0])
    return dx, dy, anchor, box
