"""Noise-contrastive objectives: tell compatible pairs from pairs that a known noise distribution draws."""

from __future__ import annotations

from ssl_ebm.energies.pairwise import Bilinear, Cosine, Dot
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.contrasts import InfoNCE
from ssl_ebm.objectives.parts.memory import Memory, MemoryNegatives
from ssl_ebm.objectives.parts.negatives import BatchNegatives
from ssl_ebm.objectives.parts.noise_contrasts import NWJ, JensenShannon, NoiseContrastive, Sigmoid


def nce(
    *,
    bank_size: int | None = None,
    temperature: float = 0.07,
    draws: int = 4096,
    bank_momentum: float = 0.5,
    projector: MLP = MLP(hidden=(), out=128),
) -> Objective:
    """Instance discrimination by noise-contrastive estimation against a memory of every image.

    -log h⁺ - Σ_m log(1 - h⁻), h = σ(-E - log(m q) - log Z), q = 1/n; each view is compared with the memory of its
    image. `bank_size` is the number of training images; None: what `fit_to` is told. Z is frozen from the first batch.
    Source: Wu et al. 2018, arXiv 1805.01978 (zhirongw/lemniscate.pytorch): τ .07, m 4096, momentum .5, linear head.
    """
    memory = Memory(size=bank_size, dim=projector.dim, momentum=bank_momentum)
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=NoiseContrastive(population=bank_size),
        negatives=MemoryNegatives(memory, draws=draws),
        target=memory,
        heads=HeadSpec(projector=projector),
    )


def siglip(
    *,
    temperature: float = 0.1,
    bias: float = -10.0,
    learnable: bool = True,
    projector: MLP = MLP(hidden=(2048, 2048), out=128, output_norm="batch_no_bias"),
) -> Objective:
    """Sigmoid loss over all pairs of the two views: -1/N Σ_ij log σ(y_ij (t c_ij + b)), t = 1/τ and b learned.

    Here E = -t c, and -b is the threshold on it. Collapsed at t + b = 0: N log 2.
    Source: Zhai et al. 2023, arXiv 2303.15343 (google-research/big_vision): t' = log 10, b = -10. The projector is
    SimCLR's: the paper trains image and text towers.
    """
    return Objective(
        energy=Cosine(temperature=temperature, learnable=learnable),
        contrast=Sigmoid(bias=bias, learnable=learnable),
        negatives=BatchNegatives(views="other"),
        heads=HeadSpec(projector=projector),
        pairing="first",
    )


def cpc(*, projector: MLP = MLP(hidden=(2048,), out=128)) -> Objective:
    """Ranking NCE with a learned bilinear critic: mean [E⁺ + log Σ_N exp(-E)], E = -zᵀ W z', noise from the batch.

    The first view is the context. log N minus the loss is a lower bound on the views' mutual information.
    Source: van den Oord et al. 2018, arXiv 1807.03748, eq. 4, for two views instead of steps of a sequence; no official
    code.
    """
    return Objective(
        energy=Bilinear(dim=projector.dim),
        contrast=InfoNCE(),
        negatives=BatchNegatives(views="other"),
        heads=HeadSpec(projector=projector),
        pairing="first",
    )


def jsd(*, projector: MLP = MLP(hidden=(2048,), out=2048)) -> Objective:
    """Mean softplus(E⁺) + mean softplus(-E⁻): the Jensen-Shannon bound, joint pairs against shuffled ones.

    Collapsed: 2 log 2, which the authors' code subtracts.
    Source: Hjelm et al. 2018, arXiv 1808.06670, eq. 4 (rdevon/DIM): dot-product critic of 2048 units.
    """
    return Objective(
        energy=Dot(),
        contrast=JensenShannon(),
        negatives=BatchNegatives(views="other"),
        heads=HeadSpec(projector=projector),
    )


def nwj(*, max_norm: float | None = None, projector: MLP = MLP(hidden=(2048,), out=2048)) -> Objective:
    """E⁺ + mean exp(-E⁻ - 1): minus the NWJ bound on the mutual information, whose optimum is -E = PMI + 1.

    The exponential has a high variance, which `max_norm` limits: |E| ≤ max_norm².
    Source: Nguyen et al. 2010, arXiv 0809.0853; Poole et al. 2019, arXiv 1905.06922, eq. 6. The critic is JSD's.
    """
    return Objective(
        energy=Dot(max_norm=max_norm),
        contrast=NWJ(),
        negatives=BatchNegatives(views="other"),
        heads=HeadSpec(projector=projector),
    )
