"""Line charts: few curves with a legend beside them, or many with their names at their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np
from markupsafe import Markup

from ssl_ebm.report.looks import Look
from ssl_ebm.report.page.figures.axes import LETTER, Axes, exponents, number, padded, power, spread, ticks
from ssl_ebm.report.tables.text import shorten

POINTS = 200  # of a curve: more cannot be seen
NAME_LENGTH, NAME_HEIGHT, LEAD = 16, 12, 26  # of names at the ends of curves: letters, pixels, pixels to them


@dataclass(frozen=True)
class Line:
    """A curve of a chart.

    Attributes:
        points: (x, y), ascending in x.
        look: Its colour, dash and marker; None: grey and without a marker.
        name: Written at its end where the chart names its lines; empty: not.
        ring: Position of the point that has a ring around it.
        faint: Thin and pale, without a marker: another seed of a curve.
    """

    points: Sequence[tuple[float, float]]
    look: Look | None
    name: str = ""
    ring: int | None = None
    faint: bool = False


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (440, 260),
    show: Callable[[float], str] = number,
    x_domain: tuple[float, float] | None = None,
    y_domain: tuple[float, float] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    ends: Literal["left", "right"] = "right",
    named: bool = False,
) -> Markup:
    """Curves over one x, each with a marker at one end.

    Args:
        lines: At least one of them has a point.
        title: What the chart says to those who do not see it.
        x_label: Below the x axis.
        y_label: Above the y axis.
        size: Width and height in pixels.
        show: Number of the y axis → text.
        x_domain: Of the x axis; None: from 0, or from the lowest exponent with `log_x`, to the last point.
        y_domain: Of the y axis; None: around all points.
        log_x: Whether x is an exponent of ten.
        log_y: Whether y is an exponent of ten.
        ends: The end of a curve that has its marker.
        named: Whether a curve's name stands at that end too: curves are thinner then, the chart is at least as high as
            its names take, and the numbers of the y axis stand on the other side.
    """
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    x_domain = x_domain or ((min(xs), max(xs)) if log_x else (min(0.0, *xs), max(xs)))
    y_domain = y_domain or padded(min(ys), max(ys))
    margins, height = (26, 12, 38, 44), size[1]
    labelled = [line for line in lines if line.name and line.points] if named else []
    if labelled:
        room = LEAD + 4 + round(LETTER * max(len(shorten(line.name, NAME_LENGTH)) for line in labelled))
        margins = (26, room, 38, 44) if ends == "right" else (26, 44, 38, room)
        height = max(height, NAME_HEIGHT * len(labelled) + 26 + 38)
    axes = Axes(x_domain, y_domain, (size[0], height), margins)
    if log_x:
        marks = [(v, power(v)) for v in exponents(*x_domain)]
    else:
        marks = [(v, number(v)) for v in ticks(*axes.domains[0], max(2, (size[0] - margins[1] - margins[3]) // 90))]
    show = power if log_y and show is number else show
    curves = [_curve(line, axes, ends) for line in sorted(lines, key=lambda line: not line.faint) if line.points]
    drawn = f'<g class="slim">{"".join(curves)}</g>{_names(labelled, axes, ends)}' if labelled else "".join(curves)
    y_axis = axes.y_axis(y_label, axes.y_marks(show, log=log_y), at_right=bool(labelled) and ends == "left")
    return axes.svg(title, y_axis, axes.x_axis(x_label, marks), drawn)


def _curve(line: Line, axes: Axes, ends: Literal["left", "right"]) -> str:
    pixels = [(axes.x(x), axes.y(y)) for x, y in thin(line.points)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
    if line.look is None:
        return f'<g class="other"><path class="line" d="{path}"/></g>'
    if line.faint:
        return f'<g class="{line.look.style} faint"><path class="line" d="{path}"{line.look.dashes}/></g>'
    parts = [f'<path class="line" d="{path}"{line.look.dashes}/>']
    parts.append(line.look.marker(*pixels[-1 if ends == "right" else 0]))
    if line.ring is not None:
        x, y = line.points[line.ring]
        parts.append(f'<circle class="ring" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="6"/>')
    return f'<g class="{line.look.style}">{"".join(parts)}</g>'


def _names(lines: Sequence[Line], axes: Axes, ends: Literal["left", "right"]) -> str:
    """Names in a column beside the plot, each with a hair line to its curve."""
    tips = [line.points[-1 if ends == "right" else 0] for line in lines]
    pixels = [(axes.x(x), axes.y(y)) for x, y in tips]
    places = spread([y for _, y in pixels], NAME_HEIGHT, axes.top + 4, axes.height - axes.bottom - 2)
    edge = axes.width - axes.right if ends == "right" else axes.left
    sign, anchor = (1, "start") if ends == "right" else (-1, "end")
    parts = []
    for line, (x, y), place in zip(lines, pixels, places, strict=True):
        style = "other" if line.look is None else line.look.style
        start = edge + sign * LEAD
        parts.append(
            f'<path class="lead {style}" d="M{x:.1f} {y:.1f}L{start - 2 * sign:.1f} {place:.1f}"/>'
            f'<text class="label end" x="{start:.1f}" y="{place + 3.5:.1f}" text-anchor="{anchor}">'
            f"{escape(shorten(line.name, NAME_LENGTH))}</text>"
        )
    return "".join(parts)


def thin(points: Sequence[tuple[float, float]], count: int = POINTS) -> list[tuple[float, float]]:
    """At most `count` points in place of many: means of neighbouring ones, and the last one as it is."""
    if len(points) <= count:
        return list(points)
    parts = np.array_split(np.asarray(points[:-1], dtype=float), count - 1)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)] + [points[-1]]
