"""The volume that embeddings take: log-determinants, coding rates and the nuclear norm.

All are computed in float64, because the smallest eigenvalues of a covariance decide its determinant.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies.whitening import eigh
from ssl_ebm.objectives.parts.regularizers.regularizer import Regularizer, Views

Sets = Float[Tensor, "*batch n dim"]


def logdet(matrix: Float[Tensor, "*batch dim dim"]) -> Float[Tensor, "*batch"]:
    """Logarithm of |det M|, by LU, which raises nothing where M is nearly singular."""
    return torch.linalg.slogdet(matrix).logabsdet


def coding_rate(z: Sets, *, eps_squared: float) -> Float[Tensor, "*batch"]:
    """Nats that an embedding takes at precision ε: ½ logdet(I + D / (n ε²) Zᵀ Z), by the smaller Gram matrix."""
    n, d = z.shape[-2:]
    gram = z.mT @ z if d <= n else z @ z.mT
    return logdet(torch.eye(min(n, d)).to(z) + d / (n * eps_squared) * gram) / 2


def nuclear_norm(x: Sets) -> Float[Tensor, "*batch"]:
    """Sum of the singular values, ‖X‖_* = <X, P>, with the polar factor P = X (XᵀX)^(-1/2) as its gradient.

    P leaves out singular values below √(n ε) of the largest, which are rounding errors: in the direction of each, the
    gradient of an SVD has noise of length 1.
    """
    n, d = x.shape[-2:]
    with torch.no_grad():
        values, vectors = eigh(x.mT @ x if d <= n else x @ x.mT)
        kept = values > max(n, d) * torch.finfo(x.dtype).eps * values[..., -1:]
        roots = torch.where(kept | values.isnan(), values, torch.inf).rsqrt()
        root = vectors * roots.unsqueeze(-2) @ vectors.mT
        polar = x @ root if d <= n else root @ x
    return (x * polar).sum((-2, -1))


class LogDetCovariance(Regularizer):
    """Entropy of a Gaussian with the running covariance R: -1/D Σ_views logdet(R + ε I).

        μ ← w μ + (1 - w) mean z,    R ← w R + (1 - w) mean (z - μ)(z - μ)ᵀ

    of each view, with the updated μ in R and gradients through the present batch in both; R starts as I, μ as 0.
    CorInfoMax (arXiv 2209.07999) as in the authors' code, whose runs all normalise the embeddings.

    Args:
        dim: Dimension of the embeddings.
        views: Number of views, each with its own statistics, as on CIFAR; None: views share them, as on ImageNet.
        old_weight: w.
        eps: ε.
        normalize: Take unit vectors.
        weight: Factor of the regularizer in the objective's sum.
    """

    gaussian = True
    covariance: Tensor
    mean: Tensor

    def __init__(
        self,
        *,
        dim: int,
        views: int | None = 2,
        old_weight: float = 0.01,
        eps: float = 1e-8,
        normalize: bool = True,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        if views is not None and views < 1:
            raise ValueError(f"views must be >= 1, or None for statistics that all views share, got {views}")
        if not 0 <= old_weight < 1:
            raise ValueError(f"old_weight must be in [0, 1), got {old_weight}")
        if not eps > 0:
            raise ValueError(f"eps must be > 0, got {eps}")
        self.views, self.old_weight, self.eps, self.normalize = views, float(old_weight), float(eps), normalize
        self.register_buffer("covariance", torch.eye(dim, dtype=torch.float64).repeat(views or 1, 1, 1))
        self.register_buffer("mean", torch.zeros(views or 1, dim, dtype=torch.float64))

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value that for unit vectors ends at log D per view if they are spread, up to -log ε when collapsed."""
        self.check(z, dim=self.mean.shape[1])
        if self.views is not None and len(z) != self.views:
            raise ValueError(
                f"LogDetCovariance has statistics of {self.views} views, got {len(z)}: give views={len(z)}, or "
                "views=None for statistics that all views share"
            )
        x = F.normalize(z.double(), dim=-1) if self.normalize else z.double()
        x = x.flatten(0, 1)[None] if self.views is None else x
        w, (n, d) = self.old_weight, x.shape[1:]
        mean = w * self.mean.double() + (1 - w) * x.mean(1)
        centred = x - mean[:, None]
        covariance = w * self.covariance.double() + (1 - w) / n * centred.mT @ centred
        self.pending = {"mean": mean.detach(), "covariance": covariance.detach()}
        return -logdet(covariance + self.eps * torch.eye(d).to(x)).sum().to(z.dtype) / d

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"views={self.views}, old_weight={self.old_weight:g}, eps={self.eps:g}, weight={self.weight:g}"


class CodingRate(Regularizer):
    """Total coding rate of unit vectors: -mean_views ½ logdet(I + D / (N ε²) Zᵀ Z).

    EMP-SSL (arXiv 2304.03977), whose code calls ε² `eps`: .2.
    """

    def __init__(self, *, eps_squared: float = 0.2, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if not eps_squared > 0:
            raise ValueError(f"eps_squared must be > 0, got {eps_squared}")
        self.eps_squared = float(eps_squared)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value in [-m/2 log(1 + D / (m ε²)), -½ log(1 + D/ε²)], m = min(N, D): orthogonal to collapsed."""
        self.check(z)
        unit = F.normalize(z.double(), dim=-1)
        return -coding_rate(unit, eps_squared=self.eps_squared).mean().to(z.dtype)

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"eps_squared={self.eps_squared:g}, weight={self.weight:g}"


class RateReduction(Regularizer):
    """Coding rate of the views of an image, less that of all M = N · V embeddings, for unit vectors.

        mean_images R(Z_i) - γ₂ ½ logdet(I + γ₁ D / (M ε²) Zᵀ Z)

    MCR² (arXiv 2006.08558), self-supervised, with the constants of the authors' README.

    Args:
        eps_squared: ε².
        expansion: γ₁.
        expansion_weight: γ₂.
        weight: Factor of the regularizer in the objective's sum.
    """

    def __init__(
        self,
        *,
        eps_squared: float = 0.5,
        expansion: float = 20.0,
        expansion_weight: float = 0.05,
        weight: float = 1.0,
    ) -> None:
        super().__init__(weight=weight)
        for name, value in (("eps_squared", eps_squared), ("expansion", expansion)):
            if not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")
        self.eps_squared, self.expansion = float(eps_squared), float(expansion)
        self.expansion_weight = float(expansion_weight)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value that is low where images are spread and their views are not."""
        self.check(z)
        unit = F.normalize(z.double(), dim=-1)
        within = coding_rate(unit.transpose(0, 1), eps_squared=self.eps_squared).mean()
        overall = coding_rate(unit.flatten(0, 1), eps_squared=self.eps_squared / self.expansion)
        return (within - self.expansion_weight * overall).to(z.dtype)


class NuclearNorm(Regularizer):
    """Nuclear norms of unit vectors: -‖centroids‖_* + λ/N Σ_images ‖Z_i‖_*.

    Centroids, [N, D], are the means over the views of each image; Z_i, [V, D], are its views. MMCR (arXiv 2303.03307).

    Args:
        local_weight: λ.
        weight: Factor of the regularizer in the objective's sum.
    """

    def __init__(self, *, local_weight: float = 0.0, weight: float = 1.0) -> None:
        super().__init__(weight=weight)
        if local_weight < 0:
            raise ValueError(f"local_weight must be >= 0, got {local_weight}")
        self.local_weight = float(local_weight)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """A value ≥ -√(N · min(N, D)) with λ = 0, for equal views of spread images; -√N when collapsed."""
        self.check(z)
        unit = F.normalize(z.double(), dim=-1)
        value = -nuclear_norm(unit.mean(0))
        if self.local_weight:
            value = value + self.local_weight * nuclear_norm(unit.transpose(0, 1)).mean()
        return value.to(z.dtype)

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"local_weight={self.local_weight:g}, weight={self.weight:g}"
