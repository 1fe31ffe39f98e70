"""E(x) of an image as networks and a head compute it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.generative.heads import Head, JointHead
from ssl_ebm.networks.encoder import Encoder


class ImageEnergy(nn.Module):
    """E(x) = head(encoder(x)), or head(projector(encoder(x))) or head(x), by what the head `reads`.

    The networks may compute in half precision; the head gets and gives the images' precision.

    Args:
        encoder: Backbone with its normalisation.
        projector: What the head sees features through, where it reads projections.
        head: See `heads`.
        bank: Projections of a batch of views; only for the joint head.
        autocast: The context that the networks run in.

    Raises:
        ValueError: The joint head has no bank.
    """

    def __init__(
        self,
        encoder: Encoder,
        projector: nn.Module,
        head: Head,
        *,
        bank: Float[Tensor, "m d"] | None = None,
        autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        super().__init__()
        if isinstance(head, JointHead) and bank is None:
            raise ValueError("the joint head's E(x) is a sum over a batch of views: give bank=images")
        self.encoder, self.head, self.bank, self.autocast = encoder, head, bank, autocast
        self.projector = projector if head.reads == "projection" else None

    def embed(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n ..."]:
        """What the head reads of images in [0, 1]."""
        if self.head.reads == "images":
            return x
        with self.autocast():
            embedding = self.encoder.at_any_size(x)
            if self.projector is not None:
                embedding = self.projector(embedding)
        return embedding.to(x.dtype)

    def of(self, embedding: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
        """E of images whose `embed` was computed already."""
        if isinstance(self.head, JointHead):
            assert self.bank is not None
            return self.head(embedding, self.bank)
        return self.head(embedding)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """E of images in [0, 1]."""
        return self.of(self.embed(x))
