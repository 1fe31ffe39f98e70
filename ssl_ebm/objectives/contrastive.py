"""Contrastive: a partition function over other samples, or a margin, keeps the energy from being low everywhere."""

from __future__ import annotations

from ssl_ebm.contrasts import Attract, InfoNCE, Margin, Spectral
from ssl_ebm.energies import Cosine, Dot, SquaredEuclidean
from ssl_ebm.heads import MLP, HeadSpec
from ssl_ebm.negatives import BatchNegatives, QueueNegatives
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.regularizers import Uniformity
from ssl_ebm.targets import Teacher

SIMCLR_PROJECTOR = MLP(hidden=(2048, 2048), out=128, output_norm="batch_no_bias")
MOCO_PROJECTOR = MLP(hidden=(2048,), out=128, hidden_norm=False)


def simclr(*, temperature: float = 0.1, weight: float = 1.0, projector: MLP = SIMCLR_PROJECTOR) -> Objective:
    """NT-Xent: mean over 2N anchors of E⁺ + log Σ_{k≠i} exp(-E_ik), E = -cos/τ.

    The authors' code adds the two views' means, twice this value (weight=2). Collapsed: log(2N - 1).
    Source: Chen et al. 2020, arXiv 2002.05709, eq. 1; τ .1, projector of 3 layers (google-research/simclr).
    """
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=BatchNegatives(views="all"),
        heads=HeadSpec(projector=projector),
        weight=weight,
    )


def supcon(*, temperature: float = 0.1, weight: float = 1.0, projector: MLP = MOCO_PROJECTOR) -> Objective:
    """Supervised contrastive, L_out: all samples of the anchor's class are its positives.

    With instance labels it is NT-Xent. The reference code multiplies by τ/.07 (weight=τ/.07).
    Source: Khosla et al. 2020, arXiv 2004.11362, eq. 2; projector HobbitLong/SupContrast (hidden width there: the
    features'; here 2048).
    """
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=BatchNegatives(views="all"),
        heads=HeadSpec(projector=projector),
        by_label=True,
        weight=weight,
    )


def triplet(*, margin: float = 0.2, active_only: bool = False, projector: MLP = SIMCLR_PROJECTOR) -> Objective:
    """Hinge on squared distances of unit vectors: mean [margin + E⁺ - E⁻]₊ over all negatives of the batch.

    Source: Schroff et al. 2015, arXiv 1503.03832, eq. 3, margin .2; LeCun et al. 2006 (A tutorial on energy-based
    learning), the generalised margin losses. No mining.
    """
    return Objective(
        energy=SquaredEuclidean(normalize=True),
        contrast=Margin(margin=margin, active_only=active_only),
        negatives=BatchNegatives(views="all"),
        heads=HeadSpec(projector=projector),
    )


def align_uniform(
    *, alpha: float = 2.0, t: float = 2.0, uniformity_weight: float = 1.0, projector: MLP = SIMCLR_PROJECTOR
) -> Objective:
    """Alignment E‖z - z'‖^α plus λ · uniformity log E exp(-t ‖z_i - z_j‖²), the asymptotics of InfoNCE.

    Source: Wang & Isola 2020, arXiv 2005.10242; α 2, t 2, λ 1 (SsnL/align_uniform). The projector is SimCLR's: the
    authors' small encoder has its own.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be > 0, got {alpha}")
    return Objective(
        energy=SquaredEuclidean(normalize=True),
        contrast=Attract(power=alpha / 2),
        regularizers={"uniformity": Uniformity(t=t, weight=uniformity_weight)},
        heads=HeadSpec(projector=projector),
    )


def spectral(
    *,
    mu: float = 1.0,
    projector: MLP = MLP(hidden=(2048,), out=1000, output_norm="batch"),
) -> Objective:
    """(1/μ) {-2 mean z·z⁺ + mean_{i≠j} (z_i·z'_j)²} with norms clipped to √μ.

    Source: HaoChen et al. 2021, arXiv 2106.04156; μ 1 and projector of the CIFAR recipe
    (jhaochenz96/spectral_contrastive_learning); ImageNet: μ 10, 8192-8192-8192.
    """
    if not mu > 0:
        raise ValueError(f"mu must be > 0, got {mu}")
    return Objective(
        energy=Dot(max_norm=mu**0.5),
        contrast=Spectral(mu=mu),
        negatives=BatchNegatives(views="other"),
        heads=HeadSpec(projector=projector),
        pairing="first",
    )


def moco_v2(
    *,
    temperature: float = 0.2,
    queue_size: int = 65536,
    teacher_momentum: float = 0.999,
    final_teacher_momentum: float | None = None,
    projector: MLP = MOCO_PROJECTOR,
) -> Objective:
    """InfoNCE of one view against the teacher's other view, negatives from a queue of earlier teacher projections.

    Source: He et al. 2019, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297 (facebookresearch/moco): τ .2, queue
    65536, momentum .999 constant. Not done: shuffling BatchNorm between GPUs.
    """
    final = teacher_momentum if final_teacher_momentum is None else final_teacher_momentum
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=QueueNegatives(size=queue_size, dim=projector.out),
        target=Teacher(momentum=teacher_momentum, final_momentum=final),
        heads=HeadSpec(projector=projector),
        pairing="first",
        conservative=False,
    )
