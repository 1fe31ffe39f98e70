"""Where the samples come from that an anchor is compared with, and which of them are its positives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.energies.pairwise import Energy
from ssl_ebm.energies.rows import Listed, Paired, Rows
from ssl_ebm.energies.tiled.matrix import EnergyMatrix
from ssl_ebm.objectives.parts.compatibility import BatchNames
from ssl_ebm.objectives.parts.queue import Queue

Pair = tuple[int, int]  # (anchor's view, view of the target)
Comparison = tuple[Rows, Rows | None]  # energies of positives, energies of negatives
Branch = Float[Tensor, "views batch dim"]
Targets = Float[Tensor, "target_views batch target_dim"]  # codes have a dimension of their own


class Negatives(nn.Module):
    """Rows of energies for every anchor of a batch; here positives only.

    Attributes:
        takes_graph: Whether positives may be a graph's neighbours instead of the views of the anchor's image.
        dim: Dimension of the embeddings that it is made for; None: any.
    """

    takes_graph: bool = True
    dim: int | None = None

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], samples: BatchNames | None
    ) -> list[Comparison]:
        """Energies of positives and negatives for the given pairs of views.

        Args:
            energy: E.
            anchors: The local batch's a, of every view.
            targets: The local batch's b, of every view.
            pairs: Which views are compared.
            samples: The graph that says what is compatible; None: views of one image.
        """
        return [(positive, None) for positive in self._positives(energy, anchors, targets, pairs, samples)]

    @staticmethod
    def _positives(
        energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], samples: BatchNames | None
    ) -> list[Rows]:
        """One row an anchor and pair of views."""
        if samples is None:
            a, b = torch.cat([anchors[a] for a, _ in pairs]), torch.cat([targets[b] for _, b in pairs])
            return [Paired(energy.paired(a, b)[:, None])]
        i, j = samples.graph(samples.local, samples.everywhere)
        candidates = distributed.gather(targets, dim=1)
        return [Listed(energy.paired(anchors[a][i], candidates[b][j]), i, anchors.shape[1]) for a, b in pairs]

    def update(self, targets: Targets, pairs: Sequence[Pair], samples: BatchNames | None) -> None:
        """Store a scored batch, in training."""


class BatchNegatives(Negatives):
    """The other images of the batch, over all ranks.

    Args:
        views: "all": negatives from every view, 2N - 2 an anchor for two views (SimCLR); "other": from the target's
            view only, N - 1 an anchor (SigLIP, spectral).
    """

    def __init__(self, *, views: str = "all") -> None:
        super().__init__()
        if views not in ("all", "other"):
            raise ValueError(f"views must be 'all' or 'other', got {views!r}")
        self.views = views

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], samples: BatchNames | None
    ) -> list[Comparison]:
        """As in `Negatives`; anchors are local, candidates gathered."""
        candidates = distributed.gather(targets, dim=1)
        if self.views == "other":
            groups = [([a], [b], [[b]], False) for a, b in pairs]
        else:
            groups = self._groups(pairs, len(targets))
        compared = []
        for chosen, among, partners, itself in groups:
            same = energy.symmetric and targets is anchors and candidates is targets and len(chosen) == len(anchors)
            flat = anchors.flatten(0, 1) if len(chosen) == len(anchors) else torch.cat([anchors[a] for a in chosen])
            against = candidates.flatten(0, 1) if len(among) == len(candidates) else candidates[among].flatten(0, 1)
            side = _Side(energy, flat, against, anchors.shape[1], candidates.shape[1], own=chosen if itself else None)
            views = [torch.cat([targets[b] for b in which]) for which in zip(*partners, strict=True)]
            compared.append(side.compare(views, samples, symmetric=same))
        return compared

    @staticmethod
    def _groups(pairs: Sequence[Pair], targets: int) -> list[tuple[list[int], list[int], list[list[int]], bool]]:
        """Anchor views that have as many positives, each with all target views as candidates.

        With multi-crop, local views are no targets: they have one positive more, and none of the candidates is theirs.
        """
        partners: dict[int, list[int]] = {}
        for a, b in pairs:
            partners.setdefault(a, []).append(b)
        groups: dict[tuple[int, bool], list[int]] = {}
        for a in sorted(partners):
            groups.setdefault((len(partners[a]), a < targets), []).append(a)
        among = list(range(targets))
        return [(chosen, among, [partners[a] for a in chosen], own) for (_, own), chosen in groups.items()]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"views={self.views!r}"


class _Side:
    """Anchors of some views of the local batch, against candidates of some views of the whole batch."""

    def __init__(
        self,
        energy: Energy,
        anchors: Float[Tensor, "n dim"],
        candidates: Float[Tensor, "m dim"],
        local: int,
        everywhere: int,
        own: list[int] | None,
    ) -> None:
        self.energy, self.anchors, self.candidates = energy, anchors, candidates
        self.local, self.everywhere = local, everywhere
        self.place = torch.arange(local, device=anchors.device) + distributed.rank() * local
        self.itself = None if own is None else torch.cat([self.place + view * everywhere for view in own])

    def compare(
        self, views: list[Float[Tensor, "n dim"]], samples: BatchNames | None, *, symmetric: bool
    ) -> Comparison:
        """Positives and negatives: by image (its other `views`), by keys, or by a list of pairs."""
        energy, a, b = self.energy, self.anchors, self.candidates
        repeats = len(a) // self.local, len(b) // self.everywhere
        if samples is not None and not samples.keys:
            return self._by_list(samples, *repeats)  # a graph may be directed
        image = torch.arange(self.everywhere, device=a.device)
        local, everywhere = (self.place, image) if samples is None else (samples.local, samples.everywhere)
        keys = (local.repeat(repeats[0]), everywhere.repeat(repeats[1]))
        negative = EnergyMatrix(energy, a, b, keys=keys, symmetric=symmetric)
        if samples is None:
            return Paired(torch.stack([energy.paired(a, view) for view in views], dim=1)), negative
        return EnergyMatrix(energy, a, b, keys=keys, same=True, itself=self.itself, symmetric=symmetric), negative

    def _by_list(self, samples: BatchNames, anchor_views: int, candidate_views: int) -> Comparison:
        i, j = samples.graph(samples.local, samples.everywhere)
        shape = (anchor_views, candidate_views, len(i))
        ones = torch.arange(anchor_views, device=i.device)[:, None, None] * self.local
        others = torch.arange(candidate_views, device=i.device)[:, None] * self.everywhere
        rows, columns = (i + ones).expand(shape).flatten(), (j + others).expand(shape).flatten()
        negative = EnergyMatrix(self.energy, self.anchors, self.candidates, without=(rows, columns))
        if self.itself is not None:
            other = columns != self.itself[rows]
            rows, columns = rows[other], columns[other]
        energies = self.energy.paired(self.anchors[rows], self.candidates[columns])
        return Listed(energies, rows, len(self.anchors)), negative


class QueueNegatives(Negatives):
    """The last `size` targets of earlier batches (MoCo, arXiv 1911.05722); scored first, enqueued after.

    With a graph, positives are the batch's neighbours, and entries of neighbours are no negatives.
    """

    def __init__(self, *, size: int = 65536, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.queue = Queue(size=size, dim=dim)

    def forward(
        self, energy: Energy, anchors: Branch, targets: Targets, pairs: Sequence[Pair], samples: BatchNames | None
    ) -> list[Comparison]:
        """As in `Negatives`; every anchor takes the whole queue."""
        queue = self.queue.snapshot(anchors.dtype)
        positives = self._positives(energy, anchors, targets, pairs, samples)
        if samples is None:
            return [(positives[0], EnergyMatrix(energy, torch.cat([anchors[a] for a, _ in pairs]), queue))]
        assert self.queue.samples is not None
        without = samples.graph(samples.local, self.queue.samples)
        return [
            (positive, EnergyMatrix(energy, anchors[a], queue, without=without))
            for positive, (a, _) in zip(positives, pairs, strict=True)
        ]

    @torch.no_grad()
    def update(self, targets: Targets, pairs: Sequence[Pair], samples: BatchNames | None) -> None:
        """Overwrite the oldest entries by the targets just scored."""
        for view in sorted({b for _, b in pairs}):
            self.queue.push(targets[view], None if samples is None else samples.local.clamp(min=-1))
