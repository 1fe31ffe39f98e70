"""Regularised objectives without negatives: a statistic of the embeddings' distribution keeps them spread."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies.pairwise import Cosine, InverseMultiquadratic, SquaredEuclidean
from ssl_ebm.energies.whitening import Whitened
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.networks.heads import MLP, HeadSpec
from ssl_ebm.objectives.objective import Objective
from ssl_ebm.objectives.parts.contrasts import Attract
from ssl_ebm.objectives.parts.regularizers import (
    HSIC,
    CodingRate,
    Covariance,
    CrossCorrelation,
    LogDetCovariance,
    NuclearNorm,
    RateReduction,
    SecondMoment,
    SlicedGaussianity,
    Variance,
    WhitenedDistance,
)
from ssl_ebm.objectives.parts.targets import Target, Teacher
from ssl_ebm.objectives.presets.asymmetric import BYOL_HEAD


class UnitProjection(Target):
    """The projections as unit vectors, so that their mean over views weighs all views equally."""

    def forward(self, embeddings: Embeddings) -> Float[Tensor, "views batch dim"]:
        """The projections, each divided by its norm."""
        return F.normalize(embeddings.projection, dim=-1)


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

    It is a loss of the batch. Its surrogate energy is ½ ‖z̃ - z̃'‖² of projections that the running statistics of the
    projector's last, non-affine BatchNorm standardise.
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


def wmse(
    *,
    window: int | None = None,
    iterations: int = 1,
    method: str = "cholesky",
    eps: float = 1e-8,
    projector: MLP = MLP(hidden=(1024,), out=64),
) -> Objective:
    """2 - 2 cos(Wz, W'z') of views that are whitened each, mean over pairs of views (W-MSE 2, or 4). Collapsed: 2.

    Views are whitened in random windows of 2 D images. It is a loss of the batch, which needs D + 2 images; pairs are
    scored by the same distance in running white coordinates.
    Source: Ermolov et al. 2021, arXiv 2007.06346 (htdt/self-supervised): on CIFAR windows of 128 at 64 dimensions
    (STL-10 and Tiny ImageNet: 256 at 128, 4 `iterations`), Cholesky, C/(n - 1), no ε; windows must divide the batch.
    """
    distance = WhitenedDistance(window=window, method=method, iterations=iterations, eps=eps)
    return Objective(
        energy=SquaredEuclidean(normalize=True),
        contrast=None,
        regularizers={"whitened_distance": distance},
        heads=HeadSpec(projector=projector),
        scorer=Whitened(dim=projector.dim, eps=eps),
    )


def tico(
    *,
    covariance_weight: float = 8.0,
    beta: float = 0.9,
    through_batch: bool = True,
    teacher_momentum: float = 0.99,
    final_teacher_momentum: float = 1.0,
    projector: MLP = MLP(hidden=(4096,), out=256),
) -> Objective:
    """1 - z·t + ρ zᵀ C z of the first view, C ← β C + (1 - β) ZᵀZ / N: transformation invariance, covariance contrast.

    C includes the present batch. No code of the authors is known: β .9 and ρ 8 are those of ports (others have ρ 20),
    the momentum is lightly's; the gradient goes through the batch's share of C, as in the first port, unlike lightly's.
    lightly's benchmark passes the teacher's projection as z, so that its covariance term has no gradient.
    Source: Zhu et al. 2022, arXiv 2206.10698 (sayannag/TiCo-pytorch).
    """
    moment = SecondMoment(dim=projector.dim, beta=beta, through_batch=through_batch, weight=covariance_weight)
    return Objective(
        energy=SquaredEuclidean(scale=0.5, normalize=True),
        contrast=Attract(),
        target=Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum),
        regularizers={"second_moment": moment},
        heads=HeadSpec(projector=projector),
        pairing="first",
    )


def mmcr(
    *,
    local_weight: float = 0.0,
    projector: MLP = MLP(hidden=(512,), out=128, output_bias=False),
) -> Objective:
    """-‖centroids‖_* + (λ/N) Σ ‖Z_i‖_* of unit vectors: maximum manifold capacity. At least -√(N · min(N, D)).

    It is a loss of the batch; -cos is its surrogate energy. The gradient of the nuclear norm is taken in the directions
    that the batch has; that of an SVD adds noise in those it lacks.
    Source: Yerxa et al. 2023, arXiv 2303.03307 (ThomasYerxa/mmcr): λ 0, CIFAR's 512-128 with 40 views; ImageNet:
    8192-8192-512. Not done: its default of averaging the centroids with those of a teacher of momentum .99.
    """
    return Objective(
        energy=Cosine(),
        contrast=None,
        regularizers={"nuclear_norm": NuclearNorm(local_weight=local_weight)},
        heads=HeadSpec(projector=projector),
    )


def corinfomax(
    *,
    invariance_weight: float = 250.0,
    old_weight: float = 0.01,
    eps: float = 1e-8,
    views: int | None = 2,
    normalize: bool = True,
    projector: MLP = MLP(hidden=(2048, 2048), out=64, hidden_norm=False, output_bias=False),
) -> Objective:
    """α ‖z - z'‖²/D - 1/D Σ_views logdet(R + ε I), R the running covariance: correlative information maximisation.

    `views` is the number of views, which have their own statistics; None: they share them, as on ImageNet.
    Source: Ozsoy et al. 2022, arXiv 2209.07999 (serdarozsoy/corinfomax-ssl), the README's runs, all with unit vectors:
    CIFAR-10 α 250, weight of the old R and μ .01, ε 1e-8, 2048-2048-64 without BatchNorm (CIFAR-100 α 1000,
    4096-4096-128; ImageNet α 2000, .1, 8192-8192-512 with BatchNorm). The parser's defaults are α 500 and ε 1e-6.
    """
    entropy = LogDetCovariance(dim=projector.dim, views=views, old_weight=old_weight, eps=eps, normalize=normalize)
    return Objective(
        energy=SquaredEuclidean(normalize=normalize, per_dimension=True),
        contrast=Attract(),
        regularizers={"log_det_covariance": entropy},
        heads=HeadSpec(projector=projector),
        weight=invariance_weight,
    )


def emp_ssl(
    *,
    invariance_weight: float = 200.0,
    eps_squared: float = 0.2,
    projector: MLP = MLP(hidden=(4096, 4096), out=1024),
) -> Objective:
    """-λ mean_v cos(z_v, z̄) - mean_v ½ logdet(I + D/(N ε²) Z_vᵀ Z_v), z̄ the mean of an image's unit vectors.

    Extreme multi-patch is made for 20 to 200 views per image. lightly 1.6.0 adds the coding rate with the wrong sign.
    Source: Tong et al. 2023, arXiv 2304.03977 (tsb0601/EMP-SSL): λ 200, ε² .2 (called eps), batch 100. There the head's
    first 4096 units are the features that are kept.
    """
    return Objective(
        energy=Cosine(),
        contrast=Attract(),
        target=UnitProjection(),
        regularizers={"coding_rate": CodingRate(eps_squared=eps_squared)},
        heads=HeadSpec(projector=projector),
        pairing="mean",
        weight=invariance_weight,
    )


def mcr2(
    *,
    eps_squared: float = 0.5,
    expansion: float = 20.0,
    expansion_weight: float = 0.05,
    projector: MLP = MLP(hidden=(512,), out=128),
) -> Objective:
    """mean_i R(Z_i) - γ₂ ½ logdet(I + γ₁ D/(M ε²) Zᵀ Z): maximal coding rate reduction, an image's views as a class.

    It is a loss of the batch; -cos is its surrogate energy. It is made for 50 views of 20 images.
    Source: Yu et al. 2020, arXiv 2006.08558 (ryanchankh/mcr2), self-supervised: ε² .5, γ₁ 20, γ₂ .05.
    """
    reduction = RateReduction(eps_squared=eps_squared, expansion=expansion, expansion_weight=expansion_weight)
    return Objective(
        energy=Cosine(), contrast=None, regularizers={"rate_reduction": reduction}, heads=HeadSpec(projector=projector)
    )


def ssl_hsic(
    *,
    features: int = 512,
    gamma: float = 3.0,
    kernel_scale: float = 1.0,
    learnable: bool = True,
    teacher_momentum: float = 0.99,
    final_teacher_momentum: float = 1.0,
    projector: MLP = BYOL_HEAD,
    predictor: MLP = BYOL_HEAD,
) -> Objective:
    """-HSIC(Z, Y) + γ √HSIC(Z, Z): embeddings are to depend on the image's identity, and on little besides.

    Z are the predictions and teacher's projections of all views, Y is the image. The energy is -c/√(c² + ‖z - z'‖²);
    the run's optimiser learns c, for which the authors use Adam at 3e-4. With `learnable` False c is constant.
    Source: Li et al. 2021, arXiv 2106.08320 (deepmind/ssl_hsic): 512 features, γ 3, momentum .99 → 1, BYOL's heads.
    """
    energy = InverseMultiquadratic(scale=kernel_scale, learnable=learnable)
    return Objective(
        energy=energy,
        contrast=None,
        target=Teacher(momentum=teacher_momentum, final_momentum=final_teacher_momentum),
        regularizers={"hsic": HSIC(energy, features=features, gamma=gamma)},
        heads=HeadSpec(projector=projector, predictor=predictor),
    )
