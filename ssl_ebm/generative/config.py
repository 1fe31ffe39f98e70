"""The section `generative` of a run's config: an energy of images beside the joint embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ssl_ebm.generative.heads import FreeEnergyHead, JointHead, LogitsHead, NormHead, ScalarHead
from ssl_ebm.generative.losses import LatentGuided, Loss, MaximumLikelihood
from ssl_ebm.generative.samplers.chain import Sampler
from ssl_ebm.generative.samplers.gibbs import Gibbs
from ssl_ebm.generative.samplers.langevin import SGLD, AnnealedSGLD
from ssl_ebm.generative.samplers.metropolis import HMC, MALA
from ssl_ebm.generative.sampling_free import (
    ConditionalNoiseContrastive,
    DenoisingScore,
    NoiseContrastiveDensity,
    SlicedScore,
)
from ssl_ebm.registry import build, unknown_name

HEADS: dict[str, Callable[..., Any]] = {
    "scalar": ScalarHead,
    "logits": LogitsHead,
    "joint": JointHead,
    "norm": NormHead,
    "free_energy": FreeEnergyHead,
}
SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "sgld": SGLD,
    "annealed": AnnealedSGLD,
    "mala": MALA,
    "hmc": HMC,
    "gibbs": Gibbs,
}
LOSSES: dict[str, Callable[..., Loss]] = {
    "maximum_likelihood": MaximumLikelihood,
    "latent_guided": LatentGuided,
    "denoising": DenoisingScore,
    "sliced": SlicedScore,
    "noise_contrastive": NoiseContrastiveDensity,
    "conditional_noise_contrastive": ConditionalNoiseContrastive,
}
CHAINS = ("persistent", "noise", "data")


@dataclass(frozen=True, kw_only=True)
class ChainsConfig:
    """Where chains start, and how many there are.

    Attributes:
        start: persistent (PCD: a replay buffer), noise (short-run: uniform noise each time), data (CD-k).
        count: Chains an update; None: as many as images.
        size: Slots of the buffer.
        restart: Probability that a drawn chain starts anew from noise.
        flip: Mirror half of the drawn chains, so that they mix; for data that are as likely mirrored.
    """

    start: str = "persistent"
    count: int | None = None
    size: int = 10_000
    restart: float = 0.05
    flip: bool = False

    def __post_init__(self) -> None:
        if self.start not in CHAINS:
            raise ValueError(unknown_name("generative.chains.start", self.start, CHAINS))
        if self.count is not None and self.count < 1:
            raise ValueError(f"generative.chains.count must be >= 1 or null, got {self.count}")
        if self.size < 1 or not 0 <= self.restart <= 1:
            raise ValueError(
                f"generative.chains needs size >= 1 and restart in [0, 1], got {self.size} and {self.restart}"
            )


@dataclass(frozen=True, kw_only=True)
class GenerativeConfig:
    """An energy of images, trained along with the objective: loss + weight × this one's.

    JEM is objective `supervised` with head `logits`; EBCLR `simclr` with head `joint` and weight .1; CLEL `simclr` with
    head `norm` and loss `latent_guided`; a plain EBM objective `none` with head `scalar`; an RBM encoder `rbm`,
    objective `none`, head `free_energy` and sampler `gibbs`.

    Attributes:
        head: `name` (scalar, logits, joint, norm, free_energy) and its arguments.
        loss: `name` (maximum_likelihood, latent_guided, denoising, sliced, noise_contrastive,
            conditional_noise_contrastive) and its arguments.
        sampler: `name` (sgld, annealed, mala, hmc, gibbs) and its arguments; losses without chains only sample by it.
        chains: Where chains start.
        weight: Factor of the loss.
        warmup: Fraction of the training in which the weight rises linearly from 0.
        patience: Updates in a row with a sign of divergence before the run goes back to its last checkpoint.
        rollbacks: How often it does, with half the learning rate each time, before it stops.
    """

    head: dict[str, Any] = field(default_factory=lambda: {"name": "scalar"})
    loss: dict[str, Any] = field(default_factory=lambda: {"name": "maximum_likelihood"})
    sampler: dict[str, Any] = field(default_factory=lambda: {"name": "sgld"})
    chains: ChainsConfig = field(default_factory=ChainsConfig)
    weight: float = 1.0
    warmup: float = 0.0
    patience: int = 100
    rollbacks: int = 3

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"generative.weight must be > 0, got {self.weight}: leave the section out instead")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"generative.warmup is a fraction of the training: must be in [0, 1], got {self.warmup}")
        if self.patience < 1:
            raise ValueError(f"generative.patience must be >= 1, got {self.patience}")
        if self.rollbacks < 0:
            raise ValueError(f"generative.rollbacks must be >= 0, got {self.rollbacks}")
        if self.head.get("name") not in HEADS:
            raise ValueError(unknown_name("generative.head name", str(self.head.get("name")), HEADS))
        sampler, loss = self.create_sampler(), self.create_loss()
        if (self.head["name"] == "free_energy") != isinstance(sampler, Gibbs):
            raise ValueError(
                "an RBM's binary units are moved by gibbs and nothing else is: set generative.head.name=free_energy "
                f"and generative.sampler.name=gibbs together, got {self.head['name']} and {self.sampler['name']}"
            )
        if isinstance(sampler, Gibbs) and not isinstance(loss, MaximumLikelihood):
            raise ValueError(
                f"generative.loss {self.loss['name']} needs images that vary continuously, and an RBM's are binary: "
                "take maximum_likelihood"
            )
        if getattr(loss, "divergence_weight", 0.0) and not isinstance(sampler, SGLD):
            raise ValueError(
                "generative.loss.divergence_weight goes through the last SGLD step, and one that may be rejected "
                f"has no gradient: got sampler {self.sampler['name']}, take sgld"
            )

    def create_sampler(self) -> Sampler:
        """The sampler that moves chains."""
        return build("generative.sampler", SAMPLERS, self.sampler)

    def create_loss(self) -> Loss:
        """The loss that trains the energy."""
        return build("generative.loss", LOSSES, self.loss)
