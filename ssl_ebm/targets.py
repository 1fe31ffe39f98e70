"""What is done to the branch that an anchor is compared with."""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm.embeddings import Embeddings


class Target(nn.Module):
    """The branch compared with: here the other view's projection itself, with its gradient.

    Attributes:
        uses: Optional embeddings that it reads.
        same_view: Whether a view is compared with its own target (a memory of the image) instead of the other views'.
    """

    uses: frozenset[str] = frozenset()
    same_view: bool = False

    def forward(self, embeddings: Embeddings) -> Float[Tensor, "views batch dim"]:
        """Targets of every view."""
        return embeddings.projection

    def update(self, embeddings: Embeddings) -> None:
        """Take note of a batch after it was scored, in training."""

    def teacher_momentum(self, progress: float) -> float | None:
        """Momentum of the teacher's moving average at `progress` in [0, 1]; None where there is no teacher."""
        return None


class StopGradient(Target):
    """The projection as a constant (SimSiam, arXiv 2011.10566)."""

    def forward(self, embeddings: Embeddings) -> Float[Tensor, "views batch dim"]:
        """sg(z)."""
        return embeddings.projection.detach()


class Teacher(Target):
    """The projection of a teacher, an exponential moving average of the network: t ← m t + (1 - m) θ.

    The momentum rises from `momentum` to `final_momentum` along a half cosine of the training progress (BYOL,
    arXiv 2006.07733); equal values keep it constant (MoCo, arXiv 1911.05722).
    """

    uses = frozenset({"target"})

    def __init__(self, *, momentum: float, final_momentum: float = 1.0) -> None:
        super().__init__()
        for name, value in (("momentum", momentum), ("final_momentum", final_momentum)):
            if not 0 <= value <= 1:
                raise ValueError(f"teacher {name} must be in [0, 1], got {value}")
        self.momentum, self.final_momentum = float(momentum), float(final_momentum)

    def forward(self, embeddings: Embeddings) -> Float[Tensor, "views batch dim"]:
        """The teacher's projection, without gradient."""
        return embeddings.require("target", why="a teacher objective").detach()

    def teacher_momentum(self, progress: float) -> float | None:
        """m_final - (m_final - m_0) (1 + cos(π progress)) / 2."""
        return self.final_momentum - (self.final_momentum - self.momentum) * (1 + math.cos(math.pi * progress)) / 2

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"momentum={self.momentum:g}, final_momentum={self.final_momentum:g}"
