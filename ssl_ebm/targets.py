"""What is done to the branch that an anchor is compared with.

First where it comes from: the projection itself, without gradient, a teacher's, the nearest neighbour's. Then, for
latent codes, how it becomes a distribution: centred and sharpened, or spread equally over the codes; these wrap one of
the former.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.codes import Codes, sinkhorn
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.queues import Queue

Branch = Float[Tensor, "views batch dim"]


class Target(nn.Module):
    """The branch compared with: here the other view's projection itself, with its gradient.

    Attributes:
        uses: Optional embeddings that it reads.
        same_view: Whether a view is compared with its own target (a memory of the image) instead of the other views'.
        distribution: Whether it gives distributions over codes instead of embeddings.
        dim: Dimension of the embeddings that it is made for; None: any.
        conservative: Whether the update is the gradient of a function; not so where the network's present output is
            taken as a constant.
    """

    uses: frozenset[str] = frozenset()
    same_view: bool = False
    distribution: bool = False
    conservative: bool = True
    dim: int | None = None

    def forward(self, embeddings: Embeddings) -> Branch:
        """Targets of every view, or of the global views."""
        return embeddings.projection

    def update(self, embeddings: Embeddings) -> None:
        """Take note of a batch after it was scored, in training."""

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


class CodeTarget(Target):
    """A distribution over codes, made of another target's embeddings of the global views; without gradient.

    Args:
        of: Where the embeddings come from: `StopGradient` or `Teacher`.
        codes: What gives their logits.
    """

    distribution = True
    conservative = False

    def __init__(self, *, of: Target, codes: Codes) -> None:
        super().__init__()
        self.of, self.codes = of, (codes,)  # in a tuple: the energy owns them
        self.uses = of.uses

    @torch.no_grad()
    def logits(self, embeddings: Embeddings) -> Float[Tensor, "views batch codes"]:
        """Of the global views."""
        return self.codes[0].logits(self.of(embeddings)[: embeddings.global_views].detach())

    def teacher_momentum(self, progress: float) -> float | None:
        """That of the target inside."""
        return self.of.teacher_momentum(progress)


class Centred(CodeTarget):
    """softmax((t - C) / τ): centring works against one code for all, sharpening against all codes for each.

    C is a running mean of the teacher's logits, updated after scoring: C ← m C + (1 - m) mean t. τ rises linearly from
    `warmup_temperature` over the first `warmup` of the training. DINO (arXiv 2104.14294): τ .04, m .9. Without centring
    (`center_momentum` None) it only sharpens.
    """

    center: Tensor

    def __init__(
        self,
        *,
        of: Target,
        codes: Codes,
        count: int,
        temperature: float = 0.04,
        warmup_temperature: float | None = None,
        warmup: float = 0.0,
        center_momentum: float | None = 0.9,
    ) -> None:
        super().__init__(of=of, codes=codes)
        first = temperature if warmup_temperature is None else warmup_temperature
        if not (temperature > 0 and first > 0):
            raise ValueError(f"target temperatures must be > 0, got {temperature} and {first}")
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup must be a fraction in [0, 1], got {warmup}")
        if center_momentum is not None and not 0 <= center_momentum < 1:
            raise ValueError(f"center_momentum must be in [0, 1) or None, got {center_momentum}")
        self.first, self.last, self.warmup = float(first), float(temperature), float(warmup)
        self.temperature = self.first if warmup else self.last
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(count))

    def set_progress(self, fraction: float) -> None:
        """Raise the temperature."""
        risen = min(1.0, fraction / self.warmup) if self.warmup else 1.0
        self.temperature = self.first + (self.last - self.first) * risen

    def forward(self, embeddings: Embeddings) -> Branch:
        """Distributions over codes."""
        logits = self.logits(embeddings)
        return F.softmax((logits - self.center.to(logits.dtype)) / self.temperature, dim=-1)

    @torch.no_grad()
    def update(self, embeddings: Embeddings) -> None:
        """Move the centre towards the batch's mean logits, over all ranks."""
        if self.center_momentum is not None:
            batch = distributed.mean(self.logits(embeddings).mean((0, 1))).to(self.center.dtype)
            self.center.lerp_(batch, 1 - self.center_momentum)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"temperature={self.last:g}, center_momentum={self.center_momentum}"


class Equipartition(CodeTarget):
    """Codes assigned so that each is used equally often in the batch of all ranks, by Sinkhorn's iterations; per view.

    exp(logits / ε) scaled alternately to equal columns and rows. SwAV (arXiv 2006.09882): ε .05, 3 iterations.

    Args:
        of: Where the embeddings come from.
        codes: What gives their logits.
        epsilon: ε, the temperature of the scores.
        iterations: Of Sinkhorn; 0: the softmax of logits / ε.
        softmax_first: Start from each sample's softmax instead of its scores, as MSN's code does.
        queue_size: Embeddings of earlier batches, a view each, that small batches are filled up with; 0: none.
        dim: Of the embeddings; only with a queue.
        queue_start: Fraction of the training from which the queue is used, once it is full.
    """

    def __init__(
        self,
        *,
        of: Target,
        codes: Codes,
        epsilon: float = 0.05,
        iterations: int = 3,
        softmax_first: bool = False,
        queue_size: int = 0,
        dim: int | None = None,
        queue_start: float = 0.0,
    ) -> None:
        super().__init__(of=of, codes=codes)
        if not epsilon > 0 or iterations < 0:
            raise ValueError(f"epsilon must be > 0 and iterations >= 0, got {epsilon} and {iterations}")
        if queue_size and dim is None:
            raise ValueError("a queue needs the dim of its embeddings")
        self.epsilon, self.iterations, self.softmax_first = float(epsilon), iterations, softmax_first
        self.queue_start, self.progress = float(queue_start), 0.0
        self.queues = nn.ModuleList(Queue(size=queue_size, dim=int(dim or 0)) for _ in range(2 if queue_size else 0))

    def set_progress(self, fraction: float) -> None:
        """Start to use the queue."""
        self.progress = fraction

    @torch.no_grad()
    def forward(self, embeddings: Embeddings) -> Branch:
        """Distributions over codes."""
        logits = self.logits(embeddings)
        n, first = logits.shape[1], distributed.rank() * logits.shape[1]
        assigned = []
        for view, scores in enumerate(distributed.gather(logits, dim=1) / self.epsilon):
            scores = torch.cat([scores, *self._remembered(view, logits)])
            if self.softmax_first or not self.iterations:
                scores = scores.log_softmax(1)
            assigned.append(sinkhorn(scores, iterations=self.iterations)[first : first + n])
        return torch.stack(assigned)

    def _remembered(self, view: int, like: Tensor) -> list[Tensor]:
        if view >= len(self.queues) or self.progress < self.queue_start:
            return []
        queue = self.queues[view]
        assert isinstance(queue, Queue)
        full = bool(queue.pushed >= len(queue))
        return [self.codes[0].logits(queue.vectors.to(like.dtype)) / self.epsilon] if full else []

    def update(self, embeddings: Embeddings) -> None:
        """Enqueue the global views."""
        if self.queues:
            for queue, z in zip(self.queues, self.of(embeddings)[: embeddings.global_views], strict=False):
                assert isinstance(queue, Queue)
                queue.push(z)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"epsilon={self.epsilon:g}, iterations={self.iterations}"
