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
Targets = Float[Tensor, "target_views batch target_dim"]  # distributions over codes differ from anchors in dim


class Negatives(nn.Module):
    """The comparisons of a batch: this base class compares anchors with their positives, and gives no negatives.

    Attributes:
        gives_negatives: True if comparisons have candidates, of which all but the excluded are negatives.
        takes_graph: True if positives may be neighbours in a graph instead of the views of the anchor's image.
        dim: Dimension of the embeddings that the part is made for; None: any.
    """

    gives_negatives: bool = False
    takes_graph: bool = True
    dim: int | None = None

    def forward(
        self, anchors: Branch, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None
    ) -> list[Comparison]:
        """Compare the anchors of each pair of views with their positives.

        Args:
            anchors: The a of this rank's batch, for every view.
            targets: The b of this rank's batch, for every view.
            pairs: The views that are compared.
            names: A graph that says which samples are compatible, and the names of the batch's samples in it; None: the
                views of one image are compatible.
        """
        if names is None:
            paired_anchors, paired_targets = [anchors[a] for a, _ in pairs], [targets[b] for _, b in pairs]
            return [Comparison(anchors=torch.cat(paired_anchors), positives=[torch.cat(paired_targets)])]
        i, j = names.graph(names.local, names.everywhere)
        all_targets = distributed.gather(targets, dim=1)
        return [Comparison(anchors=anchors[a], positives=Listing(i, all_targets[b][j])) for a, b in pairs]

    def update(self, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None) -> None:
        """Remember a batch; called in training, after the batch was scored."""


class BatchNegatives(Negatives):
    """The other images of the batch of all ranks are the negatives.

    Args:
        views: "all": negatives from every view, 2N - 2 per anchor for two views (SimCLR); "other": from the target's
            view only, N - 1 per anchor (SigLIP, spectral).
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
        """Compare this rank's anchors with their positives, and with the other images of all ranks.

        Anchor views are grouped by their number of positives, because a block of rows must be rectangular. Local crops
        are never targets, so they have one positive more than global crops.
        """
        all_targets, local = distributed.gather(targets, dim=1), anchors.shape[1]
        groups = [({a: [b]}, [b]) for a, b in pairs]  # (positive views of each anchor view, candidates' views)
        if self.views == "all":
            positives = {a: [b for c, b in pairs if c == a] for a in sorted({a for a, _ in pairs})}
            global_crops = {a: views for a, views in positives.items() if a < len(targets)}
            local_crops = {a: views for a, views in positives.items() if a >= len(targets)}
            groups = [(crops, list(range(len(targets)))) for crops in (global_crops, local_crops) if crops]
        comparisons = []
        for positives, candidate_views in groups:
            every_anchor, every_target = len(positives) == len(anchors), len(candidate_views) == len(targets)
            rows = anchors.flatten(0, 1) if every_anchor else torch.cat([anchors[a] for a in positives])
            columns = all_targets.flatten(0, 1) if every_target else all_targets[candidate_views].flatten(0, 1)
            symmetric = every_anchor and every_target and targets is anchors and all_targets is targets
            if names is not None:
                own_views = [a if self.views == "all" and a < len(targets) else None for a in positives]
                comparisons.append(_by_graph(names, rows, columns, own_views, symmetric=symmetric))
                continue
            row = torch.arange(len(rows), device=rows.device)
            first_column = row % local + distributed.rank() * local  # the anchor's image in the first candidate view
            own_columns = [first_column + view * all_targets.shape[1] for view in range(len(candidate_views))]
            comparisons.append(
                Comparison(
                    anchors=rows,
                    positives=[
                        torch.cat([targets[b] for b in views]) for views in zip(*positives.values(), strict=True)
                    ],
                    candidates=columns,
                    excluded=Pairs(row.repeat(len(own_columns)), torch.cat(own_columns)),
                    symmetric=symmetric,
                )
            )
        return comparisons

    def extra_repr(self) -> str:
        """The settings that `print` shows."""
        return f"views={self.views!r}"


def _by_graph(
    names: BatchNames,
    rows: Float[Tensor, "n dim"],
    columns: Float[Tensor, "m dim"],
    own_views: Sequence[int | None],
    *,
    symmetric: bool,
) -> Comparison:
    """Compare anchors with all views of their neighbours, except with themselves; all other images are negatives.

    Args:
        names: The graph, and the names of the images of this rank and of all ranks.
        rows: The anchors: views of this rank's images, one view after another.
        columns: The candidates: views of all ranks' images, likewise.
        own_views: For each anchor view, the candidate view that holds the same vectors; None: none does.
        symmetric: True if rows and columns are the same vectors.
    """
    local, total = len(names.local), len(names.everywhere)
    image = torch.arange(local, device=rows.device)
    in_columns = image + distributed.rank() * local
    view_pairs = [(i, view) for i, view in enumerate(own_views) if view is not None]
    itself = Pairs(
        torch.cat([image[:0], *(image + i * local for i, _ in view_pairs)]),
        torch.cat([image[:0], *(in_columns + view * total for _, view in view_pairs)]),
    )
    if names.keys:
        key = SameKey(names.local.repeat(len(rows) // local), names.everywhere.repeat(len(columns) // total))
        return Comparison(
            anchors=rows, positives=key, candidates=columns, excluded=key, itself=itself, symmetric=symmetric
        )
    i, j = names.graph(names.local, names.everywhere)
    first_row = torch.arange(0, len(rows), local, device=i.device)[:, None, None]
    first_column = torch.arange(0, len(columns), total, device=i.device)[:, None]
    shape = (len(first_row), len(first_column), len(i))
    i, j = (i + first_row).expand(shape).flatten(), (j + first_column).expand(shape).flatten()
    column_itself = torch.full((len(rows),), -1, device=i.device).index_copy(0, *itself)
    other = j != column_itself[i]
    return Comparison(
        anchors=rows, positives=Listing(i[other], columns[j[other]]), candidates=columns, excluded=Pairs(i, j)
    )


class QueueNegatives(Negatives):
    """The last `size` targets of earlier batches are the negatives (MoCo, arXiv 1911.05722).

    A batch is scored first and enqueued afterwards. With a graph, positives are the neighbours in the batch, and queue
    entries that show a neighbour are no negatives.
    """

    gives_negatives = True

    def __init__(self, *, size: int = 65536, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.queue = Queue(size=size, dim=dim)

    def forward(
        self, anchors: Branch, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None
    ) -> list[Comparison]:
        """Compare anchors with their positives, and with the whole queue."""
        queue, excluded = self.queue.snapshot(anchors.dtype), None
        if names is not None:
            assert self.queue.samples is not None
            excluded = Pairs(*names.graph(names.local, self.queue.samples))
        comparisons = super().forward(anchors, targets, pairs, names)
        return [replace(comparison, candidates=queue, excluded=excluded) for comparison in comparisons]

    @torch.no_grad()
    def update(self, targets: Targets, pairs: Sequence[ViewPair], names: BatchNames | None) -> None:
        """Overwrite the oldest entries with the targets just scored."""
        for view in sorted({b for _, b in pairs}):
            self.queue.push(targets[view], None if names is None else names.local.clamp(min=-1))
