"""Targets: what an anchor is compared with.

Here it is the other view's projection, with or without its gradient, a teacher's projection, or a nearest neighbour;
`code_targets` turns these into distributions over latent codes.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives.parts.queue import Queue

Branch = Float[Tensor, "views batch dim"]


class Target(nn.Module):
    """The embedding that an anchor is compared with.

    This default is the projection of the other view, and gradients flow into it.

    Attributes:
        uses: Optional embeddings that the target reads.
        same_view: True if a view is compared with its own target, such as a memory of the image, and not with those of
            the other views.
        distribution: True if targets are distributions over codes and not embeddings.
        dim: Dimension of the embeddings that the target is made for; None: any.
        classes: Number of classes that labels must have; None: any number, or labels are not read.
        conservative: True if the update is the gradient of a function; False if the network's present output is taken
            as a constant.
    """

    uses: frozenset[str] = frozenset()
    same_view: bool = False
    distribution: bool = False
    conservative: bool = True
    dim: int | None = None
    classes: int | None = None

    def forward(self, embeddings: Embeddings) -> Branch:
        """The targets of every view, or only of the global views."""
        return embeddings.projection

    def update(self, embeddings: Embeddings) -> None:
        """Remember a batch; called in training, after the batch was scored."""

    def fit_to(self, dataset_size: int) -> None:
        """How many images there are to train on, told before the first batch."""

    def set_progress(self, fraction: float) -> None:
        """Tell how much of the training is done, in [0, 1]; temperatures follow it."""

    def teacher_momentum(self, progress: float) -> float | None:
        """Momentum of the teacher's moving average at `progress` in [0, 1]; None where there is no teacher."""
        return None


class StopGradient(Target):
    """The projection of the other view as a constant (SimSiam, arXiv 2011.10566)."""

    conservative = False

    def forward(self, embeddings: Embeddings) -> Branch:
        """The projections, detached."""
        return embeddings.projection.detach()


class Teacher(Target):
    """The projection of a teacher, which is an exponential moving average of the network: t ← m t + (1 - m) θ.

    The momentum goes from `momentum` to `final_momentum` with the training progress, along a half cosine (BYOL,
    arXiv 2006.07733) or linearly (MSN, arXiv 2204.07141); equal values keep it constant (MoCo, arXiv 1911.05722).
    """

    uses = frozenset({"target"})
    conservative = False

    def __init__(
        self, *, momentum: float = 0.996, final_momentum: float = 1.0, schedule: Literal["cosine", "linear"] = "cosine"
    ) -> None:
        super().__init__()
        for name, value in (("momentum", momentum), ("final_momentum", final_momentum)):
            if not 0 <= value <= 1:
                raise ValueError(f"teacher {name} must be in [0, 1], got {value}")
        if schedule not in ("cosine", "linear"):
            raise ValueError(f"teacher schedule must be 'cosine' or 'linear', got {schedule!r}")
        self.momentum, self.final_momentum, self.schedule = float(momentum), float(final_momentum), schedule

    def forward(self, embeddings: Embeddings) -> Branch:
        """The teacher's projections, without gradient."""
        return embeddings.require("target", why="a teacher objective").detach()

    def teacher_momentum(self, progress: float) -> float | None:
        """m_final - (m_final - m_0) · (1 + cos(π progress)) / 2, or · (1 - progress)."""
        remaining = (1 + math.cos(math.pi * progress)) / 2 if self.schedule == "cosine" else 1 - progress
        return self.final_momentum - (self.final_momentum - self.momentum) * remaining

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"momentum={self.momentum:g}, final_momentum={self.final_momentum:g}"


class NearestNeighbour(Target):
    """The projection's nearest neighbour by cosine in a queue of the last `size` projections: NNCLR (arXiv 2104.14548).

    The neighbours of every view are looked up; the first view's projections are enqueued after scoring.
    """

    CHUNK_ENTRIES = 8192  # queue entries that are searched at a time

    def __init__(self, *, size: int = 98304, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.queue = Queue(size=size, dim=dim)

    @torch.no_grad()
    def forward(self, embeddings: Embeddings) -> Branch:
        """The nearest neighbours, which are unit vectors without gradient."""
        z = embeddings.projection.detach()
        queue = self.queue.snapshot(z.dtype)
        flat = F.normalize(z.flatten(0, 1), dim=1)
        best_of_chunks = [(flat @ chunk.T).max(1) for chunk in queue.split(self.CHUNK_ENTRIES)]
        chunk = torch.stack([best.values for best in best_of_chunks]).argmax(0)
        within = torch.stack([best.indices for best in best_of_chunks]).gather(0, chunk[None])[0]
        return queue[chunk * self.CHUNK_ENTRIES + within].unflatten(0, z.shape[:2])

    def update(self, embeddings: Embeddings) -> None:
        """Enqueue the projections of the first view."""
        self.queue.push(embeddings.projection[0])
