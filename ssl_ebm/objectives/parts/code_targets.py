"""Targets that are distributions over latent codes: what is given (labels), centred and sharpened, spread equally."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.energies.codes import Codes, sinkhorn
from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives.parts.borrowed import Borrowed
from ssl_ebm.objectives.parts.queue import Queue
from ssl_ebm.objectives.parts.targets import Branch, Target


@dataclass(frozen=True, kw_only=True)
class Sharpness:
    """A temperature that goes linearly from `first` to `last` over the first `warmup` of the training."""

    last: float
    first: float | None = None
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not (self.last > 0 and (self.first is None or self.first > 0)):
            raise ValueError(f"target temperatures must be > 0, got {self.last} and {self.first}")
        if not 0 <= self.warmup <= 1:
            raise ValueError(f"warmup must be a fraction in [0, 1], got {self.warmup}")

    def at(self, progress: float) -> float:
        """The temperature when so much of the training is done."""
        first = self.last if self.first is None else self.first
        return first + (self.last - first) * (min(1.0, progress / self.warmup) if self.warmup else 1.0)


class LabelTarget(Target):
    """The image's own class as a distribution over codes, one code a class: δ(k, label). Data, so nothing is detached.

    Images without a label (-1) have no distribution, and cost nothing.

    Args:
        count: Number of classes.
    """

    uses = frozenset({"label"})
    same_view = True
    distribution = True

    def __init__(self, *, count: int) -> None:
        super().__init__()
        self.classes, self.count = count, count

    def forward(self, embeddings: Embeddings) -> Branch:
        """One-hot labels, the same for every view."""
        label = embeddings.require("label", why="a target of labels")
        hot = F.one_hot(label.clamp(min=0), self.count) * (label >= 0)[:, None]
        return hot.to(embeddings.projection.dtype).expand(len(embeddings.projection), -1, -1)


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
        self.of, self.codes = of, Borrowed(codes)  # the codes are the energy's
        self.uses = of.uses

    @torch.no_grad()
    def logits(self, embeddings: Embeddings) -> Float[Tensor, "views batch codes"]:
        """Of the global views."""
        return self.codes.module.logits(self.of(embeddings)[: embeddings.global_views].detach())

    def teacher_momentum(self, progress: float) -> float | None:
        """That of the target inside."""
        return self.of.teacher_momentum(progress)


class Centred(CodeTarget):
    """softmax((t - C) / τ): centring works against one code for all, sharpening against all codes for each.

    C is a running mean of the teacher's logits, updated after scoring: C ← m C + (1 - m) mean t. τ is that of
    `Sharpness`. DINO (arXiv 2104.14294): τ .04, m .9. Without centring (`center_momentum` None) it only sharpens.
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
        if center_momentum is not None and not 0 <= center_momentum < 1:
            raise ValueError(f"center_momentum must be in [0, 1) or None, got {center_momentum}")
        self.sharpness = Sharpness(last=temperature, first=warmup_temperature, warmup=warmup)
        self.temperature = self.sharpness.at(0.0)
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(count))

    def set_progress(self, fraction: float) -> None:
        """Move the temperature."""
        self.temperature = self.sharpness.at(fraction)

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
        return f"temperature={self.sharpness.last:g}, center_momentum={self.center_momentum}"


class Equipartition(CodeTarget):
    """Codes assigned so that each is used equally often in the batch of all ranks, by Sinkhorn's iterations; per view.

    exp(logits / ε) scaled alternately to equal columns and rows. SwAV (arXiv 2006.09882): ε .05, 3 iterations.

    Args:
        of: Where the embeddings come from.
        codes: What gives their logits.
        epsilon: ε, the temperature of the scores.
        warmup_epsilon: What ε starts from, as the temperature of `Sharpness`; None: from ε.
        warmup: Fraction of the training in which it moves.
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
        warmup_epsilon: float | None = None,
        warmup: float = 0.0,
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
        self.sharpness = Sharpness(last=epsilon, first=warmup_epsilon, warmup=warmup)
        self.epsilon, self.iterations, self.softmax_first = self.sharpness.at(0.0), iterations, softmax_first
        self.queue_start, self.progress = float(queue_start), 0.0
        self.queues = nn.ModuleList(Queue(size=queue_size, dim=int(dim or 0)) for _ in range(2 if queue_size else 0))

    def set_progress(self, fraction: float) -> None:
        """Move ε; start to use the queue."""
        self.progress, self.epsilon = fraction, self.sharpness.at(fraction)

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
        return [self.codes.module.logits(queue.vectors.to(like.dtype)) / self.epsilon] if full else []

    def update(self, embeddings: Embeddings) -> None:
        """Enqueue the global views."""
        if self.queues:
            for queue, z in zip(self.queues, self.of(embeddings)[: embeddings.global_views], strict=False):
                assert isinstance(queue, Queue)
                queue.push(z)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"epsilon={self.sharpness.last:g}, iterations={self.iterations}"
