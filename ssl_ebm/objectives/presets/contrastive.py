"""Contrastive objectives: a partition over other samples, or a margin, keeps the energy from being low everywhere."""

from __future__ import annotations

from ssl_ebm.energies.pairwise import Cosine, Distance, Dot, SquaredEuclidean
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.compatibility import SameLabel
from ssl_ebm.objectives.parts.contrasts import Attract, InfoNCE, Margin, Spectral, SquareSquare
from ssl_ebm.objectives.parts.negatives import BatchNegatives, QueueNegatives
from ssl_ebm.objectives.parts.regularizers import Uniformity
from ssl_ebm.objectives.parts.targets import NearestNeighbour, Teacher

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


def dcl(*, temperature: float = 0.1, projector: MLP = SIMCLR_PROJECTOR) -> Objective:
    """NT-Xent whose partition leaves the positive out: mean of E⁺ + log Σ_neg exp(-E⁻), 2N - 2 negatives.

    The loss can be negative; NT-Xent is its softplus, anchor by anchor. The gradient does not vanish as positives get
    near, so that small batches learn faster.
    Source: Yeh et al. 2021, arXiv 2110.06848, eq. 6; no official code; τ .1, projector of SimCLR.
    """
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(decoupled=True),
        negatives=BatchNegatives(views="all"),
        heads=HeadSpec(projector=projector),
    )


def dclw(*, temperature: float = 0.1, sigma: float = 0.5, projector: MLP = SIMCLR_PROJECTOR) -> Objective:
    """DCL with pulls weighted by w = 2 - exp(c⁺/σ) / mean exp(c⁺/σ), c⁺ the cosine: near positives pull less.

    w is a constant to the gradient, as in lightly's port and unlike another. The mean is over all ranks and both views.
    Source: Yeh et al. 2021, arXiv 2110.06848, eq. 7; σ .5.
    """
    if not (temperature > 0 and sigma > 0):
        raise ValueError(f"temperature and sigma must be > 0, got {temperature} and {sigma}")
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(decoupled=True, reweight=temperature / sigma),
        negatives=BatchNegatives(views="all"),
        heads=HeadSpec(projector=projector),
    )


def supcon(*, temperature: float = 0.1, weight: float = 1.0, projector: MLP = MOCO_PROJECTOR) -> Objective:
    """Supervised contrastive, L_out: all samples of the anchor's class are its positives.

    With a label of its own for each image it is NT-Xent. The reference code multiplies by τ/.07 (weight=τ/.07).
    Source: Khosla et al. 2020, arXiv 2004.11362, eq. 2; projector HobbitLong/SupContrast (hidden width there: the
    features'; here 2048).
    """
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=BatchNegatives(views="all"),
        heads=HeadSpec(projector=projector),
        graph=SameLabel(),
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


def square_square(*, margin: float = 1.0, hardest: bool = False, projector: MLP = SIMCLR_PROJECTOR) -> Objective:
    """(E⁺)² + mean [margin - E⁻]₊² with E = ‖z - z'‖ of unit vectors: LeCun's contrastive loss.

    `hardest` pushes only the most offending negative, as in the tutorial. Distances are in [0, 2]; unrelated embeddings
    in high dimension are about √2 apart, so that margins below 1.4 leave the typical pair alone.
    Source: Hadsell, Chopra & LeCun 2006 (twice their ½s); LeCun et al. 2006, A tutorial on energy-based learning, eq.
    13. Margin 1 and the unit sphere are this project's.
    """
    return Objective(
        energy=Distance(normalize=True),
        contrast=SquareSquare(margin=margin, hardest=hardest),
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
    """InfoNCE of one view with the teacher's projection of the other, against a queue of the teacher's earlier ones.

    Source: He et al. 2019, arXiv 1911.05722; Chen et al. 2020, arXiv 2003.04297 (facebookresearch/moco): τ .2, queue
    65536, momentum .999 constant. Not done: shuffling BatchNorm between GPUs.
    """
    final = teacher_momentum if final_teacher_momentum is None else final_teacher_momentum
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=QueueNegatives(size=queue_size, dim=projector.dim),
        target=Teacher(momentum=teacher_momentum, final_momentum=final),
        heads=HeadSpec(projector=projector),
        pairing="first",
    )


def moco_v3(
    *,
    temperature: float = 1.0,
    teacher_momentum: float = 0.99,
    final_teacher_momentum: float = 1.0,
    projector: MLP = MLP(hidden=(4096,), out=256, output_norm="batch_no_affine"),
    predictor: MLP = MLP(hidden=(4096,), out=256, output_bias=False),
) -> Objective:
    """2τ [CE(p1, t2) + CE(p2, t1)]: InfoNCE of predictions with the teacher's projections of the other view.

    Negatives are the other images of the whole batch, without gradient. The factor 2τ is that of the authors' code, and
    scales the learning rate.
    Source: Chen et al. 2021, arXiv 2104.02057 (facebookresearch/moco-v3): ResNet-50 τ 1.0, momentum .99 → 1 for 100 and
    300 epochs (.996 for 1000), heads of width 4096; ViT: τ .2 and a projector of 3 layers.
    """
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=BatchNegatives(views="other"),
        target=Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum),
        heads=HeadSpec(projector=projector, predictor=predictor),
        weight=4 * temperature,
    )


def nnclr(
    *,
    temperature: float = 0.1,
    queue_size: int = 98304,
    projector: MLP = MLP(hidden=(2048, 2048), out=256, output_norm="batch"),
    predictor: MLP = MLP(hidden=(4096,), out=256),
) -> Objective:
    """-log exp(nn_i·p_i/τ) / Σ_k exp(nn_i·p_k/τ): the positive is the nearest neighbour of the other view.

    The neighbour is looked up in a queue of earlier projections. It is the anchor; the predictions of the whole batch
    are its candidates. The loss is the mean over both orders of the views.
    Source: Dwibedi et al. 2021, arXiv 2104.14548, eq. 3; τ .1, queue 98304; no official code (the heads are those of a
    VISSL port).
    """
    return Objective(
        energy=Cosine(temperature=temperature),
        contrast=InfoNCE(),
        negatives=BatchNegatives(views="other"),
        target=NearestNeighbour(size=queue_size, dim=projector.dim),
        heads=HeadSpec(projector=projector, predictor=predictor),
        transposed=True,
    )
