"""Contrasts: how other samples limit the volume of low energy. Energies of positives and negatives -> loss per anchor.

There are three kinds: a partition over all samples (`InfoNCE`), a difference between a positive and each negative
(`Pairwise`: hinge, log, perceptron), and separate losses of positives and negatives (`Separate`: square-square,
spectral, and the noise-contrastive ones of `noise_contrasts.py`). LeCun et al. 2006, A tutorial on energy-based
learning, table 1, is the catalogue of the last two; its energy loss is `Attract`, its negative log-likelihood
`InfoNCE`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.energies.canonical import CanonicalForm, Partition, Ratio
from ssl_ebm.energies.rows import Paired, Rows


class Contrast(nn.Module):
    """A loss for each anchor, from the energies of its positives and negatives.

    Attributes:
        needs_negatives: True if the contrast cannot be used without negatives.
        needs_nonnegative: True if the contrast squares energies, and so needs E ≥ 0.
        canonical_form: What the energy means at the optimum; None: it orders pairs and no more.
    """

    needs_negatives: bool = True
    needs_nonnegative: bool = False

    def __init__(self) -> None:
        super().__init__()
        self.canonical_form: CanonicalForm | None = None

    def fit_to(self, dataset_size: int) -> None:
        """How many images there are to train on, told before the first batch."""

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor; 0 for an anchor without positives."""
        raise NotImplementedError


class Attract(Contrast):
    """mean_p (E⁺)^power, LeCun's energy loss: it only pulls, so that something else has to prevent the collapse.

    With E = ‖a - b‖², power = α/2 is Wang & Isola's alignment E‖a - b‖^α (arXiv 2005.10242).
    """

    needs_negatives = False

    def __init__(self, *, power: float = 1.0) -> None:
        super().__init__()
        if not power > 0:
            raise ValueError(f"power must be > 0, got {power}")
        self.power = float(power)
        self.needs_nonnegative = power != 1

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
        decoupled: Leave the positives out of the partition (DCL, arXiv 2110.06848); the loss can then be negative.
        reweight: κ of DCLW: pulls are multiplied by 2 - exp(-κ E⁺) / mean exp(-κ E⁺), a constant to the gradient, so
            that near positives pull less. None: all pulls weigh 1.
    """

    def __init__(self, *, decoupled: bool = False, reweight: float | None = None) -> None:
        super().__init__()
        if reweight is not None and not (decoupled and reweight > 0):
            raise ValueError(f"reweight must be > 0 and needs decoupled=True, got {reweight} and {decoupled}")
        self.decoupled, self.reweight = decoupled, reweight
        self.canonical_form = None if reweight is not None else Partition()

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor in nats."""
        assert negative is not None
        if isinstance(positive, Paired) and positive.energies.shape[1] == 1 and not self.decoupled:
            return F.softplus(positive.energies[:, 0] + negative.logsumexp())
        attraction = positive.mean_energy()
        if self.decoupled:
            weight = 1 if self.reweight is None else self._weight(-self.reweight * attraction.detach())
            loss = weight * attraction + torch.where(negative.count > 0, negative.logsumexp(), 0.0)
        else:
            loss = attraction + positive.logsumexp_with(negative)
        return torch.where(positive.count > 0, loss, 0.0)

    @staticmethod
    def _weight(exponent: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        """2 - exp(exponent) / mean exp(exponent), the mean over the anchors of all ranks."""
        all_exponents = distributed.gather(exponent)
        return 2 - torch.exp(exponent - all_exponents.logsumexp(0) + math.log(len(all_exponents)))


class Pairwise(Contrast):
    """mean_n loss(E⁺ - E⁻), where E⁺ is the mean energy of the positives.

    Args:
        hardest: Take only the most offending negative, the one of lowest energy, as in LeCun et al. 2006; else the mean
            over all.
    """

    def __init__(self, *, hardest: bool = False) -> None:
        super().__init__()
        self.hardest = hardest

    def loss(self, difference: Tensor) -> Tensor:
        """The loss as an elementwise and increasing function of the difference E⁺ - E⁻."""
        raise NotImplementedError

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        attraction = positive.mean_energy()
        if self.hardest:
            loss = self.loss(attraction - negative.minimum())
        else:
            loss = negative.mean(lambda energy, pull: self.loss(pull - energy), attraction)
        return torch.where((positive.count > 0) & (negative.count > 0), loss, 0.0)


class Margin(Pairwise):
    """Hinge [margin + E⁺ - E⁻]₊: only negatives whose energy is within a margin of the positive's count.

    The mean over all negatives is FaceNet's sum, not mined (arXiv 1503.03832, eq. 3); with `hardest` LeCun's hinge;
    with `active_only` the mean over those that violate the margin, which keeps the gradient's size as they grow rare.
    """

    def __init__(self, *, margin: float = 0.2, active_only: bool = False, hardest: bool = False) -> None:
        super().__init__(hardest=hardest)
        if not margin > 0:
            raise ValueError(f"margin must be > 0, got {margin}")
        if active_only and hardest:
            raise ValueError("active_only is about the mean over negatives, and hardest takes one: choose either")
        self.margin, self.active_only = float(margin), active_only

    def loss(self, difference: Tensor) -> Tensor:
        """[margin + difference]₊."""
        return F.relu(self.margin + difference)

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Hinge of each anchor."""
        loss = super().forward(positive, negative)
        if not self.active_only:
            return loss
        assert negative is not None
        attraction = positive.mean_energy().detach()
        active = negative.mean(lambda energy, pull: (self.margin + pull > energy).to(energy.dtype), attraction)
        return loss / torch.where(active > 0, active, 1.0).detach()


class Perceptron(Pairwise):
    """E⁺ - min(E⁺, E⁻) = [E⁺ - E⁻]₊: a hinge without margin, so a flat energy is a minimum: it can collapse."""

    def __init__(self, *, hardest: bool = True) -> None:
        super().__init__(hardest=hardest)

    def loss(self, difference: Tensor) -> Tensor:
        """[difference]₊."""
        return F.relu(difference)


class LogLoss(Pairwise):
    """log(1 + exp(E⁺ - E⁻)): a soft hinge of infinite margin. With a single negative it is InfoNCE."""

    def loss(self, difference: Tensor) -> Tensor:
        """log(1 + exp(difference))."""
        return F.softplus(difference)


class Separate(Contrast):
    """mean_p attract(E⁺) + mean_n repel(E⁻).

    Args:
        hardest: Take only the most offending negative, the one of lowest energy; else the mean over all.
    """

    def __init__(self, *, hardest: bool = False) -> None:
        super().__init__()
        self.hardest = hardest

    def attract(self, energy: Tensor) -> Tensor:
        """Loss of a positive, as a function of its energy."""
        raise NotImplementedError

    def repel(self, energy: Tensor) -> Tensor:
        """Loss of a negative, as a function of its energy."""
        raise NotImplementedError

    def forward(self, positive: Rows, negative: Rows | None) -> Float[Tensor, " n"]:
        """Loss of each anchor."""
        assert negative is not None
        repulsion = self.repel(negative.minimum()) if self.hardest else negative.mean(self.repel)
        loss = positive.mean(self.attract) + torch.where(negative.count > 0, repulsion, 0.0)
        return torch.where(positive.count > 0, loss, 0.0)


class SquareSquare(Separate):
    """(E⁺)² + [margin - E⁻]₊² with a distance E ≥ 0: twice the loss of Hadsell, Chopra & LeCun 2006, which has ½s."""

    needs_nonnegative = True

    def __init__(self, *, margin: float = 1.0, hardest: bool = False) -> None:
        super().__init__(hardest=hardest)
        if not margin > 0:
            raise ValueError(f"margin must be > 0, got {margin}")
        self.margin = float(margin)

    def attract(self, energy: Tensor) -> Tensor:
        """E²."""
        return energy.square()

    def repel(self, energy: Tensor) -> Tensor:
        """[margin - E]₊²."""
        return F.relu(self.margin - energy).square()


class Spectral(Separate):
    """(2 E⁺ + (E⁻)²) / μ with E = -<z, z'>, which factorises the graph of positives (arXiv 2106.04156)."""

    def __init__(self, *, mu: float = 1.0) -> None:
        super().__init__()
        if not mu > 0:
            raise ValueError(f"mu must be > 0, got {mu}")
        self.mu = float(mu)
        self.canonical_form = Ratio()

    def attract(self, energy: Tensor) -> Tensor:
        """2 E / μ."""
        return 2 * energy / self.mu

    def repel(self, energy: Tensor) -> Tensor:
        """E² / μ."""
        return energy.square() / self.mu
