"""The energy of jointly Gaussian views: -PMI in closed form by canonical correlations, and how far to trust it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_ebm.energies.pairwise import Energy, Factor, Side

Bank = Float[Tensor, "n dim"]

MAX_SCALE_PAIRS = 2000  # a scale is fitted on no more pairs; all their energies, 32 MB in float64, are held at once


class CanonicalCorrelation(Energy):
    """-PMI of jointly Gaussian views, by the canonical correlations ρ_k of a bank of pairs.

        E(a, b) = Σ_k ½ log(1 - ρ_k²) + (ρ_k² (a_k² + b_k²) - 2 ρ_k a_k b_k) / (2 (1 - ρ_k²))

    a_k, b_k are the canonical variates. The views are exchangeable, so both sides share mean and covariance, and E is
    symmetric. Directions of small variance are left out.

    Args:
        shrinkage: Weight of the multiple of the identity that the joint covariance is mixed with: 0 for none, None for
            the one of least expected squared error (Ledoit & Wolf 2004, J. Multivariate Analysis 88), a pair of views
            being one sample.
        min_variance: Smallest variance of a direction that is kept, as a fraction of the largest.
        max_correlation: Bound on |ρ_k|, below 1.

    Raises:
        ValueError: There are too few pairs: at most 2 a dimension, with shrinkage at most 1.
    """

    center: Tensor
    directions: Tensor
    correlations: Tensor

    def __init__(
        self,
        a: Bank,
        b: Bank,
        *,
        shrinkage: float | None = 0.0,
        min_variance: float = 1e-6,
        max_correlation: float = 0.9999,
    ) -> None:
        super().__init__()
        n, d = a.shape
        needed = 2 * d if shrinkage == 0 else d
        if n <= needed:
            raise ValueError(f"canonical correlations of {d} dimensions need more than {needed} pairs, got {n}")
        a, b = a.double(), b.double()
        center = torch.cat([a, b]).mean(0)
        a, b = a - center, b - center
        within, across = (a.T @ a + b.T @ b) / (2 * n), (a.T @ b + b.T @ a) / (2 * n)
        shrinkage = ledoit_wolf(a, b, within, across) if shrinkage is None else float(shrinkage)
        within = within * (1 - shrinkage) + torch.eye(d).to(within) * (shrinkage * within.trace() / d)
        variance, axes = torch.linalg.eigh(within)
        kept = variance > min_variance * variance[-1]
        whiten = axes[:, kept] * variance[kept].rsqrt()
        correlations, rotation = torch.linalg.eigh(whiten.T @ (across * (1 - shrinkage)) @ whiten)
        self.register_buffer("center", center)
        self.register_buffer("directions", whiten @ rotation)
        self.register_buffer("correlations", correlations.clamp(-max_correlation, max_correlation))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """Vectors √(|ρ| / (1 - ρ²)) a_k, one side with the sign of ρ; offsets: the squares and half the logarithms."""
        rho = self.correlations.to(x.dtype)
        variates = (x - self.center.to(x.dtype)) @ self.directions.to(x.dtype)
        unexplained = 1 - rho.square()
        vectors = variates * (rho.abs() / unexplained).sqrt()
        offset = (variates.square() * (rho.square() / (2 * unexplained))).sum(1) + unexplained.log().sum() / 4
        return Factor(vectors * rho.sign() if side == "anchor" else vectors, offset)


def ledoit_wolf(a: Bank, b: Bank, within: Float[Tensor, "dim dim"], across: Float[Tensor, "dim dim"]) -> float:
    """Shrinkage of the joint covariance of centred pairs, (S, C; C, S), towards m I with m = tr S / D.

        min(β², δ²) / δ²,    δ² = ‖S - m I‖² + ‖C‖²,    β² = Σ_i (‖S_i - S‖² + ‖C_i - C‖²) / n²

    S_i = ½ (a_i a_iᵀ + b_i b_iᵀ) and C_i = ½ (a_i b_iᵀ + b_i a_iᵀ): one pair is one sample.

    Source: Ledoit & Wolf 2004, J. Multivariate Analysis 88, section 3.2.
    """
    n, d = a.shape
    a_squares, b_squares, products = a.square().sum(1), b.square().sum(1), (a * b).sum(1)
    pair_squares = ((a_squares + b_squares).square() + 4 * products.square()).sum() / 4  # Σ_i ‖S_i‖² + ‖C_i‖²
    joint_square = within.square().sum() + across.square().sum()
    beta_squared = (pair_squares / n - joint_square) / n
    delta_squared = joint_square - within.trace().square() / d
    return float((beta_squared / delta_squared).clamp(0, 1)) if delta_squared > 0 else 0.0


class Scaled(Energy):
    """β E(a, b) with β ≥ 0, for an energy E whose link is the identity."""

    scale: Tensor

    def __init__(self, energy: Energy, scale: float) -> None:
        super().__init__()
        if not energy.linear:
            raise ValueError(f"{type(energy).__name__} has a link: its factors cannot be scaled")
        self.energy, self.symmetric = energy, energy.symmetric
        self.register_buffer("scale", torch.tensor(float(scale), dtype=torch.float64))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """The factors of E: its vectors times √β, its offset times β."""
        (vectors, offset), scale = self.energy.factor(x, side), self.scale.to(x.dtype)
        return Factor(vectors * scale.sqrt(), None if offset is None else offset * scale)


@torch.no_grad()
def best_scale(energy: Energy, a: Bank, b: Bank, *, max_scale: float = 10.0, tolerance: float = 1e-6) -> float:
    """The β ≥ 0 for which β E has the largest InfoNCE bound on pairs, averaged over both sides as anchors.

        L(β) = -β mean_i E_ii - ½ mean_i log mean_j exp(-β E_ij) - ½ mean_j log mean_i exp(-β E_ij)

    L is concave and L(0) = 0, so that the bound at β is never worse than that of a flat energy; β = 0 says that the
    energy tells nothing. At the maximum the mean energy of the pairs is the one that exp(-β E) expects. Newton's method
    within a bracket finds it, in float64, on the first `MAX_SCALE_PAIRS` pairs.

    Args:
        energy: E.
        a: Embeddings of one view of some images.
        b: Embeddings of another view of the same images.
        max_scale: Bound on β, reached where pairs are told apart without error.
        tolerance: Change of β at which the iteration ends.
    """
    energies = energy.cross(a[:MAX_SCALE_PAIRS].double(), b[:MAX_SCALE_PAIRS].double())
    positive = energies.diagonal().mean()
    low, high, scale = 0.0, max_scale, 1.0
    for _ in range(60):
        slope, curvature = -positive, torch.zeros_like(positive)
        for dim in (0, 1):
            p = torch.softmax(-scale * energies, dim)
            mean = (p * energies).sum(dim)
            slope = slope + mean.mean() / 2
            curvature = curvature + ((p * energies.square()).sum(dim) - mean.square()).mean() / 2
        low, high = (scale, high) if slope > 0 else (low, scale)
        step = float(slope / curvature) if curvature > 0 else math.inf
        new = scale + step if low < scale + step < high else (low + high) / 2
        if abs(new - scale) <= tolerance:
            break
        scale = new
    return new if new > 2 * tolerance else 0.0
