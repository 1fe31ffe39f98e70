"""What every regularizer promises."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

Views = Float[Tensor, "views batch dim"]


class Regularizer(nn.Module):
    """A statistic of all embeddings, low where they are spread.

    Running statistics are buffers. `forward` leaves them as they are and notes their next values in `pending`; `update`
    takes those over, and is called in training only, after a finite loss.

    Args:
        weight: Its factor in the objective's sum.

    Attributes:
        reads: Parts of the embeddings that it is given, one after another along the views.
        global_views_only: With multi-crop, whether it is given the global views only.
        gaussian: Whether the two views' embeddings are white at its optimum, so that their canonical correlations give
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
        """The smallest batch that it can be computed on, for embeddings of `dim` dimensions."""
        return 2

    def forward(self, z: Views) -> Float[Tensor, ""]:
        """The unweighted value; z is the batch of all ranks, in float32 or float64."""
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
        name, (images, got) = type(self).__name__, z.shape[1:]
        least = self.least_batch(got)
        if images < least:
            fewer = f" at {got} dimensions" if least > 2 else ""
            remedy = "a larger batch" + (" or a projector with a smaller out" if least > 2 else "")
            raise ValueError(f"{name} needs a batch of at least {least} images{fewer}, got {images}: use {remedy}")
        if dim is not None and got != dim:
            raise ValueError(
                f"embeddings have {got} dimensions and the statistics of {name} {dim}: give the objective the "
                "projector that the model has"
            )

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"weight={self.weight:g}"
