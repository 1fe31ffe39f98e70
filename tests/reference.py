"""Slow oracles: the loss of every objective in float64, one pair at a time, from the papers' formulas.

Nothing here is shared with the library: no matrix products, no log-sum-exp, no logarithms of sigmoids. Embeddings are
[views, images, dim]; defaults are the constants of the papers or their authors' code.
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


def ordered_pairs(views: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(views) for b in range(views) if a != b]


def places(z: Tensor) -> list[Place]:
    return [(v, i) for v in range(z.shape[0]) for i in range(z.shape[1])]


def supcon(z: Tensor, *, label: Sequence[int], temperature: float = 0.1) -> Tensor:
    """Khosla et al. eq. 2: mean over anchors of -1/|P| Σ_p log(e^{s_p} / Σ_{a≠i} e^{s_a}), s = cos/τ."""
    losses = []
    for v, i in places(z):
        others = [place for place in places(z) if place != (v, i)]
        weights = {(w, j): torch.exp(cosine(z[v, i], z[w, j]) / temperature) for w, j in others}
        positives = [(w, j) for w, j in others if label[j] == label[i]]
        losses.append(mean([-torch.log(weights[p] / sum(weights.values())) for p in positives]))
    return mean(losses)


def simclr(z: Tensor, *, temperature: float = 0.1) -> Tensor:
    """Chen et al. eq. 1, mean over the 2N anchors; more than two views: every other view is a positive."""
    return supcon(z, label=list(range(z.shape[1])), temperature=temperature)


def moco_v2(z: Tensor, *, target: Tensor, queue: Tensor, temperature: float = 0.2) -> Tensor:
    """He et al. eq. 1: the first view against the teacher's other views, negatives from the queue."""
    losses = []
    for w in range(1, len(z)):
        for i in range(z.shape[1]):
            positive = torch.exp(cosine(z[0, i], target[w, i].detach()) / temperature)
            negatives = [torch.exp(cosine(z[0, i], k) / temperature) for k in queue]
            losses.append(-torch.log(positive / (positive + sum(negatives))))
    return mean(losses)


def triplet(z: Tensor, *, margin: float = 0.2) -> Tensor:
    """Mean over anchors and negatives of [margin + E⁺ - E⁻]₊, E = ‖a - b‖² of unit vectors."""
    losses = []
    for v, i in places(z):
        pulled = mean([squared_distance(unit(z[v, i]), unit(z[w, i])) for w in range(len(z)) if w != v])
        for w, j in places(z):
            if j != i:
                violation = margin + pulled - squared_distance(unit(z[v, i]), unit(z[w, j]))
                losses.append(violation if violation > 0 else 0 * violation)
    return mean(losses)


def align_uniform(z: Tensor, *, alpha: float = 2.0, t: float = 2.0, uniformity_weight: float = 1.0) -> Tensor:
    """Wang & Isola: E‖u - u'‖^α + λ · mean over views of log E_{i≠j} e^{-t‖u_i - u_j‖²}."""
    views, n = z.shape[:2]
    align = [
        squared_distance(unit(z[a, i]), unit(z[b, i])) ** (alpha / 2) for a, b in ordered_pairs(views) for i in range(n)
    ]
    uniform = []
    for v in range(views):
        potentials = [
            torch.exp(-t * squared_distance(unit(z[v, i]), unit(z[v, j]))) for i in range(n) for j in range(i + 1, n)
        ]
        uniform.append(torch.log(mean(potentials)))
    return mean(align) + uniformity_weight * mean(uniform)


def spectral(z: Tensor, *, mu: float = 1.0) -> Tensor:
    """HaoChen et al.: (1/μ) {-2 mean z·z⁺ + mean_{i≠j} (z_i·z'_j)²}, norms clipped to √μ."""

    def clipped(a: Tensor) -> Tensor:
        return a * (math.sqrt(mu) / dot(a, a).sqrt()) if dot(a, a) > mu else a

    n, losses = z.shape[1], []
    for w in range(1, len(z)):
        positive = mean([dot(clipped(z[0, i]), clipped(z[w, i])) for i in range(n)])
        squares = [dot(clipped(z[0, i]), clipped(z[w, j])) ** 2 for i in range(n) for j in range(n) if i != j]
        losses.append((-2 * positive + mean(squares)) / mu)
    return mean(losses)


def nce_partition(z: Tensor, *, memory: Tensor, drawn: Sequence[int], temperature: float = 0.07) -> Tensor:
    """Z = n · mean e^{s/τ} over a batch's noise samples."""
    return len(memory) * mean(
        [torch.exp(cosine(z[v, i], memory[k]) / temperature) for v, i in places(z) for k in drawn]
    )


def nce(
    z: Tensor,
    *,
    index: Sequence[int],
    memory: Tensor,
    drawn: Sequence[int],
    partition: Tensor | None = None,
    temperature: float = 0.07,
) -> Tensor:
    """Wu et al. eq. 6-7: -log h⁺ - Σ_m log(1 - h⁻), h = P/(P + m/n), P = e^{s/τ}/Z."""
    if partition is None:
        partition = nce_partition(z, memory=memory, drawn=drawn, temperature=temperature).detach()
    noise = len(drawn) / len(memory)

    def odds(v: int, i: int, k: int) -> Tensor:
        return torch.exp(cosine(z[v, i], memory[k]) / temperature) / partition / noise

    losses = []
    for v, i in places(z):
        positive = odds(v, i, index[i])
        rejected = [-torch.log(1 / (1 + odds(v, i, k))) for k in drawn]
        losses.append(-torch.log(positive / (1 + positive)) + sum(rejected))
    return mean(losses)


def siglip(z: Tensor, *, scale: Tensor | float = 10.0, bias: Tensor | float = -10.0) -> Tensor:
    """Zhai et al.: -1/N Σ_ij log σ(y_ij (t c_ij + b)), with the authors' code's sign of b."""
    n, losses = z.shape[1], []
    for w in range(1, len(z)):
        for i in range(n):
            signs = [1 if i == j else -1 for j in range(n)]
            logits = [scale * cosine(z[0, i], z[w, j]) + bias for j in range(n)]
            losses.append(sum(-torch.log(sigmoid(y * logit)) for y, logit in zip(signs, logits, strict=True)))
    return mean(losses)


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


def lejepa(z: Tensor, *, directions: Tensor, gaussianity_weight: float = 0.02, knots: int = 17) -> Tensor:
    """Balestriero & LeCun, minimal script: (1 - λ) mean (z_v - z̄)² + λ · mean over views and slices of Epps-Pulley."""
    views, n, d = z.shape
    squares = []
    for v, i in places(z):
        centre = mean([z[w, i] for w in range(views)])
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
        for a, b in ordered_pairs(views)
        for i in range(n)
    ]
    return 2 * mean(distances)


ORACLES: dict[str, Callable[..., Tensor]] = {
    oracle.__name__: oracle
    for oracle in (
        simclr,
        supcon,
        moco_v2,
        triplet,
        align_uniform,
        spectral,
        nce,
        siglip,
        vicreg,
        barlow_twins,
        lejepa,
        byol,
        simsiam,
    )
}
