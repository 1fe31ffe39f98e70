"""The distance of samples from data, by the first two moments of an encoder's features."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def frechet_distance(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> float:
    """The Fréchet distance of two sets of features; 0 for equal moments, in units of squared features.

        ‖μ_a - μ_b‖² + tr(Σ_a + Σ_b - 2 (Σ_a Σ_b)^½)

    The squared Wasserstein distance of the Gaussians with these moments (Dowson and Landau 1982); with the features of
    an Inception network it is the FID (Heusel et al. 2017, arXiv 1706.08500). Values of different encoders, and of
    different numbers of samples, cannot be compared: of few samples it is too high, by about tr Σ / n and more where n
    is not far above d. Compare with the distance of as many images of the data.

    Args:
        a: Features of samples.
        b: Features of data.

    Raises:
        ValueError: There are less than two of either, or values that are not finite.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"a Fréchet distance needs at least 2 images of each kind, got {len(a)} and {len(b)}")
    moments = []
    for features in (a, b):
        if not bool(features.isfinite().all()):
            raise ValueError("features must be finite to have moments: drop those images")
        centred = features.double() - features.double().mean(0)
        moments.append((features.double().mean(0), centred.T @ centred / (len(features) - 1)))
    (mean_a, cov_a), (mean_b, cov_b) = moments
    variance, axes = torch.linalg.eigh(cov_a)
    root = axes * variance.clamp(min=0).sqrt() @ axes.T  # (Σ_a Σ_b)^½ has the trace of (Σ_a^½ Σ_b Σ_a^½)^½
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return float((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross)
