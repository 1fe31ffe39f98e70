"""The energy of an image and a label: the classical supervised EBM, whose partition over labels is exact."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class LabelEnergy(nn.Module):
    """E(x, y) = -f_y(x) / τ of a classifier's logits f(x) and a label y.

        p(y | x) = exp(-E(x, y)) / Σ_y' exp(-E(x, y')) = softmax(f / τ)_y
        F(x)     = -log Σ_y exp(-E(x, y))

    This one energy has three uses. A linear probe fits it by maximum likelihood of p(y | x), with f linear in frozen
    features. JEM's head is its free energy F, which makes a classifier a density of images too. Images of class y are
    sampled from E(·, y). A constant added to all logits leaves p(y | x) as it is and moves F: a classifier leaves this
    degree of freedom open, and JEM trains it (Grathwohl et al. 2020, arXiv 1912.03263).

    Args:
        temperature: τ > 0.

    Raises:
        ValueError: τ is not positive.
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self.temperature = float(temperature)

    def energy(self, logits: Float[Tensor, "n classes"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """E(x_i, y_i)."""
        return -logits.gather(1, label[:, None].long())[:, 0] / self.temperature

    def free_energy(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, " n"]:
        """F(x_i): the energy of an image, whatever its label."""
        return -(logits / self.temperature).logsumexp(1)

    def log_probability(self, logits: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """F(x_i) - E(x_i, y) = log p(y | x_i)."""
        return torch.log_softmax(logits / self.temperature, dim=1)
