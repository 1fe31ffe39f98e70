"""Images drawn from a trained energy: chains in rounds, so that a long one can be watched."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.generative.config import GenerativeConfig, Sampler
from ssl_ebm.generative.samplers.chain import EnergyFunction, require_images
from ssl_ebm.generative.samplers.frozen import frozen
from ssl_ebm.generative.samplers.gibbs import Gibbs
from ssl_ebm.generative.samplers.langevin import AnnealedSGLD

ROUND = 10  # steps between reports of progress
LONGEST, LONGEST_GIBBS = 1000, 10_000  # steps of a chain from noise, if not said otherwise; sweeps are cheap


class Samples(NamedTuple):
    """Images and what is known of them."""

    images: Float[Tensor, "n c h w"]
    energy: Float[Tensor, " n"]
    temperature: float  # effective, of the dynamics that drew them
    adversarial: bool  # the energy was never contrasted in x: images that fool it, not images that are likely


def chain_length(sampler: Sampler, config: GenerativeConfig | None) -> int:
    """Steps that a chain of the training lives on average: a call's, over the probability of a restart."""
    if config is None or config.chains.start != "persistent":
        return sampler.steps
    longest = LONGEST_GIBBS if isinstance(sampler, Gibbs) else LONGEST
    restart = max(config.chains.restart, sampler.steps / longest)  # 0: chains live as long as the training
    return max(sampler.steps, round(sampler.steps / restart))


def pair_energy(embed: Callable[[Tensor], Tensor], scorer: Energy, given: Float[Tensor, "n c h w"]) -> EnergyFunction:
    """E(given_i, ·): how badly an image fits each given one."""
    with torch.no_grad():
        anchors = embed(given)
    return lambda x: scorer.paired(anchors, embed(x))


def run_chains(
    energy: EnergyFunction,
    start: Float[Tensor, "n c h w"],
    sampler: Sampler,
    *networks: nn.Module,
    steps: int,
    adversarial: bool,
    generator: torch.Generator | None = None,
    progress: Callable[[int], object] | None = None,
) -> Samples:
    """Chains of `steps` steps from `start`; `progress` is told after each round how many steps it was.

    Raises:
        ValueError: Images that are not finite or not in [0, 1], a BatchNorm, or no step.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    require_images(start)
    at_a_time = steps if isinstance(sampler, AnnealedSGLD) else ROUND
    x, done = start.detach().clone(), 0
    with frozen(*networks):
        while done < steps:
            now = min(at_a_time, steps - done)
            x = dataclasses.replace(sampler, steps=now)(energy, x, generator=generator).x
            done += now
            if progress is not None:
                progress(now)
        with torch.no_grad():
            values = energy(x)
    if not bool(values.isfinite().all()):
        raise ValueError("chains ran into energies that are not finite: lower the sampler's step_size")
    return Samples(x, values, sampler.temperature, adversarial)
