"""The losses as a run uses them: each takes what a batch offers, and says what it needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.generative import losses
from ssl_ebm.generative.heads import NormHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.replay import uniform_noise
from ssl_ebm.objectives import Step


@dataclass(frozen=True, kw_only=True)
class BatchForLoss:
    """What there is of a batch.

    Attributes:
        energy: E, with its gradient.
        x: Data.
        embedding: What the head reads of them, computed already.
        positive: E(x).
        chains: Where chains ended; None: the estimator uses none.
        latent: Projections of another view of the data, detached; None: there is one view.
        past: Earlier chains, where they persist.
        log_normalizer: A parameter, where the estimator learns one.
        freeze: Makes a context in which parameters are constant.
        step_size: Of the sampler's steps.
        noise: Of the sampler's steps.
        generator: Of everything random.
    """

    energy: ImageEnergy
    x: Float[Tensor, "n c h w"]
    embedding: Float[Tensor, "n ..."]
    positive: Float[Tensor, " n"]
    chains: Float[Tensor, "m c h w"] | None
    latent: Float[Tensor, "n k"] | None
    past: Float[Tensor, "p c h w"] | None
    log_normalizer: nn.Parameter | None
    freeze: Callable[[], AbstractContextManager[None]]
    step_size: float
    noise: float
    generator: torch.Generator


@dataclass(frozen=True, kw_only=True)
class MaximumLikelihood:
    """`losses.maximum_likelihood`, and `losses.chain_divergence` where its weight is not 0.

    Attributes:
        energy_penalty: α of the squared energies.
        divergence_weight: Of the term through the chains' last step; 1 in improved CD. 0: not computed.
    """

    energy_penalty: float = 0.0
    divergence_weight: float = 0.0
    needs_chains = True

    def __call__(self, offer: BatchForLoss) -> tuple[Step, Tensor | None]:
        """The step, and E where chains ended."""
        assert offer.chains is not None
        negative = offer.energy(offer.chains)
        step = losses.maximum_likelihood(offer.positive, negative, energy_penalty=self.energy_penalty)
        if not self.divergence_weight:
            return step, negative
        divergence = losses.chain_divergence(
            offer.energy,
            offer.chains,
            offer.freeze(),
            step_size=offer.step_size,
            noise=offer.noise,
            others=offer.past,
            generator=offer.generator,
        )
        loss = step.loss + self.divergence_weight * divergence.loss
        return Step(loss, step.terms | divergence.terms), negative


@dataclass(frozen=True, kw_only=True)
class LatentGuided:
    """`losses.latent_guided`: CLEL, for the norm head.

    Attributes:
        energy_penalty: α of the squared energies.
    """

    energy_penalty: float = 0.0
    needs_chains = True

    def __call__(self, offer: BatchForLoss) -> tuple[Step, Tensor | None]:
        """The step, and E where chains ended."""
        head = offer.energy.head
        if not isinstance(head, NormHead):
            raise ValueError("generative.loss latent_guided is CLEL's: it needs generative.head=norm")
        if offer.latent is None:
            raise ValueError("generative.loss latent_guided takes z from a second view: set views.views=2")
        assert offer.chains is not None
        negative = offer.energy(offer.chains)
        alignment = head.alignment(offer.embedding, offer.latent)
        step = losses.latent_guided(offer.positive, alignment, negative, energy_penalty=self.energy_penalty)
        return step, negative


@dataclass(frozen=True, kw_only=True)
class DenoisingScore:
    """`losses.denoising_score_matching` with geometric noises.

    Attributes:
        largest: σ of the first level, of pixels in [0, 1].
        smallest: σ of the last level.
        levels: How many.
    """

    largest: float = 0.3
    smallest: float = 0.05
    levels: int = 5
    needs_chains = False

    def __post_init__(self) -> None:
        losses.geometric_noises(self.largest, self.smallest, self.levels)

    def __call__(self, offer: BatchForLoss) -> tuple[Step, Tensor | None]:
        """The step; no chains."""
        noises = losses.geometric_noises(self.largest, self.smallest, self.levels)
        return losses.denoising_score_matching(offer.energy, offer.x, noises=noises, generator=offer.generator), None


@dataclass(frozen=True, kw_only=True)
class SlicedScore:
    """`losses.sliced_score_matching`.

    Attributes:
        slices: Random vectors an image.
    """

    slices: int = 1
    needs_chains = False

    def __call__(self, offer: BatchForLoss) -> tuple[Step, Tensor | None]:
        """The step; no chains."""
        step = losses.sliced_score_matching(offer.energy, offer.x, slices=self.slices, generator=offer.generator)
        return step, None


@dataclass(frozen=True, kw_only=True)
class NoiseContrastive:
    """`losses.noise_contrastive` against uniform noise, whose density on [0, 1]^d is 1: c → log Z over the images."""

    needs_chains = False

    def __call__(self, offer: BatchForLoss) -> tuple[Step, Tensor | None]:
        """The step; no chains."""
        assert offer.log_normalizer is not None
        noise = offer.energy(uniform_noise(offer.x, offer.generator))
        zero = torch.zeros_like(noise)
        return losses.noise_contrastive(offer.positive, noise, zero, zero, offer.log_normalizer), None


@dataclass(frozen=True, kw_only=True)
class ConditionalNoiseContrastive:
    """`losses.conditional_noise_contrastive`.

    Attributes:
        noise: σ of the noisy copies, of pixels in [0, 1].
    """

    noise: float = 0.1
    needs_chains = False

    def __call__(self, offer: BatchForLoss) -> tuple[Step, Tensor | None]:
        """The step; no chains."""
        step = losses.conditional_noise_contrastive(offer.energy, offer.x, noise=self.noise, generator=offer.generator)
        return step, None


Estimator = (
    MaximumLikelihood | LatentGuided | DenoisingScore | SlicedScore | NoiseContrastive | ConditionalNoiseContrastive
)
