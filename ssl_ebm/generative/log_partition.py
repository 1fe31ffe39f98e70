"""log Z by annealed importance sampling: chains move from a density of known Z to the model, through tempered ones.

    log Z₁ ≈ log Z₀ + log mean exp(w),   w = Σ_t (β_{t+1} - β_t) (E₀(x_t) - E₁(x_t)),   E_β = (1 - β) E₀ + β E₁

exp(w) is unbiased, so log Z is low on average (Jensen); the standard error is that of the mean of exp(w), to first
order. Neal 2001, physics/9803008; for RBMs Salakhutdinov and Murray 2008.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from ssl_ebm.generative.rbm.machine import RBM
from ssl_ebm.generative.samplers.chain import EnergyFunction
from ssl_ebm.generative.samplers.metropolis import HMC, MALA


class LogPartition(NamedTuple):
    """An estimate of log Z, with its error."""

    value: float
    standard_error: float
    effective_samples: float  # (Σ e^w)² / Σ e^2w: a few of many means that the estimate hangs on a few chains


def linear_path(temperatures: int) -> list[float]:
    """β from 0 to 1 in equal steps.

    Raises:
        ValueError: There is no step.
    """
    if temperatures < 1:
        raise ValueError(f"temperatures must be >= 1, got {temperatures}")
    return [k / temperatures for k in range(temperatures + 1)]


def _estimate(log_reference: float, weights: Float[Tensor, " chains"]) -> LogPartition:
    n = len(weights)
    relative = (weights - weights.max()).double().exp()
    mean = relative.mean()
    value = log_reference + float(weights.max()) + math.log(float(mean))
    effective = relative.sum().square() / relative.square().sum()
    return LogPartition(value, float(relative.std() / mean) / math.sqrt(n), float(effective))


@torch.no_grad()
def rbm_log_partition(
    rbm: RBM,
    *,
    chains: int = 1000,
    betas: Sequence[float] | None = None,
    on: Float[Tensor, " visible"] | None = None,
    generator: torch.Generator | None = None,
) -> LogPartition:
    """An RBM's log Z, from independent units at β = 0; one Gibbs sweep at each temperature.

    Args:
        rbm: Any size.
        on: Probability of each visible unit at β = 0, such as its mean over the data, which is nearer to a trained
            model than fair coins; None: ½.
        chains: M.
        betas: From 0 to 1; None: 500 equal steps.
        generator: On the RBM's device.
    """
    path = list(betas) if betas is not None else linear_path(500)
    _require_path(path)
    visible, hidden = rbm.weight.shape
    odds = (torch.full((visible,), 0.5) if on is None else on).to(rbm.weight).logit()
    machine = rbm.tempered(path[0], odds)
    v = torch.bernoulli(odds.sigmoid().expand(chains, visible), generator=generator)
    weights = torch.zeros(chains, dtype=torch.float64, device=rbm.weight.device)
    for beta in tqdm(path[1:], desc="annealing", unit="β", leave=False, disable=None):
        before, machine = machine(v), rbm.tempered(beta, odds)
        weights += before - machine(v)
        v = machine.gibbs(v, generator=generator)
    return _estimate(hidden * math.log(2) + float(F.softplus(odds).double().sum()), weights)


def gaussian_log_partition(
    energy: EnergyFunction,
    shape: tuple[int, ...],
    *,
    spread: float = 1.0,
    mean: float = 0.0,
    chains: int = 1000,
    betas: Sequence[float] | None = None,
    transition: MALA | HMC,
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float64,
) -> LogPartition:
    """Estimate log Z of an energy of real vectors or images, from a Gaussian N(mean, spread²) at β = 0.

    Args:
        energy: From [n, *shape] to [n]; networks frozen.
        shape: Of one sample.
        spread: Of the Gaussian; wide enough to cover the model.
        mean: Of the Gaussian.
        chains: M.
        betas: From 0 to 1; None: 200 equal steps.
        transition: At each temperature; with the limits of the energy's support.
        generator: On the CPU or the energy's device.
        dtype: Of the samples.

    Raises:
        ValueError: `spread` is not positive, `betas` do not rise from 0 to 1, or the transition has limits, which a
            Gaussian does not.
    """
    path = list(betas) if betas is not None else linear_path(200)
    _require_path(path)
    if not spread > 0:
        raise ValueError(f"spread must be > 0, got {spread}")
    if transition.limits is not None:
        raise ValueError(
            f"a Gaussian reference has no limits: give the transition limits=None, got {transition.limits}"
        )
    device = None if generator is None else generator.device

    def reference(x: Tensor) -> Tensor:
        return (x - mean).flatten(1).square().sum(1) / (2 * spread**2)

    x = mean + spread * torch.randn(chains, *shape, dtype=dtype, device=device, generator=generator)
    weights = torch.zeros(chains, dtype=torch.float64, device=device)
    for below, above in zip(path, path[1:], strict=False):
        with torch.no_grad():
            weights += (above - below) * (reference(x) - energy(x))
        x = transition(_between(reference, energy, above), x, generator=generator).x
    return _estimate(math.prod(shape) / 2 * math.log(2 * math.pi * spread**2), weights)


def _between(first: EnergyFunction, last: EnergyFunction, beta: float) -> EnergyFunction:
    return lambda x: (1 - beta) * first(x) + beta * last(x)


def _require_path(betas: Sequence[float]) -> None:
    if len(betas) < 2 or betas[0] != 0 or betas[-1] != 1 or any(a >= b for a, b in zip(betas, betas[1:], strict=False)):
        raise ValueError(f"betas must rise from 0 to 1, got {len(betas)} values from {betas[0]:g} to {betas[-1]:g}")
