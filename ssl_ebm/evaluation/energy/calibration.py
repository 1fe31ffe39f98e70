"""Is an energy a log-odds? Calibration of p(same image | E), before and after two parameters are fitted."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from ssl_ebm.evaluation.probes.classification import CALIBRATION_BINS

NEWTON_STEPS = 100  # at most; about ten are needed


@dataclass(frozen=True, kw_only=True)
class CalibrationResult:
    """Calibration of p(same image | E) = σ(-β E - b), where positive and negative pairs are equally likely beforehand.

    Attributes:
        nll_before: Mean negative log-likelihood in nats at β = 1, b = 0, of pairs that nothing was fitted on; log 2 for
            a coin.
        nll_after: The same with β, b fitted on other pairs.
        ece_before: Expected calibration error, in [0, 1].
        ece_after: The same with β, b fitted.
        beta: β: how sharp the energy is; 1 for one in nats.
        bias: b.
    """

    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    beta: float
    bias: float


def calibrate(fit: Float[Tensor, "m m"], held_out: Float[Tensor, "n n"]) -> CalibrationResult:
    """Calibration on the pairs of `held_out` images, fitted on those of other images.

    Positive pairs are diagonals, negative pairs the rest; each kind weighs one half.

    Args:
        fit: Energies E(a_i, b_j) of the images that β and b are fitted on.
        held_out: Energies of the images reported.

    Raises:
        ValueError: There are fewer than two images on a side.
    """
    beta, bias = fit_odds(*split_kinds(fit))
    positive, negative = split_kinds(held_out)
    raw_odds = -positive, -negative
    fitted_odds = -beta * positive - bias, -beta * negative - bias
    return CalibrationResult(
        nll_before=nll(*raw_odds),
        nll_after=nll(*fitted_odds),
        ece_before=ece(*raw_odds),
        ece_after=ece(*fitted_odds),
        beta=beta,
        bias=bias,
    )


def split_kinds(energies: Float[Tensor, "n n"]) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " m"]]:
    """The energies of the positive pairs, on the diagonal, and of the negative pairs, in float64.

    Raises:
        ValueError: There are fewer than two images.
    """
    if len(energies) < 2:
        raise ValueError(f"energies must be of at least two images, got {len(energies)}")
    energies = energies.detach().double()
    negative = ~torch.eye(len(energies), dtype=torch.bool, device=energies.device)
    return energies.diagonal().clone(), energies[negative]


def fit_odds(positive: Float64[Tensor, " n"], negative: Float64[Tensor, " m"]) -> tuple[float, float]:
    """The β and b of the least balanced negative log-likelihood, by Newton's method.

    Targets are Platt's, (n + 1) / (n + 2) for a positive and 1 / (m + 2) for a negative pair: the maximum stays finite
    where an energy tells all pairs apart (Platt 1999, Advances in Large Margin Classifiers). A flat energy has β = 0.
    """
    energies = torch.cat([positive, negative])
    centre, spread = energies.mean(), energies.std(correction=0)
    if spread <= 1e-12 * centre.abs():
        return 0.0, 0.0
    n, m = len(positive), len(negative)
    x = -(energies - centre) / spread
    weight = torch.cat([x.new_full((n,), 0.5 / n), x.new_full((m,), 0.5 / m)])
    target = torch.cat([x.new_full((n,), (n + 1) / (n + 2)), x.new_full((m,), 1 / (m + 2))])
    slope, shift = 0.0, 0.0
    loss = _cross_entropy(x, slope, shift, target, weight)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(slope * x + shift)
        residual, curve = weight * (p - target), weight * p * (1 - p)
        # derivatives by shift and slope, and the Hessian of the two
        g0, g1 = float(residual.sum()), float((residual * x).sum())
        h0, h1, h2 = float(curve.sum()), float((curve * x).sum()), float((curve * x * x).sum())
        determinant = h0 * h2 - h1 * h1
        if not determinant > 0 or abs(g0) + abs(g1) < 1e-13:
            break
        step = (h0 * g1 - h1 * g0) / determinant, (h2 * g0 - h1 * g1) / determinant
        size = 1.0
        while size > 1e-10:  # halved until the loss falls, which far from the minimum a whole step may not achieve
            new = _cross_entropy(x, slope - size * step[0], shift - size * step[1], target, weight)
            if new <= loss:
                break
            size /= 2
        else:
            break
        slope, shift, loss = slope - size * step[0], shift - size * step[1], new
    return slope / float(spread), -shift - slope * float(centre / spread)


def _cross_entropy(x: Tensor, slope: float, shift: float, target: Tensor, weight: Tensor) -> float:
    """Weighted cross-entropy of the targets with σ(slope · x + shift)."""
    logit = slope * x + shift
    return float((weight * (torch.nn.functional.softplus(logit) - target * logit)).sum())


def nll(positive: Float64[Tensor, " n"], negative: Float64[Tensor, " m"]) -> float:
    """Balanced negative log-likelihood of positive and negative pairs' log-odds, in nats."""
    softplus = torch.nn.functional.softplus
    return float(softplus(-positive).mean() + softplus(negative).mean()) / 2


def ece(positive: Float64[Tensor, " n"], negative: Float64[Tensor, " m"], *, bins: int = CALIBRATION_BINS) -> float:
    """Balanced expected calibration error of log-odds: Σ_bins |Σ w (y - p)|, over bins of equal width in p.

    Source: Guo et al. 2017, arXiv 1706.04599, eq. 3.
    """
    p = torch.sigmoid(torch.cat([positive, negative]))
    n, m = len(positive), len(negative)
    weight = torch.cat([p.new_full((n,), 0.5 / n), p.new_full((m,), 0.5 / m)])
    truth = torch.cat([p.new_ones(n), p.new_zeros(m)])
    gap = p.new_zeros(bins).index_add_(0, (p * bins).long().clamp(max=bins - 1), weight * (truth - p))
    return float(gap.abs().sum())
