"""A memory of one embedding for each image of the data set, as instance discrimination needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.energies.rows import Comparison
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives.parts.borrowed import Borrowed
from ssl_ebm.objectives.parts.compatibility import BatchNames
from ssl_ebm.objectives.parts.negatives import Branch, Negatives, Targets, ViewPair
from ssl_ebm.objectives.parts.shared_random import Draws
from ssl_ebm.objectives.parts.targets import Target


class Memory(Target):
    """One remembered embedding for each image of the data set; an anchor's target is the memory of its own image.

        v_i ← normalise(m v_i + (1 - m) z_i),

    z_i the mean of the views' unit projections. Instance discrimination (arXiv 1805.01978); entries start uniform in
    ±√(3/D), as in the authors' code.
    """

    uses = frozenset({"index"})
    same_view = True
    vectors: Tensor

    def __init__(self, *, size: int | None = None, dim: int, momentum: float = 0.5) -> None:
        super().__init__()
        if size is not None and size < 1:
            raise ValueError(f"bank_size must be >= 1, got {size}")
        if not 0 <= momentum < 1:
            raise ValueError(f"bank_momentum must be in [0, 1), got {momentum}")
        self.dim, self.momentum = dim, float(momentum)
        self.register_buffer("vectors", self._initial(size or 0, dim))

    @staticmethod
    def _initial(size: int, dim: int) -> Float[Tensor, "{size} {dim}"]:
        uniform = torch.rand(size, dim, generator=torch.Generator().manual_seed(0))
        return (uniform * 2 - 1) * (3 / dim) ** 0.5

    def fit_to(self, dataset_size: int) -> None:
        """As many memories as there are images, where the size was not given.

        Raises:
            ValueError: It was, and is too small.
        """
        if len(self.vectors) == 0:
            self.vectors = self._initial(dataset_size, self.vectors.shape[1]).to(self.vectors)
        if len(self.vectors) < dataset_size:
            raise ValueError(
                f"objective.bank_size={len(self.vectors)} is less than the {dataset_size} training images: leave it out"
            )

    def forward(self, embeddings: Embeddings) -> Branch:
        """The memory of each image, repeated for every view."""
        index = embeddings.require("index", why="a memory bank")
        if len(self.vectors) == 0:
            raise ValueError("a memory bank holds one entry for each image: call objective.fit_to(number of images)")
        z = embeddings.projection
        return self.vectors[index].to(z.dtype).expand(z.shape[0], -1, -1)

    @torch.no_grad()
    def update(self, embeddings: Embeddings) -> None:
        """Move the memory of each image of the batch towards its embeddings."""
        index = distributed.gather(embeddings.require("index", why="a memory bank"))
        z = distributed.gather(F.normalize(embeddings.projection.detach(), dim=-1).mean(0)).to(self.vectors.dtype)
        self.vectors[index] = F.normalize(self.momentum * self.vectors[index] + (1 - self.momentum) * z, dim=1)

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"size={len(self.vectors)}, momentum={self.momentum:g}"


class MemoryNegatives(Negatives):
    """The memories of `draws` random images are the negatives, drawn uniformly with replacement for each batch.

    All anchors of a batch share its draws; the authors' code draws for each anchor, which has the same expected
    gradient but needs an N × draws × D tensor. A draw may hit the positive, as there.
    """

    gives_negatives = True
    takes_graph = False

    def __init__(self, memory: Memory, *, draws: int = 4096) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws must be >= 1, got {draws}")
        self.memory = Borrowed(memory)  # owned by the target
        self.count = draws
        self.draws = Draws()

    def forward(
        self, anchors: Branch, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None
    ) -> list[Comparison]:
        """Compare anchors with their positives, and with the draws of this batch."""
        vectors = self.memory.module.vectors
        drawn = torch.randint(len(vectors), (self.count,), generator=self.draws.generator())
        candidates = vectors[drawn.to(vectors.device)].to(anchors.dtype)
        comparisons = super().forward(anchors, targets, pairs, None)
        return [replace(comparison, candidates=candidates) for comparison in comparisons]

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"draws={self.count}"
