"""How the volume of low energy is limited without negatives: a statistic of the embeddings' distribution -> scalar.

Each takes all views of the global batch, [views, batch, dim], and is computed on whichever Gram matrix is smaller.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm.draws import Draws

Views = Float[Tensor, "views batch dim"]


class Regularizer(nn.Module):
    """A statistic of all embeddings, low where they are spread.

    Args:
        weight: Its factor in the objective's sum.
    """

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = float(weight)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """The unweighted value."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"weight={self.weight:g}"


def _centred(z: Views, regularizer: str) -> Views:
    if z.shape[1] < 2:
        raise ValueError(f"{regularizer} needs a batch of at least 2 images, got {z.shape[1]}")
    return z - z.mean(1, keepdim=True)


class Variance(Regularizer):
    """Hinge on each dimension's standard deviation: mean_d [1 - √(var_d + 1e-4)]₊, mean over views.

    Unbiased variance; VICReg (arXiv 2105.04906) as in the authors' code, which halves the sum over two views.
    """

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """In [0, 0.99]; 0.99 when collapsed."""
        variance = _centred(z, "Variance").square().sum(1) / (z.shape[1] - 1)
        return F.relu(1 - (variance + 1e-4).sqrt()).mean()


class Covariance(Regularizer):
    """Off-diagonal covariance: 1/D Σ_{i≠j} C_ij², summed over views.

    Unbiased covariance; VICReg as in the authors' code (the sum over views is not halved). Where D > N the N × N Gram
    matrix gives the same sum: Σ_{i≠j} C² = ‖Z Zᵀ‖² / (N-1)² - Σ var².
    """

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """≥ 0."""
        z, (n, d) = _centred(z, "Covariance"), z.shape[1:]
        gram = z.transpose(1, 2) @ z if d <= n else z @ z.transpose(1, 2)
        variance = z.square().sum(1)
        return (gram.square().sum() - variance.square().sum()) / ((n - 1) ** 2 * d)


class CrossCorrelation(Regularizer):
    """Redundancy reduction: Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij², mean over pairs of views.

    C = Z̃ᵀ Z̃' / N of embeddings standardised per dimension over the batch: biased variance with ε = 1e-5, BatchNorm's,
    as in the authors' code (otherwise identical views give C_ii = (N-1)/N). Barlow Twins (arXiv 2103.03230).
    """

    def __init__(self, *, off_diagonal: float = 0.0051, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.off_diagonal = float(off_diagonal)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """≥ 0; D when collapsed."""
        v, n, d = z.shape
        if v < 2:
            raise ValueError(f"CrossCorrelation needs at least 2 views, got {v}")
        z = _centred(z, "CrossCorrelation")
        z = z / (z.square().mean(1, keepdim=True) + 1e-5).sqrt()
        grams = z @ z.transpose(1, 2) if d > n else None
        losses = []
        for a in range(v):
            for b in range(a + 1, v):
                diagonal = (z[a] * z[b]).mean(0)
                squares = ((z[a].T @ z[b]).square() if grams is None else grams[a] * grams[b]).sum() / n**2
                losses.append((1 - diagonal).square().sum() + self.off_diagonal * (squares - diagonal.square().sum()))
        return torch.stack(losses).mean()


class Uniformity(Regularizer):
    """log mean_{i<j} exp(-t ‖z_i - z_j‖²) of unit vectors, mean over views; in [-4t, 0], 0 when collapsed.

    Wang & Isola (arXiv 2005.10242), as in the authors' code: t = 2, ½ (view 1 + view 2).
    """

    def __init__(self, *, t: float = 2.0, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if not t > 0:
            raise ValueError(f"t must be > 0, got {t}")
        self.t = float(t)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """Log of the mean Gaussian potential."""
        n = z.shape[1]
        if n < 2:
            raise ValueError(f"Uniformity needs a batch of at least 2 images, got {n}")
        z = F.normalize(z, dim=-1)
        itself = torch.eye(n, dtype=torch.bool, device=z.device)
        exponent = (2 * self.t * (z @ z.transpose(1, 2) - 1)).masked_fill(itself, -torch.inf)
        return exponent.flatten(1).logsumexp(1).mean() - math.log(n * (n - 1))


class SlicedGaussianity(Regularizer):
    """SIGReg: distance of random one-dimensional projections to N(0, 1), by their characteristic functions.

        mean_views mean_a  N ∫_{-3}^{3} |φ̂_a(u) - exp(-u²/2)|² exp(-u²/2) du

    φ̂_a is the empirical characteristic function of <z, a> for `slices` random unit directions a, drawn anew at each
    training step (from a counter, so that all ranks and resumed runs draw the same); trapezoids on `knots` in [0, 3],
    doubled. N(0, I) embeddings give about 1.05 for any N. LeJEPA (arXiv 2511.08544), as in its minimal script.
    """

    def __init__(self, *, slices: int = 256, knots: int = 17, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if slices < 1 or knots < 2:
            raise ValueError(f"slices must be >= 1 and knots >= 2, got {slices} and {knots}")
        self.slices, self.knots = slices, knots
        self.draws = Draws()

    def directions(self, z: Tensor) -> Float[Tensor, "dim slices"]:
        """This step's unit directions."""
        directions = torch.randn(z.shape[-1], self.slices, generator=self.draws.generator(), dtype=z.dtype)
        return F.normalize(directions, dim=0).to(z.device)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """Epps-Pulley statistic; about 1.05 at the optimum."""
        u = torch.linspace(0, 3, self.knots, dtype=z.dtype, device=z.device)
        window = torch.exp(-u.square() / 2)
        trapezoid = torch.full_like(u, 2 * 3 / (self.knots - 1))
        trapezoid[[0, -1]] /= 2
        phase = (z @ self.directions(z)).unsqueeze(-1) * u
        distance = (phase.cos().mean(1) - window).square() + phase.sin().mean(1).square()
        return z.shape[1] * (distance @ (trapezoid * window)).mean()
