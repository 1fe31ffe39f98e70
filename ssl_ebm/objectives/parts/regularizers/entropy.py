"""Entropies that are estimated from samples: those of unit vectors on the sphere, and of codes."""

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

    It is minus a Rényi entropy of a kernel density. Large matrices are reduced by tiles, in linear memory. Wang & Isola
    (arXiv 2005.10242), as in the authors' code: t = 2, ½ (view 1 + view 2).
    """

    def __init__(self, *, t: float = 2.0, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if not t > 0:
            raise ValueError(f"t must be > 0, got {t}")
        self.t = float(t)
        self.energy = SquaredEuclidean(scale=self.t, normalize=True)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """Log of the mean Gaussian potential between embeddings of different images."""
        self.check(z)
        v, n = z.shape[:2]
        if v * n**2 <= rows.MAX_DENSE_ENTRIES:
            z = F.normalize(z, dim=-1)
            diagonal = torch.eye(n, dtype=torch.bool, device=z.device)
            exponent = (2 * self.t * (z @ z.transpose(1, 2) - 1)).masked_fill(diagonal, -torch.inf)
            total = exponent.flatten(1).logsumexp(1)
        else:
            image = torch.arange(n, device=z.device)
            itself = rows.Pairs(image, image)
            energies = [rows.EnergyMatrix(self.energy, view, view, excluded=itself, symmetric=True) for view in z]
            total = torch.stack([matrix.logsumexp() for matrix in energies]).logsumexp(1)
        return total.mean() - math.log(n * (n - 1))


class KoLeo(Regularizer):
    """Minus Kozachenko-Leonenko entropy: -mean_i log(min_{j≠i} ‖z_i - z_j‖ + ε) of unit vectors, summed over views.

    Sablayrolles et al. 2019 (arXiv 1806.03198), as in DINOv2's code (arXiv 2304.07193): ε = 1e-8, neighbours within a
    view, a gradient through both vectors. There neighbours are those of one process, here of all ranks. Duplicates, at
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
        """A value of at least -V log 2; -V log ε when collapsed."""
        self.check(z)
        unit = F.normalize(z, dim=-1)
        squares = torch.stack([(view - view[_nearest(view)]).square().sum(1) for view in unit])
        distances = squares.clamp(min=torch.finfo(z.dtype).tiny).sqrt()
        return -(distances + self.eps).log().mean(1).sum()


@torch.no_grad()
def _nearest(unit: Float[Tensor, "n dim"]) -> Int[Tensor, " n"]:
    """Position of each vector's nearest other vector, found by chunks of rows."""
    nearest = []
    for chunk in torch.arange(len(unit), device=unit.device).split(max(1, rows.CHUNK_ENTRIES // len(unit))):
        cosines = unit[chunk] @ unit.T
        nearest.append(cosines.scatter_(1, chunk[:, None], -torch.inf).argmax(1))
    return torch.cat(nearest)


@runtime_checkable
class Codebook(Protocol):
    """What `MeanEntropy` needs of codes."""

    def probabilities(self, z: Tensor) -> Tensor:
        """p(k | z), with the codes k along the last dimension."""


class MeanEntropy(Regularizer):
    """log K - H(p̄), p̄ = mean over views and images of p(k | z): on average, codes are to be used equally.

    MSN (arXiv 2204.07141), where p̄ is the mean over all ranks' masked views.

    Args:
        codes: The codes of the energy, which give p(k | z).
        weight: λ.
    """

    def __init__(self, codes: Codebook, *, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.codes = Borrowed(codes)  # owned by the energy

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value in [0, log K]; 0 where all codes are used equally often."""
        self.check(z)
        mean = self.codes.module.probabilities(z).mean((0, 1))
        return math.log(len(mean)) + (mean * mean.clamp(min=torch.finfo(mean.dtype).tiny).log()).sum()
