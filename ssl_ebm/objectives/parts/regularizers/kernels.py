"""Dependence measured by kernels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies.pairwise import InverseMultiquadratic
from ssl_ebm.objectives.parts.borrowed import Borrowed
from ssl_ebm.objectives.parts.regularizers.regularizer import Regularizer, Views
from ssl_ebm.objectives.parts.shared_random import Draws


class HSIC(Regularizer):
    """Dependence on the image's identity Y, against dependence of the embedding on itself: -HSIC(Z, Y) + γ √HSIC(Z, Z).

    Under the kernel k(a, b) = c / √(c² + ‖a - b‖²) of unit vectors and k sets of N embeddings (predictions and
    targets of each view), by random features φ of k:

        HSIC(Z, Y) = Σ_i ‖Σ_v φ(z_i^v)‖² / (N k (k - 1)) - ‖mean φ‖²
        HSIC(Z, Z) = ‖Σ φ̃ ψ̃ᵀ‖² / (N k)²,    φ̃ centred, ψ̃ other features

    Within an image v = v' is kept, about 1/(k - 1). φ_f(z) = √(2/F) cos(<ω_f, z>/c + b_f), ω = nξ with n, ξ normal:
    (1 + r²)^(-1/2) is a Gamma mixture of Gaussians. SSL-HSIC (arXiv 2106.08320), as in the authors' code, which draws
    |ω| from a grid that ends at 100.

    c, where the kernel's is learnable, follows the distances: its gradient alone is that of -E log |∂k/∂d²| over pairs
    of 1024 samples (the first of the batch; there at random), and the value is without it.

    Near a collapse both terms grow with the variance, the second γ/√r times as fast where it spreads over r directions:
    more than γ² directions lead out of it; with fewer, predictor and teacher must keep from it.

    Args:
        kernel: The energy -k, which owns c.
        features: F.
        gamma: γ.
        weight: Its factor in the objective's sum.
    """

    reads = ("prediction", "target")
    SAMPLES = 1024

    def __init__(
        self, kernel: InverseMultiquadratic, *, features: int = 512, gamma: float = 3.0, weight: float = 1.0
    ) -> None:
        super().__init__(weight=weight)
        if features < 1:
            raise ValueError(f"features must be >= 1, got {features}")
        if not gamma >= 0:
            raise ValueError(f"gamma must be >= 0, got {gamma}")
        self.kernel = Borrowed(kernel)  # the objective's energy
        self.features, self.gamma = features, float(gamma)
        self.draws = Draws()

    def frequencies(self, z: Tensor) -> tuple[Float[Tensor, "2 dim features"], Float[Tensor, "2 1 features"]]:
        """This step's frequencies ω (at c = 1) and phases b, of φ and ψ; the same in every precision."""
        generator, dim = self.draws.generator(), z.shape[-1]
        scale = torch.randn(2, 1, self.features, generator=generator, dtype=torch.float64)
        normal = torch.randn(2, dim, self.features, generator=generator, dtype=torch.float64)
        phases = 2 * math.pi * torch.rand(2, 1, self.features, generator=generator, dtype=torch.float64)
        return (scale * normal).to(z), phases.to(z)

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """-HSIC(Z, Y) + γ √HSIC(Z, Z); all embeddings of a batch in one place: -1/(k - 1)."""
        self.check(z)
        sets, images = z.shape[:2]
        if sets < 2:
            raise ValueError(f"HSIC needs at least 2 sets of embeddings, got {sets}")
        unit, scale = F.normalize(z, dim=-1), self.kernel.module.scale
        omega, phases = self.frequencies(z)
        omega = omega / scale.detach().to(z.dtype)
        phi, psi = ((2 / self.features) ** 0.5 * (unit @ w + b).cos() for w, b in zip(omega, phases, strict=True))
        within = phi.sum(0).square().sum() / (images * sets * (sets - 1))
        dependence = within - phi.mean((0, 1)).square().sum()
        centred = [(feature - feature.mean((0, 1))).flatten(0, 1) for feature in (phi, psi)]
        itself = (centred[0].T @ centred[1]).square().sum() / (images * sets) ** 2
        value = -dependence + self.gamma * itself.clamp(min=torch.finfo(z.dtype).tiny).sqrt()
        if scale.requires_grad:
            steepness = self._steepness(unit.detach(), scale.to(z.dtype))
            value = value - (steepness - steepness.detach())
        return value

    def _steepness(self, unit: Views, scale: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """Mean log |∂k/∂d²| = mean log(c/2 · (c² + d²)^(-3/2)), each at least log 1e-7."""
        sample = unit[:, : max(1, self.SAMPLES // len(unit))].flatten(0, 1)
        squares = torch.cdist(sample, sample).square()
        return ((scale / 2).log() - 1.5 * (scale.square() + squares).log()).clamp(min=math.log(1e-7)).mean()

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"features={self.features}, gamma={self.gamma:g}, weight={self.weight:g}"
