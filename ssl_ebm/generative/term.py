"""The generative term of a run's loss: an energy of images on the run's own encoder, its chains and its estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.generative.config import HEADS, GenerativeConfig
from ssl_ebm.generative.divergence import divergence_sign, measure, to_floats
from ssl_ebm.generative.heads import Head, JointHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.losses import BatchForLoss
from ssl_ebm.generative.samplers.chain import Chains, each
from ssl_ebm.generative.samplers.frozen import frozen, require_independent_samples
from ssl_ebm.generative.samplers.replay import Draw, ReplayBuffer, uniform_noise
from ssl_ebm.generative.sampling_free import NoiseContrastiveDensity
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.encoder import Encoder
from ssl_ebm.networks.joint_embedding import JointEmbedding
from ssl_ebm.objectives import Step
from ssl_ebm.objectives.term import Alarm, Term, Views
from ssl_ebm.registry import build


def create_head(config: GenerativeConfig, encoder: Encoder, *, dim: int, energy: Energy) -> Head:
    """The head that a config describes, for projections of `dim` dimensions under the objective's energy."""
    return build(
        "generative.head",
        HEADS,
        config.head,
        features=encoder.num_features,
        latent=dim,
        energy=energy,
        encoder=encoder,
    )


def flip_half(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """The images, each mirrored with probability ½."""
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(each(mirrored, images), images.flip(-1), images)


def gradient_cosine(first: Tensor, second: Tensor, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """`gradient_cosine`: cos(∇L₁, ∇L₂) of two losses by the same parameters; empty where a gradient is zero.

    Below 0 a step that lowers one loss raises the other, to first order.
    """
    gradients = [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in (first, second)
    ]
    left, right = (torch.cat([part.flatten().double() for part in gradient]) for gradient in gradients)
    scale = left.norm() * right.norm()
    return {"gradient_cosine": left @ right / scale} if bool(scale > 0) else {}


class Generative(Term):
    """The loss that a section `generative` adds: an energy of images trained against chains or noise.

    Its state dict holds the head, the replay buffer and the ages of its chains. In logged updates it measures, at the
    cost of two backward passes, whether its loss and the objective's pull the encoder the same way.

    Attributes:
        config: The section.
        head: Maps what the encoder gives to E.
        buffer: Persistent chains; None where chains start elsewhere.
        sampler: Moves the chains.
        estimator: Estimates the loss from a batch and its chains.
        count: Chains an update.
        weight: Factor of the loss at the present progress.

    Args:
        config: The section.
        model: The run's networks.
        energy: The joint energy that trained models score pairs with.
        dim: Of the projections.
        shape: Of one view: channels, height, width.
        seed: Of the buffer's noise.
        batch: Images that a loss is computed on.
        autocast: The context that networks run in.

    Raises:
        ValueError: A BatchNorm in the energy's networks, or settings that do not go together.
    """

    alarm: Alarm
    subject = "the energy of images"
    remedy = "take more sampler steps or a generative.loss.energy_penalty"

    def __init__(
        self,
        config: GenerativeConfig,
        model: JointEmbedding,
        *,
        energy: Energy,
        dim: int,
        shape: tuple[int, int, int],
        seed: int,
        batch: int,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__()
        self.config, self.autocast = config, autocast
        self.head = create_head(config, model.encoder, dim=dim, energy=energy)
        self.sampler = config.create_sampler()
        self.estimator = config.create_loss()
        require_independent_samples(model.encoder, *([model.projector] if self.head.reads == "projection" else []))
        learns = isinstance(self.estimator, NoiseContrastiveDensity)
        self.log_normalizer = nn.Parameter(torch.zeros(())) if learns else None
        self.count = config.chains.count or batch
        self.buffer: ReplayBuffer | None = None
        if self.estimator.needs_chains and config.chains.start == "persistent":
            if config.chains.size < self.count:
                raise ValueError(
                    f"generative.chains.size={config.chains.size} is less than the {self.count} chains of an update: "
                    "draws are without replacement"
                )
            self.buffer = ReplayBuffer(
                config.chains.size,
                shape,
                restart=config.chains.restart,
                augment=flip_half if config.chains.flip else None,
                generator=torch.Generator().manual_seed(seed),
            )
        if config.chains.start == "data" and self.count > batch:
            raise ValueError(f"chains that start at data are at most the batch's {batch} images, got {self.count}")
        self.alarm, self.rollbacks = Alarm(config.patience), config.rollbacks
        self.weight = 0.0 if config.warmup else config.weight

    def __str__(self) -> str:
        head, loss, sampler = (part["name"] for part in (self.config.head, self.config.loss, self.config.sampler))
        where = f", {self.count} chains from {self.config.chains.start}" if self.estimator.needs_chains else ""
        added = f"{self.config.weight:g} × {loss} of the {head} head"
        return f"{added}{where}, {sampler} of {self.sampler.steps} steps at T = {self.sampler.temperature:.3g}"

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1], once a step: drives the weight."""
        rise = min(1.0, fraction / self.config.warmup) if self.config.warmup else 1.0
        self.weight = self.config.weight * rise

    def energy_parts(self) -> dict[str, nn.Module]:
        """The head."""
        return {"head": self.head}

    def forward(
        self,
        model: JointEmbedding,
        step: Step,
        embeddings: Embeddings,
        views: Views,
        generator: torch.Generator,
    ) -> Step:
        """The step with weight × this loss added; moves the chains on.

        Energies of data come from the embeddings that the objective was computed on, so the networks run once more for
        the chains only.

        Raises:
            ValueError: The joint head has one view only.
        """
        x = (views if isinstance(views, Tensor) else views[0])[0]
        energy = self._energy(model, embeddings)
        embedding = self._read_by_head(x, embeddings)
        positive = energy.of(embedding)
        draw, chains = self._move(energy, x, generator) if self.estimator.needs_chains else (None, None)
        negative = None if chains is None else energy(chains.x)
        batch = BatchForLoss(
            energy=energy,
            x=x,
            embedding=embedding,
            positive=positive,
            chains=None if chains is None else chains.x,
            negative=negative,
            latent=embeddings.projection[1].detach().float() if len(embeddings.projection) > 1 else None,
            past=None if self.buffer is None else self.buffer.images[: 4 * self.count],
            log_normalizer=self.log_normalizer,
            freeze=lambda: frozen(energy),
            step_size=getattr(self.sampler, "step_size", 0.0),
            noise=getattr(self.sampler, "noise", 0.0),
            generator=generator,
        )
        estimate = self.estimator(batch)
        terms = estimate.terms | self._measure(positive, negative, chains, estimate.loss)
        if chains is not None and draw is not None:
            terms |= self._chain_terms(chains, draw)
        terms |= self._gradient_terms(model.encoder, step.loss, estimate.loss)
        loss = step.loss + self.weight * estimate.loss
        return Step(loss, step.terms | {f"image_{name}": value for name, value in terms.items()})

    def _energy(self, model: JointEmbedding, embeddings: Embeddings) -> ImageEnergy:
        """E(x) by the run's networks; of the joint head, over the batch's second views."""
        bank = None
        if isinstance(self.head, JointHead):
            if len(embeddings.projection) < 2:
                raise ValueError("the joint head's E(x) is a sum over other views: set views.views=2")
            bank = embeddings.projection[1].float()
        return ImageEnergy(model.encoder, model.projector, self.head, bank=bank, autocast=self.autocast)

    def _read_by_head(self, x: Tensor, embeddings: Embeddings) -> Tensor:
        """The first views as the head reads them: images, features or projections."""
        if self.head.reads == "images":
            return x.float()
        embedding = embeddings.projection if self.head.reads == "projection" else embeddings.features
        assert embedding is not None
        return embedding[0].float()

    def _move(self, energy: ImageEnergy, x: Tensor, generator: torch.Generator) -> tuple[Draw, Chains]:
        """Draw the images that chains start at, move them, and store persistent ones; E's bank is a constant here."""
        if self.buffer is not None:
            draw = self.buffer.draw(self.count, generator=generator)
        else:
            start = x[: self.count]
            if self.config.chains.start == "noise":
                start = uniform_noise(x.new_empty(self.count, *x.shape[1:]), generator)
            age = torch.zeros(self.count, dtype=torch.long, device=x.device)
            draw = Draw(start, torch.arange(self.count, device=x.device), age)
        with frozen(energy):
            bank = energy.bank
            energy.bank = None if bank is None else bank.detach()
            chains = self.sampler(energy, draw.images, generator=generator, age=draw.age)
            energy.bank = bank
        if self.buffer is not None:
            lost = ~chains.x.flatten(1).isfinite().all(1)
            self.buffer.store(draw, chains.x, drop=lost, generator=generator)
        return draw, chains

    def _gradient_terms(self, encoder: Encoder, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """In logged updates, the cosine of two losses' gradients by the encoder's parameters, if both have one."""
        if not (self.is_logged and first.requires_grad and second.requires_grad):
            return {}
        return gradient_cosine(first, second, [p for p in encoder.parameters() if p.requires_grad])

    @torch.no_grad()
    def _measure(
        self, positive: Tensor, negative: Tensor | None, chains: Chains | None, loss: Tensor
    ) -> dict[str, Tensor]:
        """Measurements of divergence, and the loss; the alarm watches both."""
        images, drift = (None, None) if chains is None else (chains.x, chains.drift)
        values = measure(positive.detach(), negative, images, drift) | {"loss": loss.detach()}
        self.alarm.watch(divergence_sign(to_floats(values)))
        return values

    @torch.no_grad()
    def _chain_terms(self, chains: Chains, draw: Draw) -> dict[str, Tensor]:
        """Drift of the chains' last step in units of its noise, σ √d; their mean age; the share of accepted steps."""
        terms: dict[str, Any] = {}
        if (noise := getattr(self.sampler, "noise", 0.0)) and chains.drift is not None:
            terms["drift_over_noise"] = chains.drift / (noise * chains.x[0].numel() ** 0.5)
        if self.buffer is not None:
            terms["chain_age"] = draw.age.float().mean()
        if chains.acceptance is not None:
            terms["chain_acceptance"] = chains.acceptance
        return terms
