"""Health of a representation without labels: rank, spectrum, alignment, uniformity, spread.

All are computed in float64 on the CPU, which not every accelerator has, and have no gradient.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CHUNK_ROWS = 1024  # of the matrix of distances, held at a time
SPECTRUM_LENGTH = 64  # singular values in results
ALPHA_REQ_RANKS = (4, 100)  # first and last of the eigenvalues that the slope is fitted to, as in the authors' code
LIDAR_DIMENSIONS = 4096  # at most; above, the eigenvalues of its scatter take minutes


def rankme(features: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """RankMe, the effective rank of features, from 1 to min(n, dim); 0 for features that are all zero.

        exp(-Σ_k p_k log p_k),   p = σ / Σσ of the singular values σ

    Features are not centred, as in the paper. Its ε = 1e-7, added to every p_k against log 0, is left out: 0 log 0 = 0
    here. σ² are eigenvalues of the smaller Gram matrix, those within its rounding taken as zero: cheap enough for a
    batch of 512 during training.

    Source: Garrido et al. 2023, arXiv 2210.02885, eq. 1.
    """
    sigma = singular_values(features)
    return torch.where(sigma[0] > 0, torch.special.entr(sigma / sigma.sum()).sum().exp(), 0.0)


def singular_values(features: Float[Tensor, "n dim"]) -> Float[Tensor, " least"]:
    """Singular values of the features, in units of their largest entry, descending; those within rounding are zero.

    They are the roots of the smaller Gram matrix's eigenvalues.
    """
    x = features.detach().cpu().double()
    x = x / x.abs().amax().clamp(min=torch.finfo(x.dtype).tiny)
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    squares = torch.linalg.eigvalsh(gram).flip(0)
    return (squares * (squares > max(x.shape) * torch.finfo(x.dtype).eps * squares[0])).sqrt()


def alpha_req(features: Float[Tensor, "n dim"], *, ranks: tuple[int, int] = ALPHA_REQ_RANKS) -> float | None:
    """α-ReQ: the α of the decay λ_j ∝ j^-α of the eigenvalues of the features' covariance.

    Weighted least squares of log λ_j on log j over ranks j, first to last, with weights 1/j. The paper fits the
    eigenspectrum and names no range; ranks and weights are those of the authors' code (fastssl), after Stringer et al.
    2019. Fewer dimensions end the range earlier. None with fewer than two eigenvalues to fit it to.

    Source: Agrawal et al. 2022, α-ReQ: Assessing Representation Quality in Self-Supervised Learning by Measuring
    Eigenspectrum Decay, NeurIPS.
    """
    x = features.detach().cpu().double()
    sigma = singular_values(x - x.mean(0))
    values = sigma[sigma > 0].square()[: ranks[1]]
    if len(values) <= ranks[0]:
        return None
    rank = torch.arange(ranks[0], len(values) + 1, dtype=torch.float64)
    log_rank, log_value, weight = rank.log(), values[ranks[0] - 1 :].log(), 1 / rank
    log_rank, log_value = (logs - (weight * logs).sum() / weight.sum() for logs in (log_rank, log_value))
    return -float((weight * log_rank * log_value).sum() / (weight * log_rank * log_rank).sum())


def lidar(views: Float[Tensor, "views n dim"], *, delta: float = 1e-4) -> float | None:
    """LiDAR: effective rank of how images differ, in units of how views of one image differ; from 1 to dim.

        exp H(λ / Σλ),    λ of Σ_w^-½ Σ_b Σ_w^-½

    Σ_b is the scatter of images' means over views, n - 1 below; Σ_w that of views about them, n (views - 1) below, plus
    δ I. The paper takes 10 to 50 views an image; two are the least that Σ_w can be estimated from. None above
    `LIDAR_DIMENSIONS` dimensions; 0 where all images are the same.

    Source: Thilak et al. 2023, arXiv 2312.04000, eq. 1 to 4; its ε against log 0 is left out.

    Raises:
        ValueError: There is one view, or one image.
    """
    count, n, dim = views.shape
    if count < 2 or n < 2:
        raise ValueError(f"views must be of at least 2 views of 2 images, got {count} of {n}")
    if dim > LIDAR_DIMENSIONS:
        return None
    x = views.detach().cpu().double()
    mean = x.mean(0)
    residuals = (x - mean).flatten(0, 1)
    within = residuals.T @ residuals / (n * (count - 1))
    within.diagonal().add_(delta)
    between = (mean - mean.mean(0)) / (n - 1) ** 0.5
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(within), between.T, upper=False)
    values = singular_values(white).square()
    return float(torch.special.entr(values / values.sum()).sum().exp()) if values[0] > 0 else 0.0


def alignment(a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Mean of ‖a_i - b_i‖² over positive pairs on the unit sphere, in [0, 4]; 0 where views agree.

    Source: Wang & Isola 2020, arXiv 2005.10242, α = 2.
    """
    return (_unit(a) - _unit(b)).square().sum(1).mean()


def uniformity(features: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Uniformity: log mean exp(-2 ‖z_i - z_j‖²) over pairs i ≠ j on the unit sphere; 0 for a collapse, at least -8.

    Memory is linear in n. NaN for a single vector.

    Source: Wang & Isola 2020, arXiv 2005.10242, t = 2.
    """
    z = _unit(features)
    square = z.square().sum(1)
    total = z.new_zeros(())
    for rows, row_square in zip(z.split(CHUNK_ROWS), square.split(CHUNK_ROWS), strict=True):
        distance = row_square[:, None] + square - 2 * rows @ z.T
        total += torch.exp(-2 * distance.clamp(min=0)).sum()
    return ((total - len(z)) / (len(z) * (len(z) - 1))).log()


def dimension_std(features: Float[Tensor, "n dim"]) -> Float[Tensor, " dim"]:
    """Standard deviation (biased) over images of each dimension of the features on the unit sphere.

    About 1/√dim where features spread evenly, 0 where they have collapsed (Chen & He 2021, arXiv 2011.10566, §4.1).
    """
    return _unit(features).std(0, correction=0)


def health(a: Float[Tensor, "n dim"], views: Float[Tensor, "views n dim"]) -> dict[str, Any]:
    """All measures of health by name.

    LiDAR is of the views, alignment of the clean image and its first view, the others of the clean images. `spectrum`
    are the largest singular values, as fractions of the sum of all. `std` is the mean over dimensions times √dim: 1
    where features spread evenly, 0 after a collapse. `dead` is the fraction of dimensions without any spread.

    Args:
        a: Features of clean images.
        views: Features of views of the same images.
    """
    std, sigma = dimension_std(a), singular_values(a)
    return {
        "rankme": rankme(a).item(),
        "alpha_req": alpha_req(a),
        "lidar": lidar(views),
        "alignment": alignment(a, views[0]).item(),
        "uniformity": uniformity(a).item(),
        "std": std.mean().item() * len(std) ** 0.5,
        "dead": (std == 0).double().mean().item(),
        "spectrum": (sigma / sigma.sum().clamp(min=torch.finfo(sigma.dtype).tiny))[:SPECTRUM_LENGTH].tolist(),
    }


def _unit(features: Tensor) -> Tensor:
    """The features' directions, in float64; zero vectors stay zero."""
    return F.normalize(features.detach().cpu().double(), dim=1, eps=torch.finfo(torch.float64).tiny)
