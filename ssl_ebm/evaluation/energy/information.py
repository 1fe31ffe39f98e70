"""Mutual information of two views in nats: lower bounds, of different variance and bias, from an estimate of -PMI."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_ebm.evaluation.energy.calibration import fit_odds, split_kinds


def information(energies: Float[Tensor, "n n"]) -> dict[str, float | None]:
    """The bounds `infonce`, `nwj` and `jsd` on the mutual information of two views, from one matrix of energies.

    `pairs` is n, the K of InfoNCE, whose bound is at most log n. A bound is None where it is lower than a number can
    be: of an energy that is far from -PMI.

    Args:
        energies: E(a_i, b_j) of held-out images, an estimate of -PMI in nats.

    Raises:
        ValueError: There are fewer than four images.
    """
    if len(energies) < 4:
        raise ValueError(f"energies must be of at least four images, two for each half, got {len(energies)}")
    bounds = {"infonce": infonce(energies), "nwj": nwj(*split_kinds(energies)), "jsd": jsd(energies)}
    return {name: value if math.isfinite(value) else None for name, value in bounds.items()} | {"pairs": len(energies)}


def infonce(energies: Float[Tensor, "n n"]) -> float:
    """InfoNCE's bound mean_i [-E_ii - log mean_j exp(-E_ij)]; at most log n, blind to any c(a_i) (arXiv 1807.03748)."""
    scores = -energies.detach().double()
    return float((scores.diagonal() - torch.logsumexp(scores, 1)).mean()) + math.log(len(scores))


def nwj(positive: Float[Tensor, " n"], negative: Float[Tensor, " m"]) -> float:
    """The bound 1 - mean E⁺ - mean exp(-E⁻): unbiased, of a variance that grows with the information.

    It is E_p[T] - E_q[exp(T - 1)] of the critic T = 1 - E, which is tight where E = -PMI (Nguyen, Wainwright &
    Jordan 2010, arXiv 0809.0853; Poole et al. 2019, arXiv 1905.06922, eq. 3).
    """
    log_mean = torch.logsumexp(-negative, 0) - math.log(len(negative))
    return float(1 - positive.mean() - log_mean.exp())


def jsd(energies: Float[Tensor, "n n"]) -> float:
    """NWJ's bound of the critic that the Jensen-Shannon divergence prefers: β E + b, fitted as log-odds.

    The critic is fitted on one half of the images and the bound evaluated on the other, so that it stays a lower bound;
    the result is the mean of both ways round.

    Source: Poole et al. 2019, arXiv 1905.06922, section 2.3 (I_JS).
    """
    half = len(energies) // 2
    folds = [split_kinds(energies[part, part]) for part in (slice(half), slice(half, None))]
    total = 0.0
    for fit, (positive, negative) in zip(folds, reversed(folds), strict=True):
        beta, bias = fit_odds(*fit)
        total += nwj(beta * positive + bias, beta * negative + bias)
    return total / 2
