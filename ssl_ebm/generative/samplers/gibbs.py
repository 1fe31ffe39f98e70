"""Block Gibbs sampling of an RBM, as a sampler like the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_ebm.generative.heads import FreeEnergyHead
from ssl_ebm.generative.image_energy import ImageEnergy
from ssl_ebm.generative.samplers.chain import EnergyFunction, Sampler, State, require_steps


@dataclass(frozen=True, kw_only=True)
class Gibbs(Sampler):
    """All hidden units given the visible ones, then the other way round; exact at T = 1, and gives binary images.

    Attributes:
        steps: Sweeps of a call.
    """

    steps: int = 1

    def __post_init__(self) -> None:
        require_steps(self.steps)

    def start(self, energy: EnergyFunction, x: Tensor, age: Tensor | None) -> State:
        """Chains at the images' binary units; their age does nothing.

        Raises:
            ValueError: The energy is not an RBM's.
        """
        return State(_head(energy).visible(x).view_as(x).to(x.dtype))

    def step(self, energy: EnergyFunction, state: State, generator: torch.Generator | None, share: float) -> State:
        """One sweep."""
        rbm = _head(energy).rbm
        units = state.x.flatten(1).to(rbm.weight.dtype)
        return State(rbm.gibbs(units, generator=generator).view_as(state.x).to(state.x.dtype))


def _head(energy: EnergyFunction) -> FreeEnergyHead:
    if not (isinstance(energy, ImageEnergy) and isinstance(energy.head, FreeEnergyHead)):
        raise ValueError("gibbs moves the units of an RBM, and this energy is not E(x) of one: take sgld")
    return energy.head
