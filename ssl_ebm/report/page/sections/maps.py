"""Two-dimensional maps of the test features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from ssl_ebm.evaluation.features.bank import read_split
from ssl_ebm.report.page.figures.clouds import CLASS_COLOURS, class_style, cloud
from ssl_ebm.report.page.sections.layout import Figure, class_names
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
    """Principal components of all test features on the unit sphere, where the cosine energy sees them.

    Exact, by the covariance's eigenvectors. None where the folder has no features, or fewer than two dimensions.
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


def maps(groups: Sequence[Group]) -> dict[str, Any] | None:
    """A map of each group that has a bank, each turned to lie as the first one does; and the colours of the classes."""
    planes = [(group, plane) for group in groups if (plane := feature_map(group.first.path / "features"))]
    if not planes:
        return None
    first = planes[0][1].points
    figures = []
    for group, plane in planes:
        points = turned(plane.points, first) if plane.points.shape == first.shape else plane.points
        note = f"{100 * plane.explained:.0f}% of the variance"
        chart = cloud(points, plane.labels, title=f"Map of the test features of {group.name}: {note}, by class")
        figures.append(Figure.of(group, chart, note))
    names = class_names(groups, 1 + max(int(plane.labels.max()) for _, plane in planes))
    return {
        "count": len(first),
        "figures": figures,
        "colours": [(name, class_style(c)) for c, name in enumerate(names[:CLASS_COLOURS])],
        "other_classes": len(names) > CLASS_COLOURS,
    }
