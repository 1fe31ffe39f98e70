"""Points of a map, coloured by class."""

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from ssl_ebm.report.page.figures.axes import svg

CLASS_COLOURS = 10  # in report.css; later classes are grey
SIDE, ROUNDS = 600, 4  # units; classes take turns, so that none lies above all others


def cloud(points: Float[np.ndarray, "n 2"], classes: Int[np.ndarray, " n"], *, title: str) -> Markup:
    """A dot a point in its class's colour, both axes to one scale."""
    low, high = points.min(0), points.max(0)
    scale = (SIDE - 20) / max(float((high - low).max()), 1e-12)
    pixels = ((points - (low + high) / 2) * scale + SIDE / 2).round().astype(int)
    colours = np.minimum(classes, CLASS_COLOURS)
    paths = []
    for turn in (np.arange(start, len(points), ROUNDS) for start in range(ROUNDS)):
        for colour in np.unique(colours[turn]):
            dots = "".join(f"M{x} {SIDE - y}h0" for x, y in pixels[turn][colours[turn] == colour])
            paths.append(f'<path class="dots {class_style(int(colour))}" d="{dots}"/>')
    return svg(title, SIDE, SIDE, *paths)


def class_style(position: int) -> str:
    """The CSS class of the dots of a class."""
    return f"r{position}" if position < CLASS_COLOURS else "other"
