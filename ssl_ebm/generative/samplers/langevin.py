"""Samples of p(x) ∝ exp(-E(x)) by Langevin dynamics, all of one step form.

    x ← x - s ∇E(x) + σ ξ,   ξ ~ N(0, I),   effective temperature T = σ² / (2 s),

T = 1 is Langevin dynamics proper, T < 1 the tempered dynamics that image models are trained with. `metropolis.py`
corrects the error of a finite step.

An energy is a function from [n, ...] to [n]. Networks go into `frozen` first. Nothing is read back from the device
within a chain, and no memory is taken from step to step but the network's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_ebm.generative.samplers.chain import (
    Chains,
    EnergyFunction,
    Limits,
    each,
    mean_norm,
    require_positive,
    require_precision,
    require_steps,
)


@dataclass(frozen=True, kw_only=True)
class SGLD:
    """Langevin dynamics, proper or tempered; its stationary density is exp(-E / T) up to an error of order s.

    In use: JEM s = 1, σ = .01, 20 steps, the defaults; Du and Mordatch 10, .005, 60; improved CD 100, .001, 40; EBCLR
    .05, .01 with `young_noise` .05 for 3 updates, gradient ±1, 10 steps. A constant step has a bias: variance
    1/(k (1 - s k / 2)) for E = k x² / 2 at T = 1.

    Attributes:
        step_size: s.
        noise: σ.
        steps: Steps a call.
        gradient_clamp: Largest absolute value of each component of ∇E; None: as it is.
        limits: Values are clamped to them after every step; None: x is unbounded.
        young_noise: σ of a chain that was never updated, falling linearly to `noise` at age `mature`; None: `noise`.
        mature: Updates after which a chain is no longer young.
    """

    step_size: float = 1.0
    noise: float = 0.01
    steps: int = 20
    gradient_clamp: float | None = None
    limits: Limits | None = (0.0, 1.0)
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

    def __call__(
        self,
        energy: EnergyFunction,
        x: Float[Tensor, "n ..."],
        *,
        generator: torch.Generator | None = None,
        age: Tensor | None = None,
    ) -> Chains:
        """Chains from x, which is left as it is.

        Args:
            energy: [n, ...] to [n]; its networks frozen.
            x: Where they start.
            generator: Of the noise, on x's device.
            age: Updates that each chain had before; None: all are mature.

        Raises:
            TypeError: x has too little precision.
        """
        sigma: float | Tensor = self.noise
        if age is not None and self.young_noise is not None:
            youth = (1 - age.to(x.dtype) / self.mature).clamp(min=0)
            sigma = each(self.noise + (self.young_noise - self.noise) * youth, x)
        return _langevin(energy, x, [self.step_size] * self.steps, [sigma] * self.steps, self, generator)


@dataclass(frozen=True, kw_only=True)
class AnnealedSGLD:
    """Langevin dynamics whose step and noise fall geometrically: wide moves first, then fine ones.

        s_k = s_0 (s_1 / s_0)^(k / (K - 1)),   σ_k likewise

    Steps in proportion to σ² keep the temperature and refine the resolution, as noise-conditional scores are sampled
    (Song and Ermon 2019, arXiv 1907.05600); a constant step with a falling σ cools.

    Attributes:
        step_sizes: s of the first and of the last step.
        noises: σ of the first and of the last step.
        steps: K.
        gradient_clamp: As in `SGLD`.
        limits: As in `SGLD`.
    """

    step_sizes: tuple[float, float]
    noises: tuple[float, float]
    steps: int = 100
    gradient_clamp: float | None = None
    limits: Limits | None = (0.0, 1.0)

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

    def schedule(self) -> tuple[list[float], list[float]]:
        """s_k and σ_k."""
        shares = [k / max(1, self.steps - 1) for k in range(self.steps)]
        first, last = zip(self.step_sizes, self.noises, strict=True)
        step_sizes, noises = ([a * (b / a) ** share for share in shares] for a, b in zip(first, last, strict=True))
        return step_sizes, noises

    def __call__(
        self,
        energy: EnergyFunction,
        x: Float[Tensor, "n ..."],
        *,
        generator: torch.Generator | None = None,
        age: Tensor | None = None,
    ) -> Chains:
        """Chains from x, as in `SGLD`; their age does nothing."""
        step_sizes, noises = self.schedule()
        return _langevin(energy, x, step_sizes, noises, self, generator)


def _langevin(
    energy: EnergyFunction,
    x: Tensor,
    step_sizes: Sequence[float],
    noises: Sequence[float | Tensor],
    settings: SGLD | AnnealedSGLD,
    generator: torch.Generator | None,
) -> Chains:
    require_precision(x)
    clamp, limits = settings.gradient_clamp, settings.limits
    x, noise = x.detach().clone().requires_grad_(), torch.empty_like(x)
    gradient = noise
    for step_size, sigma in zip(step_sizes, noises, strict=True):
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(energy(x).sum(dtype=x.dtype), x)
        with torch.no_grad():
            if clamp is not None:
                gradient = gradient.clamp(-clamp, clamp)
            x.add_(gradient, alpha=-step_size)
            noise.normal_(generator=generator)
            if isinstance(sigma, Tensor):
                x.addcmul_(noise, sigma)
            else:
                x.add_(noise, alpha=sigma)
            if limits is not None:
                x.clamp_(*limits)
    return Chains(x.detach(), step_sizes[-1] * mean_norm(gradient))
