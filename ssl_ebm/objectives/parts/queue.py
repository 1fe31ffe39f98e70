"""A ring buffer of the last embeddings, which is equal on all ranks and travels in the state dict."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed


class Queue(nn.Module):
    """The last `size` unit vectors that were pushed; random ones at first, as in MoCo's code (arXiv 1911.05722).

    Attributes:
        vectors: The entries, of which the oldest are overwritten first.
        samples: The image or class that each entry shows, -1 where unknown; None unless `remember_samples` was called.
        pushed: Number of entries ever pushed.
    """

    vectors: Tensor
    samples: Tensor | None
    pushed: Tensor

    def __init__(self, *, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"queue size must be >= 1, got {size}")
        vectors = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("vectors", F.normalize(vectors, dim=1))
        self.register_buffer("pushed", torch.zeros((), dtype=torch.int64))
        self.register_buffer("samples", None)

    def __len__(self) -> int:
        return len(self.vectors)

    def remember_samples(self) -> None:
        """Store, from now on, the image or class that each entry shows."""
        self.samples = torch.full((len(self),), -1, device=self.vectors.device)

    def snapshot(self, dtype: torch.dtype) -> Float[Tensor, "size dim"]:
        """A copy of all entries that a later push leaves alone, because the backward may still need it."""
        return self.vectors.to(dtype, copy=True)

    @torch.no_grad()
    def push(self, z: Float[Tensor, "n dim"], samples: Int[Tensor, " n"] | None = None) -> None:
        """Overwrite the oldest entries with the z of all ranks."""
        size = len(self)
        z = F.normalize(distributed.gather(z.detach()), dim=1)[-size:].to(self.vectors.dtype)
        slots = (self.pushed + torch.arange(len(z), device=z.device)) % size
        self.vectors[slots] = z
        if self.samples is not None and samples is not None:
            self.samples[slots] = distributed.gather(samples)[-size:]
        self.pushed.add_(len(z))

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"size={len(self)}"
