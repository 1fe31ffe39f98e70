"""Every energy at a small size, and its formula for two vectors by loops."""

import math
from collections.abc import Callable

import torch
from reference import cosine, dot, squared_distance, unit
from torch import Tensor

from ssl_ebm.energies.pairwise import (
    Bilinear,
    Cosine,
    DirectPrediction,
    Distance,
    Dot,
    Energy,
    InverseMultiquadratic,
    SquaredEuclidean,
)

DIM = 5
WEIGHT = torch.randn(DIM, DIM, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def bilinear() -> Bilinear:
    energy = Bilinear(dim=DIM).double()
    energy.weight.data.copy_(WEIGHT)
    return energy


def kernel() -> InverseMultiquadratic:
    energy = InverseMultiquadratic().double()
    energy.log_scale.data.fill_(math.log(0.5))
    return energy


def directpred() -> DirectPrediction:
    energy = DirectPrediction(dim=DIM).double()
    energy.weight.copy_(WEIGHT @ WEIGHT.T)
    return energy


def learnable() -> Cosine:
    energy = Cosine(temperature=0.5, learnable=True).double()
    energy.log_scale.data.fill_(1.5)
    return energy


def clipped(a: Tensor, norm: float) -> Tensor:
    return a * (norm / dot(a, a).sqrt()) if dot(a, a).sqrt() > norm else a


Formula = Callable[[Tensor, Tensor], Tensor]
ENERGIES: dict[str, tuple[Callable[[], Energy], Formula]] = {
    "cosine": (Cosine, lambda a, b: -cosine(a, b)),
    "cosine, τ .2": (lambda: Cosine(temperature=0.2), lambda a, b: -cosine(a, b) / 0.2),
    "cosine, learnable τ": (learnable, lambda a, b: -math.exp(1.5) * cosine(a, b)),
    "squared": (SquaredEuclidean, squared_distance),
    "squared, scaled": (lambda: SquaredEuclidean(scale=0.5), lambda a, b: 0.5 * squared_distance(a, b)),
    "squared, unit": (lambda: SquaredEuclidean(normalize=True), lambda a, b: squared_distance(unit(a), unit(b))),
    "squared, mean": (lambda: SquaredEuclidean(per_dimension=True), lambda a, b: squared_distance(a, b) / DIM),
    "dot": (Dot, lambda a, b: -dot(a, b)),
    "dot, clipped": (lambda: Dot(max_norm=2.0), lambda a, b: -dot(clipped(a, 2.0), clipped(b, 2.0))),
    "distance": (Distance, lambda a, b: squared_distance(a, b).sqrt()),
    "distance, unit": (lambda: Distance(normalize=True), lambda a, b: squared_distance(unit(a), unit(b)).sqrt()),
    "inverse multiquadratic": (kernel, lambda a, b: -0.5 / (0.25 + squared_distance(unit(a), unit(b))).sqrt()),
    "direct prediction": (directpred, lambda a, b: 2 - 2 * cosine(WEIGHT @ WEIGHT.T @ a, b)),
    "bilinear": (bilinear, lambda a, b: -sum(a[i] * WEIGHT[i, j] * b[j] for i in range(DIM) for j in range(DIM))),
}
