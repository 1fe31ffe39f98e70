"""Entropies estimated from samples: of unit vectors on the sphere, of codes."""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies import rows
from ssl_ebm.energies.pairwise import SquaredEuclidean
from ssl_ebm.objectives.parts.borrowed import Borrowed
from ssl_ebm.objectives.parts.regularizers.regularizer import Regularizer, Views


class Uniformity(Regularizer):
    """log mean_{i<j} exp(-t ‖z_i - z_j‖²) of unit vectors, mean over views; in [-4t, 0], 0 when collapsed.

    Minus a Rényi entropy of a kernel density. By tiles where the matrix is large: linear memory. Wang & Isola
    (arXiv 2005.10242), as in the authors' code: t = 2, ½ (view 1 + view 2).
    """

    def __init__(self, *, t: float = 2.0, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if not t > 0:
            raise ValueError(f"t must be > 0, got {t}")
        self.t = float(t)
        self.energy = SquaredEuclidean(scale=self.t, normalize=True)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """Log of the mean Gaussian potential."""
        self.check(z)
        v, n = z.shape[:2]
        if v * n**2 <= rows.DENSE:
            z = F.normalize(z, dim=-1)
            itself = torch.eye(n, dtype=torch.bool, device=z.device)
            exponent = (2 * self.t * (z @ z.transpose(1, 2) - 1)).masked_fill(itself, -torch.inf)
            total = exponent.flatten(1).logsumexp(1)
        else:
            image = torch.arange(n, device=z.device)
            with_itself = rows.Pairs(image, image)
            others = [rows.EnergyMatrix(self.energy, x, x, excluded=with_itself, symmetric=True) for x in z]
            total = torch.stack([each.logsumexp() for each in others]).logsumexp(1)
        return total.mean() - math.log(n * (n - 1))


class KoLeo(Regularizer):
    """Kozachenko and Leonenko's entropy: -mean_i log(min_{j≠i} ‖z_i - z_j‖ + ε) of unit vectors, summed over views.

    Sablayrolles et al. 2019 (arXiv 1806.03198), as in DINOv2's code (arXiv 2304.07193): ε = 1e-8, neighbours within a
    view, gradient through both. There neighbours are those of one process, here of the global batch. Duplicates, at
    distance 0, have no gradient.
    """

    reads = ("features",)
    global_views_only = True

    def __init__(self, *, eps: float = 1e-8, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if not eps > 0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self.eps = float(eps)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """At least -V log 2; -V log ε when collapsed."""
        self.check(z)
        unit = F.normalize(z, dim=-1)
        squares = torch.stack([(x - x[_nearest(x)]).square().sum(1) for x in unit])
        distances = squares.clamp(min=torch.finfo(z.dtype).tiny).sqrt()
        return -(distances + self.eps).log().mean(1).sum()


@torch.no_grad()
def _nearest(unit: Float[Tensor, "n dim"]) -> Int[Tensor, " n"]:
    """Each vector's nearest other one, found by tiles of rows."""
    found = []
    for part in torch.arange(len(unit), device=unit.device).split(max(1, rows.CHUNK // len(unit))):
        cosines = unit[part] @ unit.T
        found.append(cosines.scatter_(1, part[:, None], -torch.inf).argmax(1))
    return torch.cat(found)


@runtime_checkable
class Codebook(Protocol):
    """What `MeanEntropy` asks of codes."""

    def probabilities(self, z: Tensor) -> Tensor:
        """p(k | z) along the last dimension."""


class MeanEntropy(Regularizer):
    """Codes used equally on average: log K - H(p̄), p̄ = mean over views and images of p(k | z).

    MSN (arXiv 2204.07141): over all ranks' masked views.

    Args:
        codes: What gives p(k | z).
        weight: λ.
    """

    def __init__(self, codes: Codebook, *, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.codes = Borrowed(codes)  # the energy's

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """In [0, log K]; 0 where all codes are used equally often."""
        self.check(z)
        mean = self.codes.module.probabilities(z).mean((0, 1))
        return math.log(len(mean)) + (mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()
