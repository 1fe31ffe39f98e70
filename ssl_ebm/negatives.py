"""Where the samples come from that an anchor is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ssl_ebm import distributed
from ssl_ebm.draws import Draws
from ssl_ebm.embeddings import Embeddings
from ssl_ebm.energies import Energy
from ssl_ebm.targets import Target
from ssl_ebm.tiles import Crossed, Paired, Rows

Pair = tuple[int, int]  # (anchor's view, view of the target)
Comparison = tuple[Rows, Rows | None]  # energies of positives, energies of negatives
Branch = Float[Tensor, "views batch dim"]
Targets = Float[Tensor, "target_views batch dim"]


class Negatives(nn.Module):
    """Rows of energies for every anchor of a batch; here positives only.

    Attributes:
        by_label: Whether positives may be all samples of the anchor's class instead of the views of its image.
    """

    by_label: bool = False

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], label: Int[Tensor, " n"] | None
    ) -> list[Comparison]:
        """Energies of positives and negatives for the given pairs of views.

        Args:
            energy: E.
            anchors: The local batch's a, of every view.
            targets: The local batch's b, of every view.
            pairs: Which views are compared.
            label: Class of each image where classes define compatibility; None: views of one image are compatible.
        """
        a, b = _one_after_another(anchors, targets, pairs)
        return [(Paired(energy.paired(a, b)[:, None]), None)]

    def update(self, targets: Targets, pairs: Sequence[Pair]) -> None:
        """Store a scored batch, in training."""


def _one_after_another(
    anchors: Branch, targets: Targets, pairs: Sequence[Pair]
) -> tuple[Float[Tensor, "n dim"], Float[Tensor, "n dim"]]:
    """Anchors of all pairs of views, and what each is compared with."""
    return torch.cat([anchors[a] for a, _ in pairs]), torch.cat([targets[b] for _, b in pairs])


class BatchNegatives(Negatives):
    """The other images of the batch, over all ranks.

    Args:
        views: "all": negatives from every view, 2N - 2 an anchor for two views (SimCLR); "other": from the target's
            view only, N - 1 an anchor (SigLIP, spectral).
    """

    by_label = True

    def __init__(self, *, views: str = "all") -> None:
        super().__init__()
        if views not in ("all", "other"):
            raise ValueError(f"views must be 'all' or 'other', got {views!r}")
        self.views = views

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], label: Int[Tensor, " n"] | None
    ) -> list[Comparison]:
        """As in `Negatives`; anchors are local, candidates gathered."""
        candidates = distributed.gather(targets, dim=1)
        (v, n), m = anchors.shape[:2], candidates.shape[1]
        place = torch.arange(n, device=anchors.device) + distributed.rank() * n
        key = torch.arange(m, device=anchors.device) if label is None else distributed.gather(label)
        if self.views == "other":
            return [
                self._compare(energy, anchors[a], candidates[b], (key[place], key), targets[b][None], None, label)
                for a, b in pairs
            ]
        chosen = sorted({a for a, _ in pairs})
        others = torch.stack([torch.cat([targets[(a + shift) % v] for a in chosen]) for shift in range(1, v)])
        itself = torch.cat([place + a * m for a in chosen])
        keys = (key[place].repeat(len(chosen)), key.repeat(v))
        flat = anchors.flatten(0, 1) if len(chosen) == v else torch.cat([anchors[a] for a in chosen])
        return [self._compare(energy, flat, candidates.flatten(0, 1), keys, others, itself, label)]

    @staticmethod
    def _compare(
        energy: Energy,
        anchors: Float[Tensor, "n dim"],
        candidates: Float[Tensor, "m dim"],
        keys: tuple[Int[Tensor, " n"], Int[Tensor, " m"]],
        views: Float[Tensor, "p n dim"],
        itself: Int[Tensor, " n"] | None,
        label: Tensor | None,
    ) -> Comparison:
        negative = Crossed(energy, anchors, candidates, keys=keys)
        if label is not None:
            return Crossed(energy, anchors, candidates, keys=keys, same=True, itself=itself), negative
        return Paired(torch.stack([energy.paired(anchors, view) for view in views], dim=1)), negative

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"views={self.views!r}"


class QueueNegatives(Negatives):
    """The last `size` targets of earlier batches (MoCo, arXiv 1911.05722); scored first, enqueued after.

    The queue is a buffer of unit vectors, random at first as in the authors' code, equal on all ranks.
    """

    queue: Tensor
    position: Tensor

    def __init__(self, *, size: int = 65536, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"queue size must be >= 1, got {size}")
        vectors = torch.randn(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("queue", F.normalize(vectors, dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], label: Int[Tensor, " n"] | None
    ) -> list[Comparison]:
        """As in `Negatives`; every anchor takes the whole queue."""
        if anchors.shape[-1] != self.queue.shape[1]:
            raise ValueError(
                f"embeddings have {anchors.shape[-1]} dimensions and the queue {self.queue.shape[1]}: give the "
                "objective the projector that the model has"
            )
        queue = self.queue.to(anchors.dtype, copy=True)  # the update below must not touch what the backward needs
        a, b = _one_after_another(anchors, targets, pairs)
        return [(Paired(energy.paired(a, b)[:, None]), Crossed(energy, a, queue))]

    @torch.no_grad()
    def update(self, targets: Targets, pairs: Sequence[Pair]) -> None:
        """Overwrite the oldest entries by the targets just scored."""
        size = len(self.queue)
        for view in sorted({b for _, b in pairs}):
            keys = F.normalize(distributed.gather(targets[view].detach()), dim=1)[-size:].to(self.queue.dtype)
            slots = (self.position + torch.arange(len(keys), device=keys.device)) % size
            self.queue[slots] = keys
            self.position.add_(len(keys)).remainder_(size)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"size={len(self.queue)}"


class Memory(Target):
    """One remembered embedding for each image of the data set; an anchor's target is the memory of its own image.

        v_i ← normalise(m v_i + (1 - m) z_i),

    z_i the mean of the views' unit projections. Instance discrimination (arXiv 1805.01978); starts uniform in
    ±√(3/D), as in the authors' code.
    """

    uses = frozenset({"index"})
    same_view = True
    vectors: Tensor

    def __init__(self, *, size: int, dim: int, momentum: float = 0.5) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"bank_size must be >= 1, got {size}")
        if not 0 <= momentum < 1:
            raise ValueError(f"bank_momentum must be in [0, 1), got {momentum}")
        self.momentum = float(momentum)
        uniform = torch.rand(size, dim, generator=torch.Generator().manual_seed(0))
        self.register_buffer("vectors", (uniform * 2 - 1) * (3 / dim) ** 0.5)

    def forward(self, embeddings: Embeddings) -> Branch:
        """The memory of each image, once a view."""
        index = embeddings.require("index", why="a memory bank")
        z = embeddings.projection
        return self.vectors[index].to(z.dtype).expand(z.shape[0], -1, -1)

    @torch.no_grad()
    def update(self, embeddings: Embeddings) -> None:
        """Move the batch's memories towards its embeddings."""
        index = distributed.gather(embeddings.require("index", why="a memory bank"))
        z = distributed.gather(F.normalize(embeddings.projection.detach(), dim=-1).mean(0)).to(self.vectors.dtype)
        self.vectors[index] = F.normalize(self.momentum * self.vectors[index] + (1 - self.momentum) * z, dim=1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"size={len(self.vectors)}, momentum={self.momentum:g}"


class MemoryNegatives(Negatives):
    """`draws` memories of random images, drawn uniformly with replacement once a batch and shared by its anchors.

    The authors' code draws for each anchor; sharing gives the same expected gradient without an N × draws × D tensor.
    A draw may hit the positive, as theirs may.
    """

    def __init__(self, memory: Memory, *, draws: int = 4096) -> None:
        super().__init__()
        if draws < 1:
            raise ValueError(f"draws must be >= 1, got {draws}")
        self.memory = (memory,)  # in a tuple: the target owns its state
        self.count = draws
        self.draws = Draws()

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], label: Int[Tensor, " n"] | None
    ) -> list[Comparison]:
        """As in `Negatives`; every anchor takes this batch's draws."""
        vectors = self.memory[0].vectors
        drawn = torch.randint(len(vectors), (self.count,), generator=self.draws.generator())
        candidates = vectors[drawn.to(vectors.device)].to(anchors.dtype)
        a, b = _one_after_another(anchors, targets, pairs)
        return [(Paired(energy.paired(a, b)[:, None]), Crossed(energy, a, candidates))]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"draws={self.count}"
