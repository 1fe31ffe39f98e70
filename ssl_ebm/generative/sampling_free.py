"""Losses of an energy of images that need no chains: by the score of the data, or against noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.generative.losses import BatchForLoss, Loss
from ssl_ebm.generative.samplers.chain import each
from ssl_ebm.generative.samplers.replay import uniform_noise
from ssl_ebm.objectives import Step


@dataclass(frozen=True, kw_only=True)
class DenoisingScore(Loss):
    """L = ½ mean ‖σ ∇E(x + σ ε) - ε‖², with σ drawn for each image from a geometric series.

    The score of x + σε given x is -ε/σ and that of the model -∇E, hence the sign. With one σ the optimum is the energy
    of the data smoothed by N(0, σ²), not of the data; with several, one energy for all is a compromise between them (Li
    et al. 2019, arXiv 1910.07762). E must be twice differentiable, also beyond [0, 1], where noisy images are. Vincent
    2011; geometric σ as in Song and Ermon 2019, arXiv 1907.05600.

    Attributes:
        largest: σ of the first level, of pixels in [0, 1].
        smallest: σ of the last level.
        levels: Number of levels.

    Raises:
        ValueError: Not largest ≥ smallest > 0, or no level.
    """

    largest: float = 0.3
    smallest: float = 0.05
    levels: int = 5

    def __post_init__(self) -> None:
        if not (self.largest >= self.smallest > 0 and self.levels >= 1):
            raise ValueError(
                f"need largest >= smallest > 0 and levels >= 1, got {self.largest}, {self.smallest} and {self.levels}"
            )

    @property
    def noises(self) -> list[float]:
        """σ from the largest to the smallest in equal ratios."""
        ratio, last = self.smallest / self.largest, max(1, self.levels - 1)
        return [self.largest * ratio ** (level / last) for level in range(self.levels)]

    def __call__(self, batch: BatchForLoss) -> Step:
        """L."""
        x, generator = batch.x, batch.generator
        noises = torch.tensor(self.noises, dtype=x.dtype, device=x.device)
        sigma = each(noises[torch.randint(self.levels, (len(x),), generator=generator, device=x.device)], x)
        epsilon = torch.empty_like(x).normal_(generator=generator)
        noisy = (x.detach() + sigma * epsilon).requires_grad_()
        (gradient,) = torch.autograd.grad(batch.energy(noisy).sum(), noisy, create_graph=True)
        loss = (sigma * gradient - epsilon).flatten(1).square().sum(1).mean() / 2
        return Step(loss, {"denoising": loss.detach()})


@dataclass(frozen=True, kw_only=True)
class SlicedScore(Loss):
    """L = mean ½‖∇E‖² - vᵀ ∇²E v with v = ±1: unbiased for the implicit loss ½‖∇E‖² - tr ∇²E.

    The variance-reduced form of Song et al. 2019, arXiv 1905.07088, eq. 8; the trace is a sum, not divided by d. E must
    be twice differentiable (not ReLU, whose second derivative is zero).

    Attributes:
        slices: Random vectors v of each image.

    Raises:
        ValueError: There is no slice.
    """

    slices: int = 1

    def __post_init__(self) -> None:
        if self.slices < 1:
            raise ValueError(f"slices must be >= 1, got {self.slices}")

    def __call__(self, batch: BatchForLoss) -> Step:
        """L."""
        x = batch.x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(batch.energy(x).sum(), x, create_graph=True)
        squares = gradient.flatten(1).square().sum(1).mean() / 2
        trace = torch.zeros_like(squares)
        for _ in range(self.slices):
            v = torch.empty_like(x).bernoulli_(generator=batch.generator).mul_(2).sub_(1)
            (product,) = torch.autograd.grad((gradient * v).sum(), x, create_graph=True)
            trace = trace + (product * v).flatten(1).sum(1).mean() / self.slices
        return Step(squares - trace, {"score_squared": squares.detach(), "score_divergence": -trace.detach()})


@dataclass(frozen=True, kw_only=True)
class NoiseContrastiveDensity(Loss):
    """Data told from noise by log p_θ - log p_n, where log p_θ = -E - c: at the optimum c = log Z.

        mean softplus(-G(x⁺)) + ν mean softplus(G(x⁻)),   G = -E - c - log p_n - log ν,   ν = m / n

    In a run the noise is uniform, as many images as data: its density on [0, 1]^d is 1. Gutmann and Hyvärinen 2010,
    2012.
    """

    def __call__(self, batch: BatchForLoss) -> Step:
        """The loss against uniform noise."""
        assert batch.log_normalizer is not None
        noise = batch.energy(uniform_noise(batch.x, batch.generator))
        zero = torch.zeros_like(noise)
        return self.against(batch.positive, noise, zero, zero, batch.log_normalizer)

    @staticmethod
    def against(
        positive: Float[Tensor, " n"],
        negative: Float[Tensor, " m"],
        positive_log_noise: Float[Tensor, " n"],
        negative_log_noise: Float[Tensor, " m"],
        log_normalizer: Float[Tensor, ""],
    ) -> Step:
        """The loss of E and log p_n of n data and m noise samples, with c = `log_normalizer`."""
        ratio = len(negative) / len(positive)
        prior = log_normalizer + math.log(ratio)
        data = F.softplus(positive + prior + positive_log_noise).mean()
        noise = F.softplus(-negative - prior - negative_log_noise).mean()
        terms = _mean_energies(positive, negative) | {"log_normalizer": log_normalizer.detach()}
        return Step(data + ratio * noise, terms)


@dataclass(frozen=True, kw_only=True)
class ConditionalNoiseContrastive(Loss):
    """An image told from its noisy copy: 2 mean softplus(E(x) - E(x + σ ε)); Z cancels, as does the symmetric noise.

    Ceylan and Gutmann 2018, arXiv 1806.03664.

    Attributes:
        noise: σ of the noisy copies, of pixels in [0, 1].

    Raises:
        ValueError: σ is not positive.
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        if not self.noise > 0:
            raise ValueError(f"noise must be > 0, got {self.noise}")

    def __call__(self, batch: BatchForLoss) -> Step:
        """The loss."""
        noisy = batch.x + self.noise * torch.empty_like(batch.x).normal_(generator=batch.generator)
        positive, negative = batch.energy(torch.cat([batch.x, noisy])).chunk(2)
        return Step(2 * F.softplus(positive - negative).mean(), _mean_energies(positive, negative))


def _mean_energies(positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
    return {"energy_data": positive.detach().mean(), "energy_noise": negative.detach().mean()}
