"""What a run looks like in every picture: its colour, its marker, its dashes."""

from __future__ import annotations

import math
from dataclasses import dataclass

DISTINCT = 8  # looks with a colour and a marker of their own
COLOURS = 10  # in report.css
DASHES = ("", "6 3", "2 3", "9 3 2 3")
CORNERS = (None, (4, 45), (3, -90), (4, 0), (3, 90), None, (4, 45), (3, -90))  # None: a disc; else count and turn
HOLLOW = 5  # from this shape on


@dataclass(frozen=True)
class Look:
    """Numbers of a colour, a marker's shape and a pattern of dashes; each wraps around."""

    colour: int
    shape: int = 0
    dash: int = 0

    @classmethod
    def of(cls, position: int) -> Look:
        """The look of one of a few: eight differ in colour and marker, later ones in their dashes too."""
        return cls(position % DISTINCT, position % DISTINCT, position // DISTINCT)

    @property
    def style(self) -> str:
        """CSS class."""
        return f"r{self.colour % COLOURS}"

    @property
    def dashes(self) -> str:
        """SVG attribute of lines, with a space before it; empty where they are solid."""
        pattern = DASHES[self.dash % len(DASHES)]
        return f' stroke-dasharray="{pattern}"' if pattern else ""

    def marker(self, x: float, y: float, size: float = 4.0) -> str:
        """SVG, for use inside an element of the look's class."""
        shape = self.shape % len(CORNERS)
        style = f'class="marker{" hollow" if shape >= HOLLOW else ""}"'
        corners = CORNERS[shape]
        if corners is None:
            return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
        count, turn = corners
        angles = (math.radians(turn + 360 * i / count) for i in range(count))
        points = " ".join(f"{x + 1.25 * size * math.cos(a):.1f},{y + 1.25 * size * math.sin(a):.1f}" for a in angles)
        return f'<polygon {style} points="{points}"/>'

    def swatch(self) -> str:
        """Line and marker, for tables and legends."""
        drawn = f'<line class="line" x1="0" y1="6" x2="22" y2="6"{self.dashes}/>{self.marker(11.0, 6.0, 3.6)}'
        return f'<svg class="swatch {self.style}" viewBox="0 0 22 12" aria-hidden="true">{drawn}</svg>'
