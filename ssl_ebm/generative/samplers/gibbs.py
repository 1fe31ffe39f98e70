"""Block Gibbs sampling of an RBM, as a sampler like the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ssl_ebm.generative.heads import FreeEnergyHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.chain import Chains, EnergyFunction, require_steps


@dataclass(frozen=True, kw_only=True)
class Gibbs:
    """All hidden units given the visible ones, then the other way round; exact at T = 1, and gives binary images.

    Attributes:
        steps: Sweeps a call.
        temperature: T.
    """

    steps: int = 1
    temperature = 1.0

    def __post_init__(self) -> None:
        require_steps(self.steps, None)

    def __call__(
        self,
        energy: EnergyFunction,
        x: Float[Tensor, "n c h w"],
        *,
        generator: torch.Generator | None = None,
        age: Int[Tensor, " n"] | None = None,
    ) -> Chains:
        """Chains from the images x, binarised.

        Raises:
            ValueError: The energy is not an RBM's.
        """
        if not (isinstance(energy, ImageEnergy) and isinstance(energy.head, FreeEnergyHead)):
            raise ValueError("gibbs moves the units of an RBM, and this energy is not E(x) of one: take sgld")
        head = energy.head
        moved = head.rbm.gibbs(head.visible(x), sweeps=self.steps, generator=generator)
        return Chains(moved.view_as(x).to(x.dtype), None)
