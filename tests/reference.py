"""Slow oracles: the loss of every objective in float64, one pair at a time, from the papers' formulas.

Nothing here is shared with the library: no matrix products, no log-sum-exp, no logarithms of sigmoids. Embeddings are
[views, images, dim]; defaults are the constants of the papers or their authors' code. This file has what the oracles
share, and those of the asymmetric and some regularised objectives; the others lie beside it, a file a family.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Place = tuple[int, int]  # (view, image)


def mean(values: Sequence[Any]) -> Any:
    return sum(values) / len(values)


def least(values: Sequence[Tensor]) -> Tensor:
    return min(values, key=lambda value: float(value.detach()))


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return dot(a - b, a - b)


def unit(a: Tensor) -> Tensor:
    return a / dot(a, a).sqrt()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def ordered_pairs(views: int, targets: int | None = None) -> list[tuple[int, int]]:
    """Of a view and another; with multi-crop, of a view and another that is global."""
    return [(a, b) for a in range(views) for b in range(views if targets is None else targets) if a != b]


def places(z: Tensor) -> list[Place]:
    return [(v, i) for v in range(z.shape[0]) for i in range(z.shape[1])]


def vicreg(
    z: Tensor, *, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
) -> Tensor:
    """Bardes et al., main_vicreg.py: 25 mse + 25 (v + v')/2 + (c + c')."""
    views, n, d = z.shape
    squares = [(z[a, i, k] - z[b, i, k]) ** 2 for a, b in ordered_pairs(views) for i in range(n) for k in range(d)]
    hinges, covariances = [], []
    for v in range(views):
        average = [mean([z[v, i, k] for i in range(n)]) for k in range(d)]
        for k in range(d):
            for m in range(d):
                c = sum((z[v, i, k] - average[k]) * (z[v, i, m] - average[m]) for i in range(n)) / (n - 1)
                if k == m:
                    std = (c + 1e-4).sqrt()
                    hinges.append(1 - std if std < 1 else 0 * std)
                else:
                    covariances.append(c**2 / d)
    return invariance_weight * mean(squares) + variance_weight * mean(hinges) + covariance_weight * sum(covariances)


def barlow_twins(z: Tensor, *, off_diagonal: float = 0.0051, weight: float = 1.0) -> Tensor:
    """Zbontar et al., main.py: Σ (1 - C_ii)² + λ Σ_{i≠j} C_ij², BatchNorm's standardisation."""
    views, n, d = z.shape

    def standardised(v: int, k: int) -> list[Tensor]:
        column = [z[v, i, k] for i in range(n)]
        variance = mean([(x - mean(column)) ** 2 for x in column])
        return [(x - mean(column)) / (variance + 1e-5).sqrt() for x in column]

    columns = {(v, k): standardised(v, k) for v in range(views) for k in range(d)}
    losses = []
    for a, b in ordered_pairs(views):
        for k in range(d):
            for m in range(d):
                c = mean([x * y for x, y in zip(columns[a, k], columns[b, m], strict=True)])
                losses.append((1 - c) ** 2 if k == m else off_diagonal * c**2)
    return weight * sum(losses) / len(ordered_pairs(views))


def epps_pulley(samples: Sequence[Tensor], *, knots: int = 17) -> Tensor:
    """N ∫_{-3}^{3} |φ̂(u) - e^{-u²/2}|² e^{-u²/2} du by trapezoids; the knots are those of [0, 3], mirrored."""
    n, step = len(samples), 3 / (knots - 1)
    integral = torch.zeros((), dtype=torch.float64)
    for k in range(-(knots - 1), knots):
        u = k * step
        real = mean([torch.cos(u * x) for x in samples]) - math.exp(-(u**2) / 2)
        imaginary = mean([torch.sin(u * x) for x in samples])
        weight = step / 2 if abs(k) == knots - 1 else step
        integral = integral + weight * (real**2 + imaginary**2) * math.exp(-(u**2) / 2)
    return n * integral


def lejepa(
    z: Tensor,
    *,
    directions: Tensor,
    global_views: int | None = None,
    gaussianity_weight: float = 0.02,
    knots: int = 17,
) -> Tensor:
    """Balestriero & LeCun, minimal script: (1 - λ) mean (z_v - z̄)² + λ · mean over views and slices of Epps-Pulley.

    With multi-crop, z̄ is the mean of the global views, as in the paper.
    """
    views, n, d = z.shape
    squares = []
    for v, i in places(z):
        centre = mean([z[w, i] for w in range(global_views or views)])
        squares.append(squared_distance(z[v, i], centre) / d)
    statistics = [
        epps_pulley([dot(z[v, i], a) for i in range(n)], knots=knots) for v in range(views) for a in directions.T
    ]
    return (1 - gaussianity_weight) * mean(squares) + gaussianity_weight * mean(statistics)


def simsiam(z: Tensor, *, prediction: Tensor) -> Tensor:
    """Chen & He eq. 2: mean over orders and images of -cos(p, sg z')."""
    views, n = prediction.shape[:2]
    return mean([-cosine(prediction[a, i], z[b, i].detach()) for a, b in ordered_pairs(views) for i in range(n)])


def byol(*, prediction: Tensor, target: Tensor) -> Tensor:
    """Grill et al. eq. 2: sum over the two orders of the mean over images of ‖p̄ - t̄‖²; twice the mean over orders."""
    views, n = prediction.shape[:2]
    distances = [
        squared_distance(unit(prediction[a, i]), unit(target[b, i].detach()))
        for a, b in ordered_pairs(views, len(target))
        for i in range(n)
    ]
    return 2 * mean(distances)


def directpred(z: Tensor, *, target: Tensor, matrix: Tensor) -> Tensor:
    """Tian et al.: BYOL's loss of the predictions W z, W given."""
    d = z.shape[2]
    rows = [[torch.stack([dot(matrix[k], x) for k in range(d)]) for x in view] for view in z]
    return byol(prediction=torch.stack([torch.stack(row) for row in rows]), target=target)


ORACLES: dict[str, Callable[..., Tensor]] = {
    oracle.__name__: oracle for oracle in (vicreg, barlow_twins, lejepa, byol, simsiam, directpred)
}
