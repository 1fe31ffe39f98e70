"""Health of a representation without labels: rank, alignment, uniformity, spread.

All are computed in float64 on the CPU, which not every accelerator has, and have no gradient.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

CHUNK = 1024


def rankme(features: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """RankMe = exp(-Σ_k p_k log p_k), p = σ / Σσ, of the features' singular values; from 1 to min(n, dim), 0 for zeros.

    Features are not centred, as in the paper. Its ε = 1e-7, added to every p_k against log 0, is left out: 0 log 0 = 0
    here. σ² are eigenvalues of the smaller Gram matrix, those within its rounding taken as zero: cheap enough for a
    batch of 512 during training.

    Source: Garrido et al. 2023, arXiv 2210.02885, eq. 1.
    """
    x = features.detach().cpu().double()
    x = x / x.abs().amax().clamp(min=torch.finfo(x.dtype).tiny)
    gram = x @ x.T if x.shape[0] < x.shape[1] else x.T @ x
    squares = torch.linalg.eigvalsh(gram)
    squares = squares * (squares > max(x.shape) * torch.finfo(x.dtype).eps * squares[-1])
    sigma = squares.sqrt()
    return torch.where(squares[-1] > 0, torch.special.entr(sigma / sigma.sum()).sum().exp(), 0.0)


def alignment(a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """Mean of ‖a_i - b_i‖² over positive pairs on the unit sphere, in [0, 4]; 0 where views agree.

    Source: Wang & Isola 2020, arXiv 2005.10242, α = 2.
    """
    return (_unit(a) - _unit(b)).square().sum(1).mean()


def uniformity(features: Float[Tensor, "n dim"]) -> Float[Tensor, ""]:
    """The log of the mean of exp(-2 ‖z_i - z_j‖²) over i ≠ j on the unit sphere; 0 for a collapse, at least -8.

    Memory is linear in n. NaN for a single vector.

    Source: Wang & Isola 2020, arXiv 2005.10242, t = 2.
    """
    z = _unit(features)
    square = z.square().sum(1)
    total = z.new_zeros(())
    for part, own in zip(z.split(CHUNK), square.split(CHUNK), strict=True):
        distance = own[:, None] + square - 2 * part @ z.T
        total += torch.exp(-2 * distance.clamp(min=0)).sum()
    return ((total - len(z)) / (len(z) * (len(z) - 1))).log()


def dimension_std(features: Float[Tensor, "n dim"]) -> Float[Tensor, "dim"]:
    """Standard deviation over images of each dimension of the features on the unit sphere.

    About 1/√dim where they spread evenly, 0 where they have collapsed (Chen & He 2021, arXiv 2011.10566, §4.1). Biased.
    """
    return _unit(features).std(0, correction=0)


def health(a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> dict[str, float]:
    """All of these of two views' features; `a` are the clean ones, which rank, uniformity and spread are of.

    `std` is the mean over dimensions times √dim: 1 where they spread evenly, 0 after a collapse. `dead` is the part of
    the dimensions without any spread.
    """
    std = dimension_std(a)
    return {
        "rankme": rankme(a).item(),
        "alignment": alignment(a, b).item(),
        "uniformity": uniformity(a).item(),
        "std": std.mean().item() * len(std) ** 0.5,
        "dead": (std == 0).double().mean().item(),
    }


def _unit(features: Tensor) -> Tensor:
    """Float64 directions; zero vectors stay zero."""
    return F.normalize(features.detach().cpu().double(), dim=1, eps=torch.finfo(torch.float64).tiny)
