"""Chains that correct the error of a finite step: samples of exp(-E) exactly, in the limit of many steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_ebm.generative.samplers.chain import (
    Chains,
    EnergyFunction,
    Limits,
    each,
    energy_and_gradient,
    mean_norm,
    require_positive,
    require_precision,
    require_steps,
)


@dataclass(frozen=True, kw_only=True)
class MALA:
    """Metropolis-adjusted Langevin: a Langevin proposal, accepted with probability min(1, exp(a)); exact at T = 1.

        a = E(x) - E(x') - ‖x - x' + s ∇E(x')‖² / (4 s) + ‖x' - x + s ∇E(x)‖² / (4 s)

    It is HMC of one leapfrog of ε = √(2 s), and computed as such: a is then the change of -H.
    Outside the limits the density is zero, so such proposals are rejected. One forward and backward a step, as SGLD.
    Roberts and Tweedie 1996.

    Attributes:
        step_size: s; the noise is √(2 s).
        steps: Steps a call.
        limits: Of the density's support; None: unbounded.
    """

    step_size: float
    steps: int = 20
    limits: Limits | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        require_positive(step_size=self.step_size)
        require_steps(self.steps, self.limits)

    @property
    def temperature(self) -> float:
        """1."""
        return 1.0

    def __call__(
        self,
        energy: EnergyFunction,
        x: Float[Tensor, "n ..."],
        *,
        generator: torch.Generator | None = None,
        age: Tensor | None = None,
    ) -> Chains:
        """Chains from x, as in `SGLD`; their age does nothing."""
        return _trajectories(energy, x, math.sqrt(2 * self.step_size), 1, self.steps, self.limits, generator)


@dataclass(frozen=True, kw_only=True)
class HMC:
    """Hamiltonian Monte Carlo: fresh momenta of unit mass, leapfrog, accepted with min(1, exp(H(x, p) - H(x', p'))).

    H = E(x) + ‖p‖²/2; exact at T = 1. `leapfrog` gradients a step. Neal 2011, arXiv 1206.1901.

    Attributes:
        step_size: ε of the leapfrog; one leapfrog is MALA with s = ε²/2.
        leapfrog: Leapfrogs a trajectory.
        steps: Trajectories a call.
        limits: Of the density's support: trajectories that end outside are rejected; None: unbounded.
    """

    step_size: float
    leapfrog: int = 10
    steps: int = 10
    limits: Limits | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        require_positive(step_size=self.step_size)
        require_steps(self.steps, self.limits)
        if self.leapfrog < 1:
            raise ValueError(f"leapfrog must be >= 1, got {self.leapfrog}")

    @property
    def temperature(self) -> float:
        """1."""
        return 1.0

    def __call__(
        self,
        energy: EnergyFunction,
        x: Float[Tensor, "n ..."],
        *,
        generator: torch.Generator | None = None,
        age: Tensor | None = None,
    ) -> Chains:
        """Chains from x, as in `SGLD`; their age does nothing."""
        return _trajectories(energy, x, self.step_size, self.leapfrog, self.steps, self.limits, generator)


def _trajectories(
    energy: EnergyFunction,
    x: Tensor,
    e: float,
    leapfrog: int,
    steps: int,
    limits: Limits | None,
    generator: torch.Generator | None,
) -> Chains:
    require_precision(x)
    x = x.detach()
    value, gradient = energy_and_gradient(energy, x)
    accepted = torch.zeros_like(value)
    for _ in range(steps):
        momentum = torch.empty_like(x).normal_(generator=generator)
        kinetic = _squares(momentum) / 2
        proposal, value_there, gradient_there = x, value, gradient
        for _ in range(leapfrog):
            momentum.add_(gradient_there, alpha=-e / 2)
            proposal = proposal.add(momentum, alpha=e)
            value_there, gradient_there = energy_and_gradient(energy, proposal)
            momentum.add_(gradient_there, alpha=-e / 2)
        accept = _accept(value + kinetic - value_there - _squares(momentum) / 2, proposal, limits, generator)
        accepted += accept
        x, gradient = (torch.where(each(accept, x), a, b) for a, b in ((proposal, x), (gradient_there, gradient)))
        value = torch.where(accept, value_there, value)
    return Chains(x, e * e / 2 * mean_norm(gradient), accepted.mean() / steps)


def _squares(x: Tensor) -> Tensor:
    return x.flatten(1).square().sum(1)


def _accept(log_ratio: Tensor, proposal: Tensor, limits: Limits | None, generator: torch.Generator | None) -> Tensor:
    """Metropolis; a proposal whose ratio is not a number is rejected."""
    uniform = torch.empty_like(log_ratio).uniform_(generator=generator)
    accept = uniform.log() < log_ratio
    if limits is not None:
        flat = proposal.flatten(1)
        accept &= (flat.amin(1) >= limits[0]) & (flat.amax(1) <= limits[1])
    return accept
