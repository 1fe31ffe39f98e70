"""What an energy means at its optimum: canonical energies, estimates of minus the pointwise mutual information (PMI).

    PMI(x, y) = log p(x, y) / (p(x) p(y))

Energies of two objectives differ in offset and scale, so they are never compared raw. A `CanonicalForm` says how an
objective's optimum is related to the PMI, and turns a trained energy into one that estimates -PMI in nats, itself an
`Energy`. Objectives without one (triplet, BYOL) order pairs and no more.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_ebm.energies.gaussian_views import CanonicalCorrelation, Scaled, best_scale
from ssl_ebm.energies.pairwise import Dot, Energy, Factor, Side
from ssl_ebm.energies.rows import EnergyMatrix, SameKey

Bank = Float[Tensor, "n dim"]


class CanonicalForm(nn.Module):
    """How the energy at the optimum is related to the PMI; here it is -PMI itself (JSD, shared codes).

    Attributes:
        meaning: What -E is at the optimum.
    """

    meaning: str = "PMI"

    def fit(self, energy: Energy, a: Bank, b: Bank) -> Energy:
        """The canonical energy.

        Args:
            energy: The trained energy.
            a: Embeddings of one view of a bank of images.
            b: Of another view of the same images.
        """
        return energy


class Offset(CanonicalForm):
    """-E = PMI + a constant that training knows: SigLIP's bias and noise ratio, NCE's partition, NWJ's 1.

    Attributes:
        offset: The constant, a buffer; the contrast that owns the canonical form writes it.
    """

    offset: Tensor

    def __init__(self, offset: float = 0.0, *, meaning: str) -> None:
        super().__init__()
        self.meaning = meaning
        self.register_buffer("offset", torch.tensor(float(offset)))

    def fit(self, energy: Energy, a: Bank, b: Bank) -> Energy:
        """E + offset."""
        return Shifted(energy, self.offset)


class Partition(CanonicalForm):
    """-E = PMI + c(x): InfoNCE leaves each anchor an offset, its free energy (arXiv 1807.03748)."""

    meaning = "PMI + c(x)"

    def fit(self, energy: Energy, a: Bank, b: Bank) -> Energy:
        """E(x, y) - f(x) - g(y), the free energies of both sides."""
        return WithUnitMarginals(energy, a, b)


class Ratio(CanonicalForm):
    """-E = exp(PMI): the spectral contrastive loss estimates the density ratio itself (arXiv 2106.04156)."""

    meaning = "exp PMI"

    def fit(self, energy: Energy, a: Bank, b: Bank) -> Energy:
        """-log(-E)."""
        return LogRatio(energy)


class Gaussian(CanonicalForm):
    """Embeddings of two views are jointly Gaussian: their canonical correlations give the PMI in closed form.

    Only at the optimum. Trained embeddings have heavier tails than a Gaussian's, and correlations of many dimensions
    are overconfident, so that one half of the bank gives the correlations and the other half says how far to trust them
    and refers them to its own marginals: of jointly Gaussian views the scale is 1 and the offsets 0, up to the bank's
    size.
    """

    meaning = "canonical correlations"

    def fit(self, energy: Energy, a: Bank, b: Bank) -> Energy:
        """β times the energy of one half's shrunk correlations, referred to the other half, on which β is fitted.

        Raises:
            ValueError: Half of the bank has too few pairs for the dimension.
        """
        half = (len(a) + 1) // 2
        correlated = CanonicalCorrelation(a[:half], b[:half], shrinkage=None)
        scale = best_scale(correlated, a[half:], b[half:])
        return WithUnitMarginals(Scaled(correlated, scale), a[half:], b[half:])


class Shifted(Energy):
    """E(a, b) + shift."""

    linear = False

    def __init__(self, energy: Energy, shift: Tensor) -> None:
        super().__init__()
        self.energy, self.symmetric = energy, energy.symmetric
        self.register_buffer("shift", shift.clone())

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of E."""
        return self.energy.factor(x, side)

    def link(self, raw: Tensor) -> Tensor:
        """That of E, shifted."""
        return self.energy.link(raw) + self.shift.to(raw.dtype)  # type: ignore[operator]


class LogRatio(Energy):
    """-log(-E(a, b)), from below limited to densities of `floor`: where E ≥ 0 the ratio is estimated as none."""

    linear = False

    def __init__(self, energy: Energy, *, floor: float = 1e-3) -> None:
        super().__init__()
        self.energy, self.floor, self.symmetric = energy, floor, energy.symmetric

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of E."""
        return self.energy.factor(x, side)

    def link(self, raw: Tensor) -> Tensor:
        """-log of minus that of E."""
        return -(-self.energy.link(raw)).clamp(min=self.floor).log()


class WithUnitMarginals(Energy):
    """E(a, b) - f(a) - g(b): of all E + c(a) + d(b), the one whose exp(-E) has mean 1 over a bank, on either side.

        f(a) = -log mean_j exp(g(b_j) - E(a, b_j)),    g(b) = -log mean_i exp(f(a_i) - E(a_i, b))

    That is what p(x, y) / (p(x) p(y)) has. Found by turns (Sinkhorn), without an image's own pairs; with g = 0, f is
    the free energy. A symmetric E has f = g, and both views of the bank on both sides.

    Raises:
        ValueError: E is not an inner product up to offsets, or the bank has less than two images.
    """

    anchors: Tensor
    candidates: Tensor

    @torch.no_grad()
    def __init__(self, energy: Energy, a: Bank, b: Bank, *, iterations: int = 15) -> None:
        super().__init__()
        if not energy.linear:
            raise ValueError(f"{type(energy).__name__} has a link: no offsets of its own can be taken from it")
        if len(a) < 2:
            raise ValueError(f"a bank needs at least 2 images, got {len(a)}")
        self.energy, self.symmetric, self.dim = energy, energy.symmetric, energy.dim
        image = torch.arange(len(a), device=a.device)
        if energy.symmetric:
            a = b = torch.cat([a, b])
            image = image.repeat(2)
        f, (g, offset) = energy.factor(a, "anchor").vectors, energy.factor(b, "candidate")
        others = math.log(len(image) - int((image == 0).sum()))
        left, right = f[:, 0] * 0, g[:, 0] * 0 if offset is None else -offset  # f and g less E's own offsets
        for _ in range(iterations):
            new = others - _log_partition(f, torch.cat([g, right[:, None]], dim=1), image)
            if energy.symmetric:  # one side stands for both; the mean with the last does not go to and fro
                left = right = (new + right) / 2
            else:
                left = new
                right = others - _log_partition(g, torch.cat([f, left[:, None]], dim=1), image)
        self.register_buffer("anchors", torch.cat([f, left[:, None]], dim=1))
        self.register_buffer("candidates", torch.cat([g, right[:, None]], dim=1))

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of E with another offset: what the bank gives to it."""
        vectors = self.energy.factor(x, side).vectors
        bank = (self.candidates if side == "anchor" else self.anchors).to(vectors.dtype)
        return Factor(vectors, _log_partition(vectors, bank) - math.log(len(bank)))


def _log_partition(
    vectors: Float[Tensor, "n k"], bank: Float[Tensor, "m k_and_1"], image: Int[Tensor, " n"] | None = None
) -> Float[Tensor, " n"]:
    """Row by row log Σ_j exp(<f_i, g_j> + last_j), over other images than its own."""
    ones = vectors.new_ones(len(vectors), 1)
    excluded = None if image is None else SameKey(image, image)
    return EnergyMatrix(Dot(), torch.cat([vectors, ones], dim=1), bank, excluded=excluded).logsumexp()


@torch.no_grad()
def mutual_information(energy: Energy, a: Bank, b: Bank) -> Float[Tensor, ""]:
    """InfoNCE's lower bound on the mutual information of two views, in nats; at most log n (arXiv 1807.03748).

        mean_i [-E(a_i, b_i) - log mean_j exp(-E(a_i, b_j))]

    A bound for any energy; tight where -E is the PMI and the information is well below log n.
    """
    partition = EnergyMatrix(energy, a, b).logsumexp() - math.log(len(b))
    return (-energy.paired(a, b) - partition).mean()
