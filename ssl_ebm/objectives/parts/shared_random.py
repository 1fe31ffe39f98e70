"""Random numbers that are the same on all ranks and in a resumed run."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Draws(nn.Module):
    """A counter that seeds one generator a training step; the counter travels in the state dict.

    The counter stands still in eval mode, so that evaluation is deterministic and changes nothing.
    """

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def generator(self) -> torch.Generator:
        """A CPU generator seeded by the counter, which then advances in training."""
        generator = torch.Generator().manual_seed(self.count)
        self.count += self.training
        return generator

    def get_extra_state(self) -> Tensor:
        """Give the counter to `state_dict`."""
        return torch.tensor(self.count)

    def set_extra_state(self, state: Tensor) -> None:
        """Take the counter from `load_state_dict`."""
        self.count = int(state)
