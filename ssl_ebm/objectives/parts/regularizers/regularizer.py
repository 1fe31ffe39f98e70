"""The base class of regularizers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

Views = Float[Tensor, "views batch dim"]


class Regularizer(nn.Module):
    """A statistic of all embeddings that is low where they are spread.

    Running statistics are buffers. `forward` leaves them as they are and notes their next values in `pending`; `update`
    takes those over, and is called in training only, after a finite loss.

    Args:
        weight: Factor of the regularizer in the objective's sum.

    Attributes:
        reads: The parts of the embeddings that are regularized, concatenated along the views.
        global_views_only: True if, with multi-crop, only the global views are regularized.
        gaussian: True if the two views' embeddings are white at the optimum, so that their canonical correlations give
            the pointwise mutual information.
    """

    reads: tuple[str, ...] = ("projection",)
    global_views_only: bool = False
    gaussian: bool = False

    def __init__(self, *, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = float(weight)
        self.pending: dict[str, Tensor] = {}

    def least_batch(self, dim: int) -> int:
        """The smallest batch that the statistic can be computed on, for embeddings of `dim` dimensions."""
        return 2

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """The value without its weight; z is the batch of all ranks, in float32 or float64."""
        raise NotImplementedError

    @torch.no_grad()
    def update(self) -> None:
        """Take over the statistics of the last batch."""
        for name, value in self.pending.items():
            getattr(self, name).copy_(value)
        self.pending = {}

    def check(self, z: Views, *, dim: int | None = None) -> None:
        """Refuse a batch that is too small, or of other dimensions than the running statistics.

        Raises:
            ValueError: With what to do about it.
        """
        name, (images, z_dim) = type(self).__name__, z.shape[1:]
        least = self.least_batch(z_dim)
        if images < least:
            fewer = f" at {z_dim} dimensions" if least > 2 else ""
            remedy = "a larger batch" + (" or a projector with a smaller out" if least > 2 else "")
            raise ValueError(f"{name} needs a batch of at least {least} images{fewer}, got {images}: use {remedy}")
        if dim is not None and z_dim != dim:
            raise ValueError(
                f"embeddings have {z_dim} dimensions and the statistics of {name} {dim}: give the objective the "
                "projector that the model has"
            )

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"weight={self.weight:g}"
