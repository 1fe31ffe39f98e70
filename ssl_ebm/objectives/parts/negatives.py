"""What an anchor is compared with: its positives, and where its negatives come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.energies.rows import Comparison, Listing, Pairs, SameKey
from ssl_ebm.objectives.parts.compatibility import BatchNames
from ssl_ebm.objectives.parts.queue import Queue

ViewPair = tuple[int, int]  # (anchor's view, view of the target)
Branch = Float[Tensor, "views batch dim"]
Targets = Float[Tensor, "target_views batch target_dim"]  # codes have a dimension of their own


class Negatives(nn.Module):
    """Comparisons of a batch's anchors with their positives; this base class gives no negatives.

    Attributes:
        gives_negatives: True if comparisons have candidates, of which all but the excluded are negatives.
        takes_graph: True if positives may be a graph's neighbours instead of the views of the anchor's image.
        dim: Dimension of the embeddings that it is made for; None: any.
    """

    gives_negatives: bool = False
    takes_graph: bool = True
    dim: int | None = None

    def forward(
        self, anchors: Branch, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None
    ) -> list[Comparison]:
        """What is compared for the given pairs of views.

        Args:
            anchors: The local batch's a, of every view.
            targets: The local batch's b, of every view.
            pairs: Which views are compared.
            names: A graph that says which samples are compatible, and the batch's in it; None: views of one image are.
        """
        if names is None:
            chosen, partners = [anchors[a] for a, _ in pairs], [targets[b] for _, b in pairs]
            return [Comparison(anchors=torch.cat(chosen), positives=[torch.cat(partners)])]
        i, j = names.graph(names.local, names.everywhere)
        everywhere = distributed.gather(targets, dim=1)
        return [Comparison(anchors=anchors[a], positives=Listing(i, everywhere[b][j])) for a, b in pairs]

    def update(self, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None) -> None:
        """Store a scored batch, in training."""


class BatchNegatives(Negatives):
    """The other images of the batch, over all ranks.

    Args:
        views: "all": negatives from every view, 2N - 2 an anchor for two views (SimCLR); "other": from the target's
            view only, N - 1 an anchor (SigLIP, spectral).
    """

    gives_negatives = True

    def __init__(self, *, views: str = "all") -> None:
        super().__init__()
        if views not in ("all", "other"):
            raise ValueError(f"views must be 'all' or 'other', got {views!r}")
        self.views = views

    def forward(
        self, anchors: Branch, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None
    ) -> list[Comparison]:
        """As in `Negatives`; anchors are local, candidates are of all ranks.

        Anchor views with as many positives make one comparison, because its rows must be equally long. Local crops are
        never targets, so they have one positive more than global crops.
        """
        everywhere = distributed.gather(targets, dim=1)
        place = torch.arange(anchors.shape[1], device=anchors.device) + distributed.rank() * anchors.shape[1]
        groups = [({a: [b]}, [b]) for a, b in pairs]  # target views of each anchor view, and the candidates' views
        if self.views == "all":
            partners = {a: [b for c, b in pairs if c == a] for a in sorted({a for a, _ in pairs})}
            parts = [{a: partners[a] for a in partners if (a < len(targets)) == target} for target in (True, False)]
            groups = [(part, list(range(len(targets)))) for part in parts if part]
        comparisons = []
        for partners, among in groups:
            every_anchor, every_target = len(partners) == len(anchors), len(among) == len(targets)
            rows = anchors.flatten(0, 1) if every_anchor else torch.cat([anchors[a] for a in partners])
            columns = everywhere.flatten(0, 1) if every_target else everywhere[among].flatten(0, 1)
            symmetric = every_anchor and every_target and targets is anchors and everywhere is targets
            if names is not None:
                own_views = [a if self.views == "all" and a < len(targets) else None for a in partners]
                comparisons.append(_by_graph(names, rows, columns, own_views, symmetric=symmetric))
                continue
            image = place.repeat(len(partners))
            views_of_image = torch.cat([image + view * everywhere.shape[1] for view in range(len(among))])
            comparisons.append(
                Comparison(
                    anchors=rows,
                    positives=[
                        torch.cat([targets[b] for b in views]) for views in zip(*partners.values(), strict=True)
                    ],
                    candidates=columns,
                    excluded=Pairs(torch.arange(len(rows), device=image.device).repeat(len(among)), views_of_image),
                    symmetric=symmetric,
                )
            )
        return comparisons

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"views={self.views!r}"


def _by_graph(
    names: BatchNames,
    rows: Float[Tensor, "n dim"],
    columns: Float[Tensor, "m dim"],
    own_views: Sequence[int | None],
    *,
    symmetric: bool,
) -> Comparison:
    """Anchors whose positives are all views of their neighbours but the anchor itself; the rest are negatives.

    Args:
        names: The graph, and the names of the local images and of those of all ranks.
        rows: Views of the local images, one view after another.
        columns: Views of all images, likewise.
        own_views: Of each view among the rows, which view of the columns is the same vectors; None: none.
        symmetric: Rows and columns are the same.
    """
    local, everywhere = len(names.local), len(names.everywhere)
    place = torch.arange(local, device=rows.device)
    own = [
        Pairs(place + i * local, place + distributed.rank() * local + view * everywhere)
        for i, view in enumerate(own_views)
        if view is not None
    ]
    itself = Pairs(*(torch.cat(side) if own else place[:0] for side in (zip(*own, strict=True) if own else ((), ()))))
    if names.keys:
        key = SameKey(names.local.repeat(len(rows) // local), names.everywhere.repeat(len(columns) // everywhere))
        return Comparison(
            anchors=rows, positives=key, candidates=columns, excluded=key, itself=itself, symmetric=symmetric
        )
    i, j = names.graph(names.local, names.everywhere)
    first_row = torch.arange(0, len(rows), local, device=i.device)[:, None, None]
    first_column = torch.arange(0, len(columns), everywhere, device=i.device)[:, None]
    shape = (len(first_row), len(first_column), len(i))
    i, j = (i + first_row).expand(shape).flatten(), (j + first_column).expand(shape).flatten()
    column_itself = torch.full((len(rows),), -1, device=i.device).index_copy(0, *itself)
    other = j != column_itself[i]
    return Comparison(
        anchors=rows, positives=Listing(i[other], columns[j[other]]), candidates=columns, excluded=Pairs(i, j)
    )


class QueueNegatives(Negatives):
    """The last `size` targets of earlier batches (MoCo, arXiv 1911.05722); scored first, enqueued after.

    With a graph, positives are the batch's neighbours, and entries of neighbours are no negatives.
    """

    gives_negatives = True

    def __init__(self, *, size: int = 65536, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.queue = Queue(size=size, dim=dim)

    def forward(
        self, anchors: Branch, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None
    ) -> list[Comparison]:
        """As in `Negatives`; every anchor takes the whole queue."""
        queue, excluded = self.queue.snapshot(anchors.dtype), None
        if names is not None:
            assert self.queue.samples is not None
            excluded = Pairs(*names.graph(names.local, self.queue.samples))
        positives = super().forward(anchors, targets, pairs, names)
        return [replace(comparison, candidates=queue, excluded=excluded) for comparison in positives]

    @torch.no_grad()
    def update(self, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None) -> None:
        """Overwrite the oldest entries by the targets just scored."""
        for view in sorted({b for _, b in pairs}):
            self.queue.push(targets[view], None if names is None else names.local.clamp(min=-1))
