"""A chart's axes: values → pixels, the frame around them, and the numbers on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from html import escape

from markupsafe import Markup

LETTER = 6.2  # pixels of a label's average letter


def number(value: float) -> str:
    """At most six significant digits, with a proper minus."""
    return f"{value:.6g}".replace("-", "−")


def fixed(value: float, decimals: int) -> str:
    """So many decimals, with a proper minus."""
    return f"{value:.{decimals}f}".replace("-", "−")


def power(exponent: float) -> str:
    """10 to an exponent, in full from 0.01 to 1000."""
    return number(10**exponent) if -2 <= exponent <= 3 else f"1e{number(exponent)}"


def ticks(low: float, high: float, least: int = 3) -> list[float]:
    """The fewest round numbers (steps of 1, 2 or 5 times a power of ten) in [low, high] that are at least so many."""
    if not high > low:
        return [low]
    unit = 10.0 ** math.ceil(math.log10(high - low))
    for step in (factor * unit / 10**power for power in itertools.count() for factor in (1, 0.5, 0.2)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 >= least:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    raise AssertionError


def exponents(low: float, high: float) -> list[float]:
    """Whole numbers between two exponents of ten; the two themselves where there are fewer than two."""
    whole = [float(v) for v in range(math.ceil(low - 1e-9), math.floor(high + 1e-9) + 1)]
    return whole if len(whole) > 1 or not high > low else [low, high]


def padded(low: float, high: float) -> tuple[float, float]:
    """A domain from somewhat below the lowest value to somewhat above the highest."""
    room = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - room, high + room


class Axes:
    """The rectangle of a chart: its two linear scales, and the lines and numbers around it.

    Args:
        x: The lowest and the highest value from left to right.
        y: The same from bottom to top.
        size: Width and height of the picture, in pixels.
        margins: Pixels between the rectangle and the picture's edges: top, right, bottom, left.
    """

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int], margins: tuple[int, int, int, int]
    ) -> None:
        self.domains = tuple((a, b) if b > a else (a - 0.5, b + 0.5) for a, b in (x, y))
        self.top, self.right, self.bottom, self.left = margins
        self.width, self.height = size

    def x(self, value: int | float) -> float:
        """Pixels of a value from the picture's left edge."""
        low, high = self.domains[0]
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: int | float) -> float:
        """Pixels of a value from the picture's top."""
        low, high = self.domains[1]
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    def x_axis(self, label: str, marks: Sequence[tuple[float, str]]) -> str:
        """A line below the chart, a tick and a text at each mark, and the label under them.

        Args:
            label: One line or more.
            marks: Values and their texts.
        """
        bottom, right = self.height - self.bottom, self.width - self.right
        parts = [f'<line class="axis" x1="{self.left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>']
        for value, text in marks:
            x = f"{self.x(value):.1f}"
            parts.append(f'<line class="axis" x1="{x}" y1="{bottom}" x2="{x}" y2="{bottom + 4}"/>')
            parts.append(f'<text x="{x}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>')
        middle = (self.left + right) // 2
        for i, line in enumerate(label.splitlines()):
            parts.append(f'<text x="{middle}" y="{bottom + 33 + 14 * i}" text-anchor="middle">{escape(line)}</text>')
        return "".join(parts)

    def y_axis(self, label: str, marks: Sequence[tuple[float, str]], *, at_right: bool = False) -> str:
        """A line across the chart and a text beside it at each mark, and the label above them.

        Args:
            label: One line.
            marks: Values and their texts.
            at_right: Whether label and texts stand at the right of the chart instead of the left.
        """
        right = self.width - self.right
        place, anchor = (right + 6, "start") if at_right else (self.left - 6, "end")
        head = f'x="{self.width}" text-anchor="end"' if at_right else 'x="0"'
        parts = [f'<text {head} y="11">{escape(label)}</text>']
        for value, text in marks:
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{self.left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{place}" y="{y + 4:.1f}" text-anchor="{anchor}">{escape(text)}</text>')
        return "".join(parts)

    def y_marks(self, show: Callable[[float], str], *, log: bool = False) -> list[tuple[float, str]]:
        """Round numbers of the y axis, about one in 80 pixels, or exponents of ten with `log`; and their texts."""
        values = exponents(*self.domains[1]) if log else ticks(*self.domains[1], max(2, self.height // 80))
        return [(value, show(value)) for value in values]

    def svg(self, title: str, *parts: str) -> Markup:
        """The picture of this size, made of parts (`svg`)."""
        return svg(title, self.width, self.height, *parts)


def svg(title: str, width: int | float, height: int | float, *parts: str) -> Markup:
    """A picture as wide as its place.

    Args:
        title: What the picture says to those who do not see it.
        width: Units of the parts' coordinates.
        height: The same.
        parts: SVG, from the bottom to the top; names and numbers in it must be escaped already.
    """
    return Markup(
        f'<svg class="plot" viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def spread(wanted: Sequence[float], gap: int | float, low: int | float, high: int | float) -> list[float]:
    """Places nearest to the wanted ones (least squares) that keep a gap between neighbours, in the same order.

    The places lie in [low, high] where that is wide enough, else they begin at `low`. An isotonic regression of
    wanted_k - k gap, by pooling adjacent violators.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    pools: list[tuple[float, int]] = []  # mean, count
    for k, i in enumerate(order):
        mean, count = wanted[i] - k * gap, 1
        while pools and pools[-1][0] > mean:
            other, members = pools.pop()
            mean, count = (mean * count + other * members) / (count + members), count + members
        pools.append((mean, count))
    fitted = [mean for mean, count in pools for _ in range(count)]
    most = max(low, high - gap * (len(wanted) - 1))
    places = [0.0] * len(wanted)
    for k, i in enumerate(order):
        places[i] = float(min(max(fitted[k], low), most) + k * gap)
    return places
