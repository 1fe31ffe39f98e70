"""How an energy of images is trained: each loss is a function of one update's batch, and a config names it.

By maximum likelihood, whose gradient is E_data[∂E] - E_model[∂E], the second mean from chains (`MaximumLikelihood`).
Where the chains start names the method: the data, CD-k (Hinton 2002); where they last ended, PCD (Tieleman 2008); noise
each time, short-run (Nijkamp et al. 2019, arXiv 1904.09770). JEM is a classifier plus this loss on its free energy, and
EBCLR is NT-Xent plus .1 times this loss on the joint head: each a sum of an objective and this.

Or without chains: by the score (`DenoisingScore`, `SlicedScore`), or against noise (`NoiseContrastiveDensity`,
`ConditionalNoiseContrastive`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.generative.heads import NormHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.chain import EnergyFunction, each
from ssl_ebm.generative.samplers.replay import uniform_noise
from ssl_ebm.objectives import Step


@dataclass(frozen=True, kw_only=True)
class BatchForLoss:
    """The images, energies and chains of one update; every loss takes some of them.

    Attributes:
        energy: E, with gradients to its parameters.
        x: Data.
        positive: E(x), or E⁺.
        embedding: What E's head reads of x, computed already.
        chains: Images where chains ended, constants; None: the loss uses none.
        negative: E of them, or E⁻.
        past: Earlier chains, where they persist.
        latent: Projections of another view of x, detached; None: there is one view.
        log_normalizer: A parameter, where the loss learns one.
        freeze: Makes a context in which the parameters of E are constant.
        step_size: s of the sampler's steps.
        noise: σ of the sampler's steps.
        generator: Of all random numbers.
    """

    energy: EnergyFunction
    x: Float[Tensor, "n ..."]
    positive: Float[Tensor, " n"]
    embedding: Float[Tensor, "n ..."] | None = None
    chains: Float[Tensor, "m ..."] | None = None
    negative: Float[Tensor, " m"] | None = None
    past: Float[Tensor, "p ..."] | None = None
    latent: Float[Tensor, "n k"] | None = None
    log_normalizer: Float[Tensor, ""] | None = None
    freeze: Callable[[], AbstractContextManager[None]] = nullcontext
    step_size: float = 0.0
    noise: float = 0.0
    generator: torch.Generator | None = None


class Loss(ABC):
    """A loss of an energy of images. Subclasses are frozen dataclasses of its constants.

    Attributes:
        needs_chains: True if it compares data with images where chains ended.
    """

    needs_chains: bool = False

    @abstractmethod
    def __call__(self, batch: BatchForLoss) -> Step:
        """What to minimise, and detached terms to log."""


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood(Loss):
    """L = mean E⁺ - mean E⁻ + α (mean E⁺² + mean E⁻²): CD-k, PCD, short-run, by where the chains of E⁻ start.

    The penalty keeps energies near zero, which the difference leaves free (Du and Mordatch 2019, arXiv 1903.08689).

    Attributes:
        energy_penalty: α.
        divergence_weight: Factor of `chain_divergence`; 1 in improved CD. 0: it is not computed.

    Raises:
        ValueError: α is negative.
    """

    energy_penalty: float = 0.0
    divergence_weight: float = 0.0
    needs_chains = True

    def __post_init__(self) -> None:
        if not self.energy_penalty >= 0:
            raise ValueError(f"energy_penalty must be >= 0, got {self.energy_penalty}")

    def __call__(self, batch: BatchForLoss) -> Step:
        """L."""
        positive, negative = batch.positive, batch.negative
        assert negative is not None
        loss = positive.mean() - negative.mean()
        terms = {"energy_data": positive.detach().mean(), "energy_chains": negative.detach().mean()}
        if self.energy_penalty:
            loss = loss + self.energy_penalty * (positive.square().mean() + negative.square().mean())
        if self.divergence_weight:
            divergence = chain_divergence(batch)
            loss, terms = loss + self.divergence_weight * divergence.loss, terms | divergence.terms
        return Step(loss, terms)


def chain_divergence(batch: BatchForLoss) -> Step:
    """The term that contrastive divergence leaves out: KL from where chains end to the model, through their last step.

        x' = x - s ∇E_θ(x) + σ ξ,   L = mean E_θ̄(x') - mean log min_j ‖x' - past_j‖

    θ̄ is constant: L lowers the energy that the dynamics reaches by changing the dynamics. The second part, where there
    are past chains, is minus the nearest-neighbour estimate of the entropy of x', up to constants and the factor of the
    dimension. Du et al. 2021, arXiv 2012.01316, eq. 7 to 9.
    """
    assert batch.chains is not None
    x = batch.chains.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(batch.energy(x).sum(), x, create_graph=True)
    moved = x - batch.step_size * gradient + batch.noise * torch.empty_like(x).normal_(generator=batch.generator)
    with batch.freeze():
        loss = batch.energy(moved).mean()
    terms = {"chain_energy": loss.detach()}
    if batch.past is not None:
        nearest = torch.cdist(moved.flatten(1), batch.past.detach().flatten(1)).amin(1)
        entropy = nearest.clamp(min=torch.finfo(x.dtype).eps).log().mean()
        loss = loss - entropy
        terms["chain_entropy"] = entropy.detach()
    return Step(loss, terms)


@dataclass(frozen=True, kw_only=True)
class LatentGuided(Loss):
    """CLEL: mean E(x, z) - mean E⁻, where z is the image's contrastive embedding, for the norm head.

    E(x, z) - E(x) is the head's alignment. The chains' z is drawn from p(z | x), whose mean points along g(f(x)): its
    part of the gradient is zero, as a unit vector's change is orthogonal to it. Lee et al. 2023, arXiv 2303.03023; see
    `NormHead`.

    Attributes:
        energy_penalty: As in `MaximumLikelihood`.
    """

    energy_penalty: float = 0.0
    needs_chains = True

    def __post_init__(self) -> None:
        MaximumLikelihood(energy_penalty=self.energy_penalty)

    def __call__(self, batch: BatchForLoss) -> Step:
        """The loss.

        Raises:
            ValueError: Another head, or one view only.
        """
        if not (isinstance(batch.energy, ImageEnergy) and isinstance(batch.energy.head, NormHead)):
            raise ValueError("generative.loss latent_guided is CLEL's: it needs generative.head=norm")
        if batch.latent is None or batch.embedding is None:
            raise ValueError("generative.loss latent_guided takes z from a second view: set views.views=2")
        marginal = MaximumLikelihood(energy_penalty=self.energy_penalty)(batch)
        alignment = batch.energy.head.alignment(batch.embedding, batch.latent).mean()
        return Step(marginal.loss + alignment, marginal.terms | {"alignment": alignment.detach()})


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
        terms = _energies_of_noise(positive, negative) | {"log_normalizer": log_normalizer.detach()}
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
        return Step(2 * F.softplus(positive - negative).mean(), _energies_of_noise(positive, negative))


def _energies_of_noise(positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
    return {"energy_data": positive.detach().mean(), "energy_noise": negative.detach().mean()}
