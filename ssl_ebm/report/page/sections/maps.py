"""Two-dimensional maps of the test features."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from ssl_ebm.evaluation.features.bank import read_split
from ssl_ebm.report.page.figures.clouds import CLASS_COLOURS, class_style, cloud
from ssl_ebm.report.page.sections.layout import panels
from ssl_ebm.report.page.sections.pictures import class_names
from ssl_ebm.report.runs import Group

POINTS = 1500


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Test images on the plane of largest variance.

    Attributes:
        points: Of images at even distances in the test split.
        labels: Their classes.
        explained: Part of the variance that lies in the plane.
    """

    points: Float[np.ndarray, "n 2"]
    labels: Int[np.ndarray, " n"]
    explained: float


def feature_map(folder: Path) -> FeatureMap | None:
    """Principal components of all test features on the unit sphere, where the cosine energy sees them; None: no bank.

    Exact, by the covariance's eigenvectors.
    """
    if not (folder / "test.faiss").is_file():
        return None
    split = read_split(folder, "test")
    x = split.features.astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    x -= x.mean(0)
    values, vectors = np.linalg.eigh(x.T @ x)
    plane = vectors[:, :-3:-1]
    if plane.shape[1] < 2:
        return None
    explained = values[-2:].sum() / max(values.sum(), np.finfo(np.float64).tiny)
    shown = np.linspace(0, len(x) - 1, min(POINTS, len(x))).round().astype(int)  # of all classes, where they are sorted
    return FeatureMap(x[shown] @ plane, split.labels[shown], float(explained))


def turned(points: Float[np.ndarray, "n 2"], onto: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points turned or mirrored to lie as near to others as they can (orthogonal Procrustes): axes have no sign."""
    u, _, v = np.linalg.svd(points.T @ onto)
    return points @ (u @ v)


def maps(groups: Sequence[Group]) -> str:
    """One map a group; empty where there is no bank."""
    found = {group.name: feature_map(group.first.path / "features") for group in groups}
    known = [own for own in found.values() if own is not None]
    if not known:
        return ""
    names = class_names(groups) or [f"class {c}" for c in range(1 + max(int(own.labels.max()) for own in known))]

    def draw(group: Group) -> tuple[str, str]:
        own = found[group.name]
        if own is None:
            return "", ""
        same = own.points.shape == known[0].points.shape
        points = turned(own.points, known[0].points) if same else own.points
        text = f"{100 * own.explained:.0f}% of the variance"
        return text, cloud(points, own.labels, title=f"Map of the test features of {group.name}: {text}, by class")

    items = "".join(
        f'<li><svg class="swatch" viewBox="0 0 22 12" aria-hidden="true"><path class="dots {class_style(c)}" '
        f'd="M11 6h0"/></svg>{escape(name)}</li>'
        for c, name in enumerate(names[:CLASS_COLOURS])
    )
    others = "<li>grey: other classes</li>" if len(names) > CLASS_COLOURS else ""
    count = len(known[0].points)
    return (
        f"<p>{count:,} test images on the two principal components of their features' directions, each map turned to "
        "lie as the first one does. Much of the variance lies outside of a plane: classes that overlap here may be "
        "apart.</p>"
        f'<ul class="legend">{items}{others}</ul>{panels(groups, draw, "maps")}'
    )
