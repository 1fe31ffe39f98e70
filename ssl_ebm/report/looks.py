"""What a run looks like in every picture: its colour, its marker, its dashes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from markupsafe import Markup

DISTINCT = 8  # looks with a colour and a marker of their own
COLOURS = 10  # in report.css
DASHES = ("", "6 3", "2 3", "9 3 2 3")
CORNERS = (None, (4, 45), (3, -90), (4, 0), (3, 90), None, (4, 45), (3, -90))  # None: a disc; else count and turn
HOLLOW = 5  # from this shape on


@dataclass(frozen=True)
class Look:
    """A colour, a marker and a pattern of dashes, by their numbers; a number beyond the last starts again at the first.

    Attributes:
        colour: A class of report.css.
        shape: An entry of `CORNERS`.
        dash: An entry of `DASHES`.
    """

    colour: int
    shape: int = 0
    dash: int = 0

    @classmethod
    def of(cls, position: int) -> Look:
        """The look of the run at a position: the first eight differ in colour and marker, later ones in dashes too."""
        return cls(position % DISTINCT, position % DISTINCT, position // DISTINCT)

    @property
    def style(self) -> str:
        """The CSS class of the colour, for an element around all that is drawn in it."""
        return f"r{self.colour % COLOURS}"

    @property
    def dashes(self) -> str:
        """The attribute that dashes an SVG line, with a space before it; empty for a solid line."""
        pattern = DASHES[self.dash % len(DASHES)]
        return f' stroke-dasharray="{pattern}"' if pattern else ""

    def marker(self, x: float, y: float, size: float = 4.0) -> str:
        """A disc or a polygon around a point, as SVG; an element of class `style` around it colours it.

        Args:
            x: Pixels from the left.
            y: Pixels from the top.
            size: Radius of the disc, in pixels; a polygon reaches a quarter farther.
        """
        shape = self.shape % len(CORNERS)
        style = f'class="marker{" hollow" if shape >= HOLLOW else ""}"'
        corners = CORNERS[shape]
        if corners is None:
            return f'<circle {style} cx="{x:.1f}" cy="{y:.1f}" r="{size:g}"/>'
        count, turn = corners
        angles = (math.radians(turn + 360 * i / count) for i in range(count))
        points = " ".join(f"{x + 1.25 * size * math.cos(a):.1f},{y + 1.25 * size * math.sin(a):.1f}" for a in angles)
        return f'<polygon {style} points="{points}"/>'

    def swatch(self) -> Markup:
        """A short line with its marker, which stands before a name in tables, legends and captions."""
        line = f'<line class="line" x1="0" y1="6" x2="22" y2="6"{self.dashes}/>{self.marker(11.0, 6.0, 3.6)}'
        return Markup(f'<svg class="swatch {self.style}" viewBox="0 0 22 12" aria-hidden="true">{line}</svg>')
