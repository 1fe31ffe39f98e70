"""Losses of an energy of images: functions of one update's batch, here those that compare data with chains.

The gradient of the likelihood is E_data[∂E] - E_model[∂E], the second mean from chains (`MaximumLikelihood`). Where the
chains start names the method: the data, CD-k (Hinton 2002); where they last ended, PCD (Tieleman 2008); noise each
time, short-run (Nijkamp et al. 2019, arXiv 1904.09770). JEM is a classifier plus this loss on its free energy, and
EBCLR is NT-Xent plus .1 times this loss on the joint head: each a sum of an objective and this. `sampling_free.py` has
losses without chains.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_ebm.generative.heads import NormHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.chain import EnergyFunction
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
