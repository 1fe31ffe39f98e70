"""Non-contrastive, regularised: a statistic of the embeddings' distribution keeps them spread."""

from __future__ import annotations

from ssl_ebm.contrasts import Attract
from ssl_ebm.energies import SquaredEuclidean
from ssl_ebm.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.regularizers import Covariance, CrossCorrelation, SlicedGaussianity, Variance


def vicreg(
    *,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    projector: MLP = MLP(hidden=(8192, 8192), out=8192, output_bias=False),
) -> Objective:
    """25 ‖z - z'‖²/D + 25 (v + v')/2 + (c + c'): variance hinge and covariance penalty.

    Follows the authors' code: the distance is a mean over N·D, v is halved, c is not, both unbiased. Collapsed: 24.75.
    Source: Bardes et al. 2021, arXiv 2105.04906 (facebookresearch/vicreg).
    """
    return Objective(
        energy=SquaredEuclidean(per_dimension=True),
        contrast=Attract(),
        regularizers={
            "variance": Variance(weight=variance_weight),
            "covariance": Covariance(weight=covariance_weight),
        },
        heads=HeadSpec(projector=projector),
        weight=invariance_weight,
    )


def barlow_twins(
    *,
    off_diagonal: float = 0.0051,
    weight: float = 1.0,
    projector: MLP = MLP(hidden=(8192, 8192), out=8192, output_norm="batch_no_affine"),
) -> Objective:
    """Σ (1 - C_ii)² + λ Σ_{i≠j} C_ij² of the views' cross-correlation. Collapsed: D.

    A loss of the batch: ½ ‖z̃ - z̃'‖² of standardised projections is its surrogate energy, standardised by the running
    statistics of the projector's last, non-affine BatchNorm.
    Source: Zbontar et al. 2021, arXiv 2103.03230 (facebookresearch/barlowtwins): λ .0051, scale 1, 8192³.
    """
    return Objective(
        energy=SquaredEuclidean(scale=0.5),
        contrast=None,
        regularizers={"cross_correlation": CrossCorrelation(off_diagonal=off_diagonal, weight=weight)},
        heads=HeadSpec(projector=projector),
    )


def lejepa(
    *,
    gaussianity_weight: float = 0.02,
    slices: int = 256,
    knots: int = 17,
    projector: MLP = MLP(hidden=(2048, 2048), out=16),
) -> Objective:
    """(1 - λ) mean_v ‖z_v - z̄‖²/D + λ · SIGReg: embeddings pushed to an isotropic Gaussian. Floor: about 1.05 λ.

    Source: Balestriero & LeCun 2025, arXiv 2511.08544, the minimal script of rbalestr-lab/lejepa: λ .02, 17 knots,
    256 slices, 2048-2048-16; the mean is over all views.
    """
    if not 0 < gaussianity_weight < 1:
        raise ValueError(f"gaussianity_weight must be in (0, 1), got {gaussianity_weight}")
    return Objective(
        energy=SquaredEuclidean(per_dimension=True),
        contrast=Attract(),
        regularizers={"gaussianity": SlicedGaussianity(slices=slices, knots=knots, weight=gaussianity_weight)},
        heads=HeadSpec(projector=projector),
        pairing="mean",
        weight=1 - gaussianity_weight,
    )
