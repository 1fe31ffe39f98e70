"""White coordinates W (x - μ), Wᵀ W = C⁻¹: every direction has variance 1 and no two are correlated."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from ssl_ebm.energies.pairwise import Energy, Factor, Side, SquaredEuclidean

METHODS = ("cholesky", "zca")
Matrix = Float[Tensor, "*batch dim dim"]


def eigh(matrix: Matrix) -> tuple[Float[Tensor, "*batch dim"], Matrix]:
    """Eigenvalues and eigenvectors; NaN instead of an exception where the matrix is not finite."""
    finite = matrix.isfinite().flatten(-2).all(-1)
    values, vectors = torch.linalg.eigh(torch.where(finite[..., None, None], matrix, 0.0))
    return torch.where(finite[..., None], values, torch.nan), vectors


class _InverseSquareRoot(torch.autograd.Function):
    """C^(-1/2). Its derivative divides by sums of roots, not by differences: equal eigenvalues are no problem."""

    @staticmethod
    def forward(ctx: Any, covariance: Tensor) -> Tensor:
        values, vectors = eigh(covariance)
        roots = values.rsqrt()
        ctx.save_for_backward(roots, vectors)
        return vectors * roots.unsqueeze(-2) @ vectors.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        roots, vectors = ctx.saved_tensors
        a, b = roots.unsqueeze(-1), roots.unsqueeze(-2)
        inner = vectors.mT @ gradient @ vectors
        return vectors @ (-inner * (a * b).square() / (a + b)) @ vectors.mT


def ridged(covariance: Matrix, eps: float) -> Matrix:
    """C + ε (tr C / D + 1e-4) I: positive definite where C is singular or zero, and ε is relative to its scale."""
    dim = covariance.shape[-1]
    trace = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    return covariance + eps * (trace + 1e-4)[..., None, None] * torch.eye(dim).to(covariance)


def cholesky(covariance: Matrix) -> Matrix:
    """L of C = L Lᵀ; NaN instead of an exception where C is not positive definite."""
    factor, failed = torch.linalg.cholesky_ex(covariance)
    return torch.where(failed[..., None, None] > 0, torch.nan, factor)


def whiten(x: Float[Tensor, "*batch n dim"], *, method: str, eps: float) -> Float[Tensor, "*batch n dim"]:
    """White coordinates of n samples in their own mean and unbiased covariance.

    Cholesky's W is triangular and depends on the order of the dimensions; ZCA's is symmetric: it turns with x.

    Raises:
        ValueError: The method is neither "cholesky" nor "zca".
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    centred = x - x.mean(-2, keepdim=True)
    covariance = ridged(centred.mT @ centred / (x.shape[-2] - 1), eps)
    if method == "cholesky":
        return torch.linalg.solve_triangular(cholesky(covariance), centred.mT, upper=False).mT
    return centred @ _InverseSquareRoot.apply(covariance)


class Whitened(Energy):
    """E(a, b) = 2 - 2 cos(W (a - μ), W (b - μ)), Wᵀ W = C⁻¹, in [0, 4]: W-MSE's distance, of one pair alone.

    μ and C are running statistics of all views, which `update` moves; cosines are the same for every W. Buffers are
    float64, as C may be nearly singular; so is what is computed with them.

    Args:
        dim: Of the embeddings.
        momentum: What is left of the old statistics after a batch; the first batch's are copied.
        eps: ε of the ridge on C.
    """

    updates = True
    nonnegative = True
    bound = 4.0
    formula = "2 - 2 cos(W {a}, W {b})"
    mean: Tensor
    covariance: Tensor
    whitener: Tensor
    batches: Tensor

    def __init__(self, *, dim: int, momentum: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.dim, self.momentum, self.eps = dim, float(momentum), float(eps)
        self.square = SquaredEuclidean(normalize=True)
        self.register_buffer("mean", torch.zeros(dim, dtype=torch.float64))
        self.register_buffer("covariance", torch.eye(dim, dtype=torch.float64))
        self.register_buffer("whitener", torch.eye(dim, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def whiten(self, x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
        """Unit vectors in white coordinates."""
        if x.shape[1] != len(self.mean):
            raise ValueError(
                f"embeddings have {x.shape[1]} dimensions and the running statistics {len(self.mean)}: give the "
                "objective the projector that the model has"
            )
        return F.normalize((x.double() - self.mean.double()) @ self.whitener.double().T, dim=1).to(x.dtype)

    def factor(self, x: Float[Tensor, "n dim"], side: Side) -> Factor:
        """That of the squared distance of unit vectors in white coordinates."""
        return self.square.factor(self.whiten(x), side)

    def paired(self, a: Float[Tensor, "n dim"], b: Float[Tensor, "n dim"]) -> Float[Tensor, " n"]:
        """E(a_i, b_i) from the difference: exact where the two are close."""
        return self.square.paired(self.whiten(a), self.whiten(b))

    @torch.no_grad()
    def update(self, z: Float[Tensor, "views batch dim"]) -> None:
        """Move mean and covariance towards the batch's, its views taken as one sample, and find W anew."""
        flat = z.flatten(0, 1).double()
        mean = flat.mean(0)
        covariance = (flat - mean).T @ (flat - mean) / (len(flat) - 1)
        old = self.momentum * (self.batches > 0).double()
        self.mean.copy_(old * self.mean + (1 - old) * mean)
        self.covariance.copy_(old * self.covariance + (1 - old) * covariance)
        identity = torch.eye(len(mean)).to(flat)
        factor = cholesky(ridged(self.covariance.double(), self.eps))
        self.whitener.copy_(torch.linalg.solve_triangular(factor, identity, upper=False))
        self.batches.add_(1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"dim={len(self.mean)}, momentum={self.momentum:g}, eps={self.eps:g}"
