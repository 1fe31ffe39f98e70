"""Chains that correct the error of a finite step: samples of exp(-E) exactly, in the limit of many steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.generative.samplers.chain import (
    EnergyFunction,
    Limits,
    Sampler,
    State,
    each,
    energy_and_gradient,
    require_positive,
    require_steps,
)


class Metropolis(Sampler):
    """Samplers that follow a trajectory of leapfrogs and accept its end with probability min(1, exp(H - H')).

    H = E(x) + ‖p‖²/2 with fresh momenta p of unit mass at every step; exact at T = 1. The density is zero outside the
    limits, so trajectories that end there are rejected, as are those whose H' is not a number.

    Attributes:
        leapfrog: Leapfrogs of a trajectory.
        limits: Of the density's support; None: unbounded.
    """

    leapfrog: int
    limits: Limits | None

    @property
    @abstractmethod
    def epsilon(self) -> float:
        """ε, the time that a leapfrog takes."""

    def start(self, energy: EnergyFunction, x: Tensor, age: Tensor | None) -> State:
        """Chains with the energy and the gradient where they are; their age does nothing."""
        value, gradient = energy_and_gradient(energy, x)
        return State(x, gradient, self.epsilon**2 / 2, value, torch.zeros_like(value))

    def step(self, energy: EnergyFunction, state: State, generator: torch.Generator | None, share: float) -> State:
        """One trajectory, at its end if that is accepted."""
        assert state.gradient is not None and state.energy is not None and state.accepted is not None
        momentum = torch.empty_like(state.x).normal_(generator=generator)
        before = state.energy + _kinetic(momentum)
        x, value, gradient = state.x, state.energy, state.gradient
        for _ in range(self.leapfrog):
            momentum.add_(gradient, alpha=-self.epsilon / 2)
            x = x.add(momentum, alpha=self.epsilon)
            value, gradient = energy_and_gradient(energy, x)
            momentum.add_(gradient, alpha=-self.epsilon / 2)
        uniform = torch.empty_like(value).uniform_(generator=generator)
        accept = uniform.log() < before - value - _kinetic(momentum)
        if self.limits is not None:
            flat = x.flatten(1)
            accept &= (flat.amin(1) >= self.limits[0]) & (flat.amax(1) <= self.limits[1])
        chains = each(accept, x)
        return state._replace(
            x=torch.where(chains, x, state.x),
            gradient=torch.where(chains, gradient, state.gradient),
            energy=torch.where(accept, value, state.energy),
            accepted=state.accepted + accept,
        )


def _kinetic(momentum: Tensor) -> Tensor:
    return momentum.flatten(1).square().sum(1) / 2


@dataclass(frozen=True, kw_only=True)
class MALA(Metropolis):
    """Metropolis-adjusted Langevin: a Langevin proposal, accepted with probability min(1, exp(a)); exact at T = 1.

        a = E(x) - E(x') - ‖x - x' + s ∇E(x')‖² / (4 s) + ‖x' - x + s ∇E(x)‖² / (4 s)

    It is HMC of one leapfrog of ε = √(2 s), and computed as such: a is then H - H'. One forward and backward a step, as
    SGLD. Roberts and Tweedie 1996.

    Attributes:
        step_size: s; the noise is √(2 s).
    """

    step_size: float
    steps: int = 20
    limits: tuple[float, float] | None = (0.0, 1.0)
    leapfrog = 1

    def __post_init__(self) -> None:
        require_positive(step_size=self.step_size)
        require_steps(self.steps, self.limits)

    @property
    def epsilon(self) -> float:
        """√(2 s)."""
        return math.sqrt(2 * self.step_size)


@dataclass(frozen=True, kw_only=True)
class HMC(Metropolis):
    """Hamiltonian Monte Carlo; `leapfrog` gradients a step. Neal 2011, arXiv 1206.1901.

    Attributes:
        step_size: ε of the leapfrog; one leapfrog is MALA with s = ε²/2.
        steps: Trajectories of a call.
    """

    step_size: float
    leapfrog: int = 10
    steps: int = 10
    limits: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        require_positive(step_size=self.step_size)
        require_steps(self.steps, self.limits)
        if self.leapfrog < 1:
            raise ValueError(f"leapfrog must be >= 1, got {self.leapfrog}")

    @property
    def epsilon(self) -> float:
        """`step_size`."""
        return self.step_size
