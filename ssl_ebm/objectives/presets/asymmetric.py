"""Asymmetric objectives without negatives: stop-gradient, predictor and teacher keep training from the collapse.

Their update is not the gradient of any function: they are not `conservative`.
"""

from __future__ import annotations

from ssl_ebm.energies.pairwise import Cosine, DirectPrediction, SquaredEuclidean
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.contrasts import Attract
from ssl_ebm.objectives.parts.targets import StopGradient, Teacher

BYOL_HEAD = MLP(hidden=(4096,), out=256, output_bias=False)


def byol(
    *,
    teacher_momentum: float = 0.996,
    final_teacher_momentum: float = 1.0,
    weight: float = 2.0,
    projector: MLP = BYOL_HEAD,
    predictor: MLP = BYOL_HEAD,
) -> Objective:
    """Sum over both orders of 2 - 2 cos(p, sg t): predict the teacher's projection of the other view.

    `weight` 2 turns the mean over orders into the authors' sum. On the same embeddings the loss is 4 + 4·SimSiam.
    Source: Grill et al. 2020, arXiv 2006.07733 (google-deepmind/deepmind-research, byol): momentum .996 → 1 for 1000
    epochs, .99 for 100 to 300.
    """
    return Objective(
        energy=SquaredEuclidean(normalize=True),
        contrast=Attract(),
        target=Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum),
        heads=HeadSpec(projector=projector, predictor=predictor),
        weight=weight,
    )


def simsiam(
    *,
    projector: MLP = MLP(hidden=(2048, 2048), out=2048, output_norm="batch_no_affine"),
    predictor: MLP = MLP(hidden=(512,), out=2048),
) -> Objective:
    """-½ cos(p, sg z') - ½ cos(p', sg z), in [-1, 1]: predict the projection of the other view.

    Source: Chen & He 2020, arXiv 2011.10566 (facebookresearch/simsiam). Not done: the constant learning rate of the
    predictor, a flag of the authors' code.
    """
    return Objective(
        energy=Cosine(),
        contrast=Attract(),
        target=StopGradient(),
        heads=HeadSpec(projector=projector, predictor=predictor),
    )


def directpred(
    *,
    epsilon: float = 0.01,
    old_weight: float = 0.3,
    teacher_momentum: float = 0.996,
    final_teacher_momentum: float = 0.996,
    weight: float = 2.0,
    projector: MLP = BYOL_HEAD,
) -> Objective:
    """BYOL with a linear predictor W that is not learned: set from the eigenvalues of the projections' correlation.

    W = U diag(max(√(s/s_max) + ε, 1e-4)) Uᵀ, set after every update; it is part of the energy 2 - 2 cos(W z, sg t).
    Source: Tian et al. 2021, arXiv 2102.06810 (facebookresearch/luckmatters): ε .01, weight of the old correlation .3,
    momentum .996 constant, as in the README; the YAML file says 0 and .8.
    """
    return Objective(
        energy=DirectPrediction(dim=projector.dim, epsilon=epsilon, old_weight=old_weight),
        contrast=Attract(),
        target=Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum),
        heads=HeadSpec(projector=projector),
        weight=weight,
        scorer=SquaredEuclidean(normalize=True),
    )
