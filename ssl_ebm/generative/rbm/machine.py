"""The restricted Boltzmann machine: the classical energy-based model, with an exact log Z where it is small."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

MOST_ENUMERATED = 20  # units of the smaller layer


class RBM(nn.Module):
    """E(v, h) = -vᵀ W h - bᵀ v - cᵀ h over binary units; p(v, h) ∝ exp(-E).

        F(v) = -log Σ_h exp(-E(v, h)) = -bᵀ v - Σ_j softplus(c_j + (vᵀ W)_j)

    Smolensky 1986; trained by persistent contrastive divergence (Tieleman 2008): the loss `MaximumLikelihood` of F,
    with chains moved on by `gibbs`.

    Args:
        visible: Number of visible units.
        hidden: Number of hidden units.
        spread: Standard deviation of the first weights; biases start at 0.
        generator: Of the weights.

    Raises:
        ValueError: There are no units.
    """

    def __init__(
        self, visible: int, hidden: int, *, spread: float = 0.01, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if visible < 1 or hidden < 1:
            raise ValueError(f"visible and hidden must be >= 1, got {visible} and {hidden}")
        self.weight = nn.Parameter(spread * torch.randn(visible, hidden, generator=generator))
        self.visible_bias = nn.Parameter(torch.zeros(visible))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden))

    def energy(self, v: Float[Tensor, "n visible"], h: Float[Tensor, "n hidden"]) -> Float[Tensor, " n"]:
        """E(v_i, h_i)."""
        return -((v @ self.weight) * h).sum(1) - v @ self.visible_bias - h @ self.hidden_bias

    def forward(self, v: Float[Tensor, "n visible"]) -> Float[Tensor, " n"]:
        """F(v), the energy with hidden units summed out."""
        return -(v @ self.visible_bias) - F.softplus(v @ self.weight + self.hidden_bias).sum(1)

    def hidden_probability(self, v: Float[Tensor, "n visible"]) -> Float[Tensor, "n hidden"]:
        """p(h_j = 1 | v)."""
        return torch.sigmoid(v @ self.weight + self.hidden_bias)

    def visible_probability(self, h: Float[Tensor, "n hidden"]) -> Float[Tensor, "n visible"]:
        """p(v_i = 1 | h)."""
        return torch.sigmoid(h @ self.weight.T + self.visible_bias)

    @torch.no_grad()
    def tempered(self, beta: float, reference: Float[Tensor, " visible"] | None = None) -> RBM:
        """The RBM of β E(v, h) - (1 - β) aᵀ v: at β = 0 independent units, the visible ones with log odds a.

        Args:
            beta: β.
            reference: a; None: 0, fair coins.
        """
        scaled: dict[str, Any] = {name: beta * value for name, value in self.named_parameters()}
        if reference is not None:
            scaled["visible_bias"] += (1 - beta) * reference
        machine = copy.copy(self)
        machine._parameters = scaled
        return machine

    @torch.no_grad()
    def gibbs(
        self,
        v: Float[Tensor, "n visible"],
        *,
        sweeps: int = 1,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "n visible"]:
        """Visible units after `sweeps` sweeps: all hidden units given the visible ones, then the other way round."""
        if sweeps < 1:
            raise ValueError(f"sweeps must be >= 1, got {sweeps}")
        for _ in range(sweeps):
            h = torch.bernoulli(self.hidden_probability(v), generator=generator)
            v = torch.bernoulli(self.visible_probability(h), generator=generator)
        return v

    def log_partition(self) -> Float[Tensor, ""]:
        """Log Z by enumeration of the smaller layer; differentiable.

        Raises:
            ValueError: Both layers are too large to enumerate.
        """
        visible, hidden = self.weight.shape
        if min(visible, hidden) > MOST_ENUMERATED:
            raise ValueError(
                f"log Z is enumerated up to {MOST_ENUMERATED} units in the smaller layer, got {visible} and {hidden}: "
                "estimate it with log_partition.rbm_log_partition"
            )
        states = all_states(min(visible, hidden)).to(self.weight)
        if visible <= hidden:
            return (-self(states)).logsumexp(0)
        visible_part = F.softplus(states @ self.weight.T + self.visible_bias).sum(1)
        return (states @ self.hidden_bias + visible_part).logsumexp(0)


def all_states(units: int) -> Float[Tensor, "states units"]:
    """All 2^units binary vectors; the first unit changes slowest."""
    number = torch.arange(2**units)
    return (number[:, None] >> torch.arange(units - 1, -1, -1) & 1).float()
