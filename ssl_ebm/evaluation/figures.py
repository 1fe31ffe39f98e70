"""Small pictures as text: line charts and ridges in SVG, images in PNG.

Colours are CSS classes of the page that holds them, so that one picture serves light and dark. A run's class is `r0` ..
`r7`, beyond which shapes of markers and dashes tell runs apart.
"""

from __future__ import annotations

import base64
import itertools
import math
import struct
import textwrap
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from jaxtyping import UInt8

COLOURS = 8  # in report.css
DASHES = ("", "6 3", "2 3", "9 3 2 3")
LARGEST_IMAGE = 96  # pixels
POINTS = 200  # of a curve: more cannot be seen


def look(run: int) -> str:
    """CSS class of a run."""
    return f"r{run % COLOURS}"


def marker(run: int, x: float, y: float, size: float = 4.0) -> str:
    """A run's mark, different for each of eight runs also where colours are not."""
    style = f'class="marker{" hollow" if run % COLOURS >= 5 else ""}"'
    corners = (None, (4, 45), (3, -90), (4, 0), (3, 90), None, (4, 45), (3, -90))[run % COLOURS]
    if corners is None:
        return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
    count, turn = corners
    angles = (math.radians(turn + 360 * i / count) for i in range(count))
    points = " ".join(f"{x + 1.25 * size * math.cos(a):.1f},{y + 1.25 * size * math.sin(a):.1f}" for a in angles)
    return f'<polygon {style} points="{points}"/>'


def swatch(run: int) -> str:
    """A run's colour, dash and marker, for tables and legends."""
    drawn = f'<line class="line" x1="0" y1="6" x2="22" y2="6"{_dash(run)}/>{marker(run, 11.0, 6.0, 3.6)}'
    return f'<svg class="swatch {look(run)}" viewBox="0 0 22 12" aria-hidden="true">{drawn}</svg>'


def _dash(run: int) -> str:
    pattern = DASHES[run // COLOURS % len(DASHES)]
    return f' stroke-dasharray="{pattern}"' if pattern else ""


def number(value: float) -> str:
    """Short, with a proper minus."""
    return f"{value:.6g}".replace("-", "−")


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


@dataclass(frozen=True)
class Line:
    """A curve.

    Attributes:
        points: (x, y), ascending in x.
        run: Whose colour, dash and marker it has; None: grey.
        ring: Around one of its points.
    """

    points: Sequence[tuple[float, float]]
    run: int | None
    ring: int | None = None


class _Axes:
    """Data → pixels, and the frame around them."""

    def __init__(
        self, x: tuple[float, float], y: tuple[float, float], size: tuple[int, int], margins: tuple[int, int, int, int]
    ) -> None:
        self.domains = tuple((a, b) if b > a else (a - 0.5, b + 0.5) for a, b in (x, y))
        self.top, self.right, self.bottom, self.left = margins
        self.width, self.height = size

    def x(self, value: float) -> float:
        low, high = self.domains[0]
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        low, high = self.domains[1]
        return self.height - self.bottom - (value - low) / (high - low) * (self.height - self.top - self.bottom)

    def x_axis(self, label: str, marks: Sequence[tuple[float, str]]) -> str:
        bottom, right = self.height - self.bottom, self.width - self.right
        parts = [f'<line class="axis" x1="{self.left}" y1="{bottom}" x2="{right}" y2="{bottom}"/>']
        for value, text in marks:
            at = f"{self.x(value):.1f}"
            parts.append(f'<line class="axis" x1="{at}" y1="{bottom}" x2="{at}" y2="{bottom + 4}"/>')
            parts.append(f'<text x="{at}" y="{bottom + 17}" text-anchor="middle">{escape(text)}</text>')
        middle = (self.left + right) // 2
        for i, line in enumerate(label.splitlines()):
            parts.append(f'<text x="{middle}" y="{bottom + 33 + 14 * i}" text-anchor="middle">{escape(line)}</text>')
        return "".join(parts)

    def y_axis(self, label: str, show: Callable[[float], str]) -> str:
        parts = [f'<text x="0" y="11">{escape(label)}</text>']
        for value in ticks(*self.domains[1], max(2, self.height // 80)):
            at = self.y(value)
            parts.append(
                f'<line class="grid" x1="{self.left}" y1="{at:.1f}" x2="{self.width - self.right}" y2="{at:.1f}"/>'
            )
            parts.append(f'<text x="{self.left - 6}" y="{at + 4:.1f}" text-anchor="end">{show(value)}</text>')
        return "".join(parts)

    def svg(self, title: str, *parts: str) -> str:
        return (
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(title)}">'
            f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
        )


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (440, 260),
    show: Callable[[float], str] = number,
    y_domain: tuple[float, float] | None = None,
    log_x: bool = False,
) -> str:
    """Curves over one x, from 0 on or, with `log_x`, of powers of ten whose exponents are given.

    At least one line must have a point. Each ends in its run's marker.
    """
    xs, ys = zip(*(point for line in lines for point in line.points), strict=True)
    x_domain = (min(xs), max(xs)) if log_x else (min(0.0, *xs), max(xs))
    axes = _Axes(x_domain, y_domain or _padded(min(ys), max(ys)), size, (26, 12, 38, 44))
    if log_x:
        powers = [float(v) for v in range(math.ceil(x_domain[0] - 1e-9), math.floor(x_domain[1] + 1e-9) + 1)]
        marks = [(v, number(10**v) if -2 <= v <= 3 else f"1e{number(v)}") for v in powers]
    else:
        marks = [(v, number(v)) for v in ticks(*axes.domains[0], max(2, size[0] // 100))]
    drawn = [_curve(line, axes) for line in lines if line.points]
    return axes.svg(title, axes.y_axis(y_label, show), axes.x_axis(x_label, marks), *drawn)


def _padded(low: float, high: float) -> tuple[float, float]:
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    return low - pad, high + pad


def _curve(line: Line, axes: _Axes) -> str:
    pixels = [(axes.x(x), axes.y(y)) for x, y in thin(line.points)]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels)
    if line.run is None:
        return f'<g class="other"><path class="line" d="{path}"/></g>'
    parts = [f'<path class="line" d="{path}"{_dash(line.run)}/>', marker(line.run, *pixels[-1])]
    if line.ring is not None:
        x, y = line.points[line.ring]
        parts.append(f'<circle class="ring" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="6"/>')
    return f'<g class="{look(line.run)}">{"".join(parts)}</g>'


def thin(points: Sequence[tuple[float, float]], count: int = POINTS) -> list[tuple[float, float]]:
    """At most `count` points: means of neighbours, the last one kept."""
    if len(points) <= count:
        return list(points)
    parts = np.array_split(np.asarray(points[:-1], dtype=float), count - 1)
    return [(float(x), float(y)) for x, y in (part.mean(0) for part in parts)] + [points[-1]]


def ridges(
    histograms: Sequence[tuple[str, Sequence[int]]], edges: Sequence[float], *, run: int, title: str, x_label: str
) -> str:
    """Histograms above each other over one x, each scaled to its own peak; the first in the run's colour.

    The outer 0.1% of each are cut; a tick shows each median.
    """
    counts, bounds = _cropped(np.array([count for _, count in histograms], dtype=float), np.asarray(edges, dtype=float))
    band, left, label = 56, 6, textwrap.fill(x_label, 50)
    foot = 38 + 14 * label.count("\n")
    axes = _Axes((bounds[0], bounds[-1]), (0.0, 1.0), (360, band * len(counts) + 6 + foot), (0, 6, foot, left))
    drawn = [f'<text x="354" y="{band - 40}" text-anchor="end">← compatible</text>']
    for i, ((name, _), count) in enumerate(zip(histograms, counts, strict=True)):
        base = band * (i + 1) + 2
        heights = base - 36 * count / max(count.max(), 1.0)
        steps = "".join(
            f"L{axes.x(a):.1f} {h:.1f}L{axes.x(b):.1f} {h:.1f}"
            for a, b, h in zip(bounds[:-1], bounds[1:], heights, strict=True)
        )
        middle = axes.x(_median(count, bounds))
        drawn.append(
            f'<g class="{look(run) if i == 0 else "other"}">'
            f'<path class="ridge" d="M{axes.x(bounds[0]):.1f} {base}{steps}L{axes.x(bounds[-1]):.1f} {base}Z"/>'
            f'<line class="median" x1="{middle:.1f}" y1="{base}" x2="{middle:.1f}" y2="{base - 36}"/>'
            f'<text class="label" x="{left}" y="{base - 42}">{escape(name)}</text></g>'
        )
    return axes.svg(title, *drawn, axes.x_axis(label, [(v, number(v)) for v in ticks(bounds[0], bounds[-1])]))


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
    cumulative = np.append(0, count.cumsum())
    return float(np.interp(cumulative[-1] / 2, cumulative, bounds))


def png_uri(image: UInt8[np.ndarray, "c h w"]) -> str:
    """A data URI; channels beyond three are left out, large images are shrunk by a whole factor."""
    factor = math.ceil(max(image.shape[1:]) / LARGEST_IMAGE)
    channels = 3 if len(image) >= 3 else 1
    height, width = (side // factor * factor for side in image.shape[1:])
    blocks = image[:channels, :height, :width].reshape(channels, height // factor, factor, width // factor, factor)
    pixels = np.ascontiguousarray(blocks.mean((2, 4)).round().astype(np.uint8).transpose(1, 2, 0))

    header = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 8, 2 if channels == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
