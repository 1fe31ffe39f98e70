"""Samples of p(x) ∝ exp(-E(x) / T) by Langevin dynamics.

    x ← x - s ∇E(x) + σ ξ,   ξ ~ N(0, I),   effective temperature T = σ² / (2 s),

T = 1 is Langevin dynamics proper, T < 1 the tempered dynamics that image models are trained with. `metropolis.py`
corrects the error of a finite step.
"""

from __future__ import annotations

import math
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


class Langevin(Sampler):
    """Samplers whose step is the one above.

    Attributes:
        gradient_clamp: Largest absolute value of each component of ∇E; None: as it is.
        limits: Values are clamped to them after every step; None: x is unbounded.
    """

    gradient_clamp: float | None
    limits: Limits | None

    def move(
        self,
        energy: EnergyFunction,
        state: State,
        generator: torch.Generator | None,
        *,
        step_size: float,
        noise: float | Tensor,
    ) -> State:
        """Chains after a step of size s and noise σ."""
        gradient = energy_and_gradient(energy, state.x)[1]
        if self.gradient_clamp is not None:
            gradient = gradient.clamp(-self.gradient_clamp, self.gradient_clamp)
        x = state.x.add(gradient, alpha=-step_size)
        normal = torch.empty_like(x).normal_(generator=generator)
        x = x.addcmul_(normal, noise) if isinstance(noise, Tensor) else x.add_(normal, alpha=noise)
        if self.limits is not None:
            x.clamp_(*self.limits)
        return state._replace(x=x, gradient=gradient, step_size=step_size)


@dataclass(frozen=True, kw_only=True)
class SGLD(Langevin):
    """Langevin dynamics, proper or tempered; its stationary density is exp(-E / T) up to an error of order s.

    In use: JEM s = 1, σ = .01, 20 steps, the defaults; Du and Mordatch 10, .005, 60; improved CD 100, .001, 40; EBCLR
    .05, .01 with `young_noise` .05 for 3 updates, gradient ±1, 10 steps. A constant step has a bias: variance
    1/(k (1 - s k / 2)) for E = k x² / 2 at T = 1.

    Attributes:
        step_size: s.
        noise: σ.
        young_noise: σ of a chain that was never updated, falling linearly to `noise` at age `mature`; None: `noise`.
        mature: Updates after which a chain is no longer young.
    """

    step_size: float = 1.0
    noise: float = 0.01
    steps: int = 20
    gradient_clamp: float | None = None
    limits: tuple[float, float] | None = (0.0, 1.0)
    young_noise: float | None = None
    mature: float = 3.0

    def __post_init__(self) -> None:
        require_positive(step_size=self.step_size, gradient_clamp=self.gradient_clamp, mature=self.mature)
        require_steps(self.steps, self.limits)
        for name in ("noise", "young_noise"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} must be finite and >= 0, got {value}")

    @classmethod
    def proper(cls, alpha: float, *, steps: int = 20, limits: Limits | None = (0.0, 1.0)) -> SGLD:
        """The survey's form s = α/2, σ = √α, at temperature 1."""
        require_positive(alpha=alpha)
        return cls(step_size=alpha / 2, noise=math.sqrt(alpha), steps=steps, limits=limits)

    @property
    def temperature(self) -> float:
        """T = σ² / (2 s) of mature chains."""
        return self.noise**2 / (2 * self.step_size)

    def start(self, energy: EnergyFunction, x: Tensor, age: Tensor | None) -> State:
        """Chains with the noise of their age."""
        if age is None or self.young_noise is None:
            return State(x)
        youth = (1 - age.to(x.dtype) / self.mature).clamp(min=0)
        return State(x, noise=each(self.noise + (self.young_noise - self.noise) * youth, x))

    def step(self, energy: EnergyFunction, state: State, generator: torch.Generator | None, share: float) -> State:
        """The same step at every `share`."""
        noise = self.noise if state.noise is None else state.noise
        return self.move(energy, state, generator, step_size=self.step_size, noise=noise)


@dataclass(frozen=True, kw_only=True)
class AnnealedSGLD(Langevin):
    """Langevin dynamics whose step and noise fall geometrically: wide moves first, then fine ones.

        s_k = s_0 (s_1 / s_0)^(k / (K - 1)),   σ_k likewise

    Steps in proportion to σ² keep the temperature and refine the resolution, as noise-conditional scores are sampled
    (Song and Ermon 2019, arXiv 1907.05600); a constant step with a falling σ cools.

    Attributes:
        step_sizes: s of the first and of the last step.
        noises: σ of the first and of the last step.
        steps: K.
    """

    step_sizes: tuple[float, float]
    noises: tuple[float, float]
    steps: int = 100
    gradient_clamp: float | None = None
    limits: tuple[float, float] | None = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name in ("step_sizes", "noises"):
            for value in getattr(self, name):
                require_positive(**{name: value})
        require_positive(gradient_clamp=self.gradient_clamp)
        require_steps(self.steps, self.limits)

    @property
    def temperature(self) -> float:
        """T = σ² / (2 s) of the last step."""
        return self.noises[1] ** 2 / (2 * self.step_sizes[1])

    def step(self, energy: EnergyFunction, state: State, generator: torch.Generator | None, share: float) -> State:
        """A step of s_k and σ_k, for k / (K - 1) = `share`."""
        step_size, noise = (first * (last / first) ** share for first, last in (self.step_sizes, self.noises))
        return self.move(energy, state, generator, step_size=step_size, noise=noise)
