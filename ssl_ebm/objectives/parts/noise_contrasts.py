"""Noise-contrastive contrasts: energies are the log-odds of a classifier that tells compatible pairs from noise.

At the optimum their meaning depends on the amount of noise: -E is the PMI less log m for m negatives per positive.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.energies.canonical import CanonicalForm, Offset
from ssl_ebm.energies.rows import Rows
from ssl_ebm.objectives.parts.contrasts import Contrast, Separate


class JensenShannon(Separate):
    """softplus(E⁺) + softplus(-E⁻): a binary classifier that weighs positives and negatives equally (Deep InfoMax).

    Collapsed: 2 log 2, which the authors' code subtracts (arXiv 1808.06670; rdevon/DIM, gan_losses.py).
    """

    def __init__(self) -> None:
        super().__init__()
        self.canonical_form = CanonicalForm()

    def attract(self, energy: Tensor) -> Tensor:
        """-log σ(-E)."""
        return F.softplus(energy)

    def repel(self, energy: Tensor) -> Tensor:
        """-log σ(E)."""
        return F.softplus(-energy)


class NWJ(Contrast):
    """E⁺ + mean_n exp(-E⁻ - 1): minus a lower bound on the mutual information, unbiased and of high variance.

    Nguyen, Wainwright & Jordan 2010, arXiv 0809.0853; the bound's form is Poole et al. 2019, arXiv 1905.06922, eq. 6.
    """

    def __init__(self) -> None:
        super().__init__()
        self.canonical_form = Offset(1.0, meaning="PMI + 1")

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor in nats."""
        assert negative is not None
        loss = positive.mean_energy() + torch.exp(negative.logsumexp() - negative.count.clamp(min=1).log() - 1)
        return torch.where(positive.count > 0, loss, 0.0)


def discriminate(positive: Rows, negative: Rows, bias: Tensor) -> Float[Tensor, " n"]:
    """Σ_p softplus(E_ip - b) + Σ_n softplus(b - E_in): loss of a classifier with log-odds b - E of being compatible."""
    attract = positive.mean(lambda energy, b: F.softplus(energy - b), bias) * positive.count
    repel = negative.mean(lambda energy, b: F.softplus(b - energy), bias) * negative.count
    return attract + repel


class Sigmoid(Contrast):
    """Binary discrimination of every pair, with a learned bias: SigLIP (arXiv 2303.15343).

        Σ_p softplus(E⁺ - b) + Σ_n softplus(b - E⁻)

    The loss is summed over the pairs of an anchor, as in the authors' code. With b = -log(number of negatives) it is
    NCE. The sign of b is the code's: pairs are incompatible a priori, so b starts low.
    """

    def __init__(self, *, bias: float = -10.0, learnable: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor(float(bias)), requires_grad=learnable)
        self.canonical_form = Offset(meaning="PMI - log m - b")

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        if self.training:
            noise_ratio = distributed.mean(negative.count.mean()) / distributed.mean(positive.count.mean())
            assert isinstance(self.canonical_form, Offset)
            self.canonical_form.offset.copy_(-self.bias.detach() - noise_ratio.log())
        return discriminate(positive, negative, self.bias)


class NoiseContrastive(Contrast):
    """Noise-contrastive estimation against uniform noise over `population` samples, with m draws per anchor.

        -log h⁺ - Σ_m log(1 - h⁻),   h = σ(-E - log Z - log(m / population))

    Z is a buffer, estimated from the first batch in training and constant from then on, Z = population · mean exp(-E⁻),
    as in InstDisc (arXiv 1805.01978; lemniscate's NCEAverage). Before that, evaluation estimates it from its own batch.

    Args:
        population: How many samples the noise is drawn from; None: as many as `fit_to` is told.
    """

    log_partition: Tensor

    def __init__(self, *, population: int | None) -> None:
        super().__init__()
        if population is not None and population < 1:
            raise ValueError(f"population must be >= 1, got {population}")
        self.population = population
        self.estimated = False
        self.register_buffer("log_partition", torch.tensor(math.nan))
        self.canonical_form = Offset(meaning="PMI + log(Z / n)")

    def fit_to(self, dataset_size: int) -> None:
        """The noise is drawn from as many samples as there are images, where `population` was not given."""
        self.population = dataset_size if self.population is None else self.population

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        if self.population is None:
            raise ValueError("noise is drawn from all images: call objective.fit_to(number of images)")
        log_draws = negative.count.clamp(min=1).log()
        log_partition = self.log_partition
        self.estimated = self.estimated or not bool(log_partition.isnan())  # once a run: isnan waits for the device
        if not self.estimated:
            log_partition = self._estimate(negative.logsumexp().detach() - log_draws, self.population)
            if self.training:
                self.log_partition.copy_(log_partition)
                assert isinstance(self.canonical_form, Offset)
                self.canonical_form.offset.copy_(log_partition - math.log(self.population))
        return discriminate(positive, negative, math.log(self.population) - log_draws - log_partition)

    @staticmethod
    def _estimate(log_means: Float[Tensor, " n"], population: int) -> Float[Tensor, ""]:
        """Estimate log Z from each anchor's log mean exp(-E⁻)."""
        log_means = distributed.gather(log_means)
        return log_means.logsumexp(0) - math.log(len(log_means)) + math.log(population)
