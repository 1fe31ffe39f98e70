"""Where the branch comes from that an anchor is compared with.

The projection itself, with or without its gradient, a teacher's, the nearest neighbour's; `assignments` makes
distributions over latent codes of them.
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
    """The branch compared with: here the other view's projection itself, with its gradient.

    Attributes:
        uses: Optional embeddings that it reads.
        same_view: Whether a view is compared with its own target (a memory of the image) instead of the other views'.
        distribution: Whether it gives distributions over codes instead of embeddings.
        dim: Dimension of the embeddings that it is made for; None: any.
        classes: Number of classes that labels must have; None: any, or none are read.
        conservative: Whether the update is the gradient of a function; not so where the network's present output is
            taken as a constant.
    """

    uses: frozenset[str] = frozenset()
    same_view: bool = False
    distribution: bool = False
    conservative: bool = True
    dim: int | None = None
    classes: int | None = None

    def forward(self, embeddings: Embeddings) -> Branch:
        """Targets of every view, or of the global views."""
        return embeddings.projection

    def update(self, embeddings: Embeddings) -> None:
        """Take note of a batch after it was scored, in training."""

    def fit_to(self, dataset_size: int) -> None:
        """How many images there are to train on, told before the first batch."""

    def set_progress(self, fraction: float) -> None:
        """How much of the training is done, in [0, 1]: drives temperatures."""

    def teacher_momentum(self, progress: float) -> float | None:
        """Momentum of the teacher's moving average at `progress` in [0, 1]; None where there is no teacher."""
        return None


class StopGradient(Target):
    """The projection as a constant (SimSiam, arXiv 2011.10566)."""

    conservative = False

    def forward(self, embeddings: Embeddings) -> Branch:
        """The projection, detached."""
        return embeddings.projection.detach()


class Teacher(Target):
    """The projection of a teacher, an exponential moving average of the network: t ← m t + (1 - m) θ.

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
        """The teacher's projection, without gradient."""
        return embeddings.require("target", why="a teacher objective").detach()

    def teacher_momentum(self, progress: float) -> float | None:
        """m_final - (m_final - m_0) · (1 + cos(π progress)) / 2, or · (1 - progress)."""
        left = (1 + math.cos(math.pi * progress)) / 2 if self.schedule == "cosine" else 1 - progress
        return self.final_momentum - (self.final_momentum - self.momentum) * left

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"momentum={self.momentum:g}, final_momentum={self.final_momentum:g}"


class NearestNeighbour(Target):
    """The nearest by cosine among the last `size` projections of other images: NNCLR (arXiv 2104.14548).

    Every view's neighbour is looked up; the first view's projections are enqueued after scoring.
    """

    CHUNK = 8192  # entries looked through at a time

    def __init__(self, *, size: int = 98304, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.queue = Queue(size=size, dim=dim)

    @torch.no_grad()
    def forward(self, embeddings: Embeddings) -> Branch:
        """The neighbours: unit vectors without gradient."""
        z = embeddings.projection.detach()
        queue = self.queue.snapshot(z.dtype)
        flat = F.normalize(z.flatten(0, 1), dim=1)
        parts = [(flat @ part.T).max(1) for part in queue.split(self.CHUNK)]
        best = torch.stack([part.values for part in parts]).argmax(0)
        within = torch.stack([part.indices for part in parts]).gather(0, best[None])[0]
        return queue[best * self.CHUNK + within].unflatten(0, z.shape[:2])

    def update(self, embeddings: Embeddings) -> None:
        """Enqueue the first view."""
        self.queue.push(embeddings.projection[0])
