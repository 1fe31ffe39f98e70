"""How the volume of low energy is limited by other samples: energies of positives and negatives -> loss per anchor."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.tiles import Paired, Rows


class Contrast(nn.Module):
    """Energies of an anchor's positives and negatives -> its loss.

    Attributes:
        needs_negatives: Whether it can be used without negatives.
    """

    needs_negatives: bool = True

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        raise NotImplementedError


class Attract(Contrast):
    """mean_p (E⁺)^power: only pulls. Something else has to prevent the collapse.

    With E = ‖a - b‖², power = α/2 is Wang & Isola's alignment E‖a - b‖^α (arXiv 2005.10242).
    """

    needs_negatives = False

    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()
        if not power > 0:
            raise ValueError(f"power must be > 0, got {power}")
        self.power = float(power)

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """mean_p (E⁺)^power."""
        if self.power == 1:
            return positive.mean_energy()
        # equal views have a gradient of 0 instead of the NaN of 0^(power - 1) · 0
        return positive.mean(lambda energy: energy.clamp(min=torch.finfo(energy.dtype).tiny).pow(self.power))


class InfoNCE(Contrast):
    """Negative log-likelihood with a partition estimated over the other samples.

        mean_p [E_ip + log(Σ_n exp(-E_in) + Σ_p exp(-E_ip))]

    With one positive it is softplus(E⁺ + log Σ_n exp(-E⁻)), computed so: a log-softmax and its gradient lose relative
    precision as the loss goes to 0. With several it is SupCon's L_out (arXiv 2004.11362, eq. 2). Collapsed embeddings
    give log(1 + number of negatives). An anchor without a positive counts as 0, as in SupCon's code.

    Args:
        decoupled: Leave the positives out of the partition (DCL, arXiv 2110.06848); can be negative.
    """

    def __init__(self, *, decoupled: bool = False) -> None:
        super().__init__()
        self.decoupled = decoupled

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor in nats."""
        assert negative is not None
        free_energy, attraction = negative.logsumexp(), positive.mean_energy()
        if self.decoupled:
            loss = attraction + free_energy
        elif isinstance(positive, Paired) and positive.energies.shape[1] == 1:
            loss = F.softplus(attraction + free_energy)
        else:
            others = positive.logsumexp()
            loss = (attraction + others) + F.softplus(free_energy - others)
        return torch.where(positive.count > 0, loss, 0.0)


class Margin(Contrast):
    """mean_n [margin + E⁺ - E⁻]₊: negatives only count while they come within a margin of the positive.

    E⁺ is the mean over the anchor's positives. The mean is over all negatives (FaceNet, arXiv 1503.03832, eq. 3, not
    mined); with `active_only` over those that violate the margin, which keeps the gradient's size as they grow rare.
    """

    def __init__(self, *, margin: float = 0.2, active_only: bool = False) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be > 0, got {margin}")
        self.margin, self.active_only = float(margin), active_only

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Hinge of each anchor."""
        assert negative is not None
        attraction = positive.mean_energy()
        loss = negative.mean(lambda energy, pulled: F.relu(self.margin + pulled - energy), attraction)
        if self.active_only:
            share = negative.mean(lambda energy, pulled: (self.margin + pulled > energy).to(energy.dtype), attraction)
            loss = loss / torch.where(share > 0, share, 1.0).detach()
        return torch.where(positive.count > 0, loss, 0.0)


class Spectral(Contrast):
    """(2 E⁺ + mean_n (E⁻)²) / μ with E = -<z, z'>: factorises the graph of positives (arXiv 2106.04156)."""

    def __init__(self, *, mu: float = 1.0) -> None:
        super().__init__()
        if not mu > 0:
            raise ValueError(f"mu must be > 0, got {mu}")
        self.mu = float(mu)

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        return (2 * positive.mean_energy() + negative.mean(torch.square)) / self.mu


def discriminate(positive: Rows, negative: Rows, bias: Tensor | float) -> Float[Tensor, " n"]:
    """Σ_p softplus(E_ip - b) + Σ_n softplus(b - E_in): is a pair compatible or noise, with log-odds b - E?"""
    attract = positive.mean(lambda energy: F.softplus(energy - bias)) * positive.count
    repel = negative.mean(lambda energy: F.softplus(bias - energy)) * negative.count
    return attract + repel


class Sigmoid(Contrast):
    """Binary discrimination of every pair, with a learned bias: SigLIP (arXiv 2303.15343).

        Σ_p softplus(E⁺ - b) + Σ_n softplus(b - E⁻)

    Summed over the pairs of an anchor, as in the authors' code. With b = -log(number of negatives) it is NCE. The sign
    of b is the code's: pairs are incompatible a priori, so b starts low.
    """

    def __init__(self, *, bias: float = -10.0, learnable: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learnable)

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        return discriminate(positive, negative, self.bias)


class NoiseContrastive(Contrast):
    """Noise-contrastive estimation against uniform noise over `population` samples, by m draws an anchor.

        -log h⁺ - Σ_m log(1 - h⁻),   h = σ(-E - log Z - log(m / population))

    Z is a constant estimated from the first batch in training, Z = population · mean exp(-E⁻), as in InstDisc
    (arXiv 1805.01978; lemniscate's NCEAverage); a buffer. Before that, evaluation estimates it from its own batch.
    """

    log_partition: Tensor

    def __init__(self, *, population: int) -> None:
        super().__init__()
        if population < 1:
            raise ValueError(f"population must be >= 1, got {population}")
        self.population = population
        self.estimated = False
        self.register_buffer("log_partition", torch.tensor(math.nan))

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        log_draws = negative.count[0].log()
        log_partition = self.log_partition
        self.estimated = self.estimated or not bool(log_partition.isnan())  # once a run: it waits for the device
        if not self.estimated:
            log_partition = self._estimate(negative.logsumexp().detach() - log_draws)
            if self.training:
                self.log_partition.copy_(log_partition)
        return discriminate(positive, negative, math.log(self.population) - log_draws - log_partition)

    def _estimate(self, log_means: Float[Tensor, " n"]) -> Float[Tensor, ""]:
        log_means = distributed.gather(log_means)
        return log_means.logsumexp(0) - math.log(len(log_means)) + math.log(self.population)
