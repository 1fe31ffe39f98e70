"""Images drawn from a trained energy: E(x), E(x, y) of a class, or E(given, x) of pairs."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.generative.config import GenerativeConfig
from ssl_ebm.generative.heads import Head, JointHead, LogitsHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.chain import EnergyFunction, Sampler, require_images
from ssl_ebm.generative.samplers.frozen import frozen
from ssl_ebm.generative.samplers.gibbs import Gibbs
from ssl_ebm.networks.batch_norm import convert_batch_norm
from ssl_ebm.networks.encoder import Encoder

LONGEST, LONGEST_GIBBS = 1000, 10_000  # steps of a chain from noise, if not said otherwise; sweeps are cheap

Images = Float[Tensor, "n c h w"]


class Samples(NamedTuple):
    """Images where chains ended, and what is known of them."""

    images: Images
    energy: Float[Tensor, " n"]
    temperature: float  # effective, of the dynamics that drew them
    adversarial: bool  # the energy was never contrasted in x: images that fool it, not images that are likely


@dataclass(frozen=True)
class TrainedEnergies:
    """The energies of images that trained networks define.

    Attributes:
        encoder: Backbone with its normalisation.
        projector: What `scorer` and some heads see the features through.
        scorer: E of a pair of projections.
        head: E of a single image; None: the run trained none.
    """

    encoder: Encoder
    projector: nn.Module
    scorer: Energy
    head: Head | None

    def without_batch_norm(self) -> TrainedEnergies:
        """A copy in which every BatchNorm is what it is in eval mode, a fixed affine map."""
        parts = copy.deepcopy(self)
        convert_batch_norm(parts.encoder, "affine")
        return replace(parts, projector=convert_batch_norm(parts.projector, "affine"))

    def embed(self, x: Images) -> Float[Tensor, "n dim"]:
        """Projections of images of any size that the encoder takes."""
        return self.projector(self.encoder.at_any_size(x.to(self.encoder.mean.device))).float()

    def of_images(self, bank: Float[Tensor, "m c h w"] | None) -> ImageEnergy:
        """E(x); `bank` are the images that the joint head sums over.

        Raises:
            ValueError: There is no head, or no bank for the joint head.
        """
        if self.head is None:
            raise ValueError("the run has no energy of single images: train one with a section generative")
        projections = self.embed(bank).detach() if bank is not None and isinstance(self.head, JointHead) else None
        return ImageEnergy(self.encoder, self.projector, self.head, bank=projections)

    def of_class(self, label: int) -> EnergyFunction:
        """E(·, label).

        Raises:
            ValueError: The head knows no classes, or not this one.
        """
        head = self.head
        if not isinstance(head, LogitsHead):
            raise ValueError("a label is sampled from E(x, y): train with generative.head=logits")

        def energy(x: Tensor) -> Tensor:
            logits = self.embed(x)
            if not 0 <= label < logits.shape[1]:
                raise ValueError(f"label must be in [0, {logits.shape[1] - 1}], got {label}")
            return head.label_energy.energy(logits, torch.full((len(x),), label, device=x.device))

        return energy

    def of_pairs(self, given: Images) -> EnergyFunction:
        """E(given_i, ·): how badly an image fits each given one."""
        with torch.no_grad():
            anchors = self.embed(given)
        return lambda x: self.scorer.paired(anchors, self.embed(x))


def chain_length(sampler: Sampler, config: GenerativeConfig | None) -> int:
    """Steps that a chain of the training lives on average: a call's, over the probability of a restart."""
    if config is None or config.chains.start != "persistent":
        return sampler.steps
    longest = LONGEST_GIBBS if isinstance(sampler, Gibbs) else LONGEST
    restart = max(config.chains.restart, sampler.steps / longest)  # 0: chains live as long as the training
    return max(sampler.steps, round(sampler.steps / restart))


def draw_images(
    energies: TrainedEnergies,
    config: GenerativeConfig | None,
    shape: tuple[int, int, int],
    *,
    n: int | None = None,
    x0: Images | None = None,
    given: Images | None = None,
    label: int | None = None,
    bank: Float[Tensor, "m c h w"] | None = None,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> Samples:
    """Run the sampler of a run's section `generative`, or the default one, under one of its energies.

    Chains start at `x0`, or at noise of `shape` (channels, height, width). The other arguments are those of
    `EnergyModel.sample`.

    Raises:
        ValueError: Nothing to sample from, images out of range, a BatchNorm, or chains that diverge.
    """
    if given is not None and label is not None:
        raise ValueError("sample takes given images or a label, not both")
    sampler = (config or GenerativeConfig()).create_sampler()
    device = energies.encoder.mean.device
    generator = torch.Generator(device).manual_seed(seed)
    count = _count(n, x0, given)
    if x0 is None:
        x0 = torch.rand(count, *shape, generator=generator, device=device)
        steps = chain_length(sampler, config) if steps is None else steps
    energy: EnergyFunction
    networks: tuple[nn.Module, ...] = (energies.encoder, energies.projector)
    if given is not None:
        energy = energies.of_pairs(given)
    elif label is not None:
        energy = energies.of_class(label)
    else:
        energy = image_energy = energies.of_images(bank)
        networks = (image_energy,)
    require_images(x0)
    with frozen(*networks):
        images = sampler(energy, x0.to(device), steps=steps, generator=generator, progress=progress).x
        with torch.no_grad():
            values = energy(images)
    if not bool(values.isfinite().all()):
        raise ValueError("chains ran into energies that are not finite: lower the sampler's step_size")
    return Samples(images, values, sampler.temperature, adversarial=given is not None and energies.head is None)


def _count(n: int | None, x0: Images | None, given: Images | None) -> int:
    """Number of chains: `n`, or as many as there are images to start from or to pair with."""
    lengths = {len(images) for images in (x0, given) if images is not None} | ({n} if n is not None else set())
    if len(lengths) != 1 or min(lengths) < 1:
        raise ValueError(f"sample needs n >= 1, and x0 and given of n images each, got n={n}")
    return lengths.pop()
