"""The generative part of a run: an energy of images on the run's own encoder, its chains, its loss, its alarms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.generative.config import HEADS, GenerativeConfig
from ssl_ebm.generative.divergence import Alarm, measure
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
from ssl_ebm.registry import build

Views = Float[Tensor, "v n c h w"] | tuple[Float[Tensor, "_ n c _ _"], ...]


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
    """Each image mirrored with probability ½."""
    mirrored = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(each(mirrored, images), images.flip(-1), images)


def gradient_cosine(first: Tensor, second: Tensor, parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """`gradient_cosine`, of two losses' gradients by the same parameters; empty where one of them is zero.

    Below 0 a step that lowers one raises the other, to first order.
    """
    both = [
        torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True, materialize_grads=True)
        for loss in (first, second)
    ]
    left, right = (torch.cat([gradient.flatten().double() for gradient in own]) for own in both)
    scale = left.norm() * right.norm()
    return {"gradient_cosine": left @ right / scale} if bool(scale > 0) else {}


class Generative(nn.Module):
    """What a run with a section `generative` has besides: head and chains, and the loss that it adds.

    Its state dict holds the head, the replay buffer and the ages of its chains. All randomness comes from the update's
    generator, which is a function of the run's seed and the update, so a resumed run is the run never stopped.

    Attributes:
        config: The section.
        head: E from what the encoder gives.
        buffer: Persistent chains; None where chains start elsewhere.
        sampler: What moves chains.
        alarm: What is wrong, if anything.
        compare_gradients: Measure in the next forward, at the cost of two backward passes, whether this loss and the
            objective's pull the encoder the same way.

    Args:
        config: The section.
        model: The run's networks.
        energy: The joint energy that trained models score pairs with.
        shape: Of one view: channels, height, width.
        seed: Of the buffer's noise.
        batch: Images that a loss is computed on.
        autocast: The context that networks run in.

    Raises:
        ValueError: A BatchNorm in the energy's networks, or settings that do not go together.
    """

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
        self.alarm = Alarm(config.patience)
        self.compare_gradients = False
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

    def forward(
        self,
        model: JointEmbedding,
        step: Step,
        embeddings: Embeddings,
        views: Views,
        generator: torch.Generator,
    ) -> Step:
        """The objective's step with this loss added; moves the chains on.

        Energies of data come from the embeddings that the objective was computed on, so the networks run once more for
        the chains only.

        Raises:
            ValueError: The joint head has one view only.
        """
        x = (views if isinstance(views, Tensor) else views[0])[0]
        bank = None
        if isinstance(self.head, JointHead):
            if len(embeddings.projection) < 2:
                raise ValueError("the joint head's E(x) is a sum over other views: set views.views=2")
            bank = embeddings.projection[1].float()
        energy = ImageEnergy(model.encoder, model.projector, self.head, bank=bank, autocast=self.autocast)
        read = {"images": x[None], "features": embeddings.features, "projection": embeddings.projection}[
            self.head.reads
        ]
        assert read is not None
        embedding = read[0].float()
        positive = energy.of(embedding)
        draw, chains = self._move(energy, x, generator) if self.estimator.needs_chains else (None, None)
        negative = None if chains is None else energy(chains.x)
        offer = BatchForLoss(
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
        own = self.estimator(offer)
        values = measure(positive.detach(), negative, offer.chains, None if chains is None else chains.drift)
        self.alarm.watch(values | {"loss": own.loss.detach()})
        terms = own.terms | values | {"loss": own.loss.detach()}
        if chains is not None and draw is not None:
            terms |= self._chain_terms(chains, draw)
        if self.compare_gradients and own.loss.requires_grad and step.loss.requires_grad:
            parameters = [p for p in model.encoder.parameters() if p.requires_grad]
            terms |= gradient_cosine(step.loss, own.loss, parameters)
        loss = step.loss + self.weight * own.loss
        return Step(loss, step.terms | {f"image_{name}": value for name, value in terms.items()})

    def _move(self, energy: ImageEnergy, x: Tensor, generator: torch.Generator) -> tuple[Draw, Chains]:
        """Chains from where they start, moved on and put back; the bank is a constant to them."""
        if self.buffer is not None:
            draw = self.buffer.draw(self.count, generator=generator)
        else:
            start = x[: self.count]
            if self.config.chains.start == "noise":
                start = uniform_noise(x.new_empty(self.count, *x.shape[1:]), generator)
            new = torch.zeros(self.count, dtype=torch.long, device=x.device)
            draw = Draw(start, torch.arange(self.count, device=x.device), new)
        with frozen(energy):
            bank = energy.bank
            energy.bank = None if bank is None else bank.detach()
            chains = self.sampler(energy, draw.images, generator=generator, age=draw.age)
            energy.bank = bank
        if self.buffer is not None:
            lost = ~chains.x.flatten(1).isfinite().all(1)
            self.buffer.store(draw, chains.x, drop=lost, generator=generator)
        return draw, chains

    @torch.no_grad()
    def _chain_terms(self, chains: Chains, draw: Draw) -> dict[str, Tensor]:
        """The last step's drift in units of its noise, σ √d; age; acceptance."""
        terms: dict[str, Any] = {}
        if (noise := getattr(self.sampler, "noise", 0.0)) and chains.drift is not None:
            terms["drift_over_noise"] = chains.drift / (noise * chains.x[0].numel() ** 0.5)
        if self.buffer is not None:
            terms["chain_age"] = draw.age.float().mean()
        if chains.acceptance is not None:
            terms["chain_acceptance"] = chains.acceptance
        return terms
