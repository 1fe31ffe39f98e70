"""Second moments of the embeddings: variances are kept up, correlations are kept down."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.objectives.parts.regularizers.regularizer import Regularizer, Views


def _centred(z: Views) -> Views:
    return z - z.mean(1, keepdim=True)


class Variance(Regularizer):
    """Hinge on each dimension's standard deviation: mean_d [1 - √(var_d + 1e-4)]₊, mean over views.

    The variance is unbiased. VICReg (arXiv 2105.04906) as in the authors' code, which halves the sum over two views.
    """

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value in [0, 0.99]; 0.99 when collapsed."""
        self.check(z)
        variance = _centred(z).square().sum(1) / (z.shape[1] - 1)
        return F.relu(1 - (variance + 1e-4).sqrt()).mean()


class Covariance(Regularizer):
    """Off-diagonal covariance: 1/D Σ_{i≠j} C_ij², summed over views.

    The covariance is unbiased. VICReg as in the authors' code (the sum over views is not halved). Where D > N the N × N
    Gram matrix gives the same sum: Σ_{i≠j} C² = ‖Z Zᵀ‖² / (N-1)² - Σ var².
    """

    gaussian = True

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value ≥ 0."""
        self.check(z)
        z, (n, d) = _centred(z), z.shape[1:]
        gram = z.transpose(1, 2) @ z if d <= n else z @ z.transpose(1, 2)
        variance = z.square().sum(1)
        return (gram.square().sum() - variance.square().sum()) / ((n - 1) ** 2 * d)


class CrossCorrelation(Regularizer):
    """Redundancy reduction: Σ_i (1 - C_ii)² + λ Σ_{i≠j} C_ij², mean over pairs of views.

    C = Z̃ᵀ Z̃' / N of embeddings standardised per dimension over the batch: biased variance with ε = 1e-5, BatchNorm's,
    as in the authors' code (otherwise identical views give C_ii = (N-1)/N). Barlow Twins (arXiv 2103.03230).
    """

    gaussian = True

    def __init__(self, *, off_diagonal: float = 0.0051, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        self.off_diagonal = float(off_diagonal)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value ≥ 0; D when collapsed."""
        v, n, d = z.shape
        if v < 2:
            raise ValueError(f"CrossCorrelation needs at least 2 views, got {v}")
        self.check(z)
        z = _centred(z)
        z = z / (z.square().mean(1, keepdim=True) + 1e-5).sqrt()
        grams = z @ z.transpose(1, 2) if d > n else None
        losses = []
        for a in range(v):
            for b in range(a + 1, v):
                diagonal = (z[a] * z[b]).mean(0)
                squares = ((z[a].T @ z[b]).square() if grams is None else grams[a] * grams[b]).sum() / n**2
                losses.append((1 - diagonal).square().sum() + self.off_diagonal * (squares - diagonal.square().sum()))
        return torch.stack(losses).mean()


class SecondMoment(Regularizer):
    """Energy of the running second moment: mean zᵀ C z, C ← β C + (1 - β) ZᵀZ / N of the first view's unit vectors.

    C includes the present batch, and starts at zero. TiCo (arXiv 2206.10698) takes the gradient through the batch's
    share of C, as the public port does; lightly does not (`through_batch=False`), which halves that share's gradient.

    Args:
        dim: Dimension of the embeddings.
        beta: β, the weight of the old C after a step.
        through_batch: True if the gradient also flows through the share that the present batch has in C.
        weight: ρ.
    """

    second_moment: Tensor

    def __init__(self, *, dim: int, beta: float = 0.9, through_batch: bool = True, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {beta}")
        self.beta, self.through_batch = float(beta), through_batch
        self.register_buffer("second_moment", torch.zeros(dim, dim))

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value in [0, 1]; 1 when collapsed for long, 1/D when spread."""
        self.check(z, dim=len(self.second_moment))
        unit = F.normalize(z[0], dim=1)
        batch = unit.T @ unit / len(unit)
        share = batch if self.through_batch else batch.detach()
        moment = self.beta * self.second_moment.to(z.dtype) + (1 - self.beta) * share
        self.pending = {"second_moment": moment.detach()}
        return (moment * batch).sum()

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"beta={self.beta:g}, through_batch={self.through_batch}, weight={self.weight:g}"
