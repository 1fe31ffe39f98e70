"""Verification by energy: does E(a, b) tell two views of one image from views of two images?"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ssl_ebm.evaluation.ranks import ROC_POINTS

RECALL_RANKS = (1, 5, 10)  # the k of recall@k
PAIR_KINDS = ("positive", "same_class", "different_class")


@dataclass(frozen=True, kw_only=True)
class EnergyResult:
    """How energies of positive pairs (i, i) lie against those of negative pairs (i, j ≠ i); low = compatible.

    Attributes:
        images: n; there are n positive and n(n - 1) negative pairs.
        anchor_auroc: Mean over anchors of P(E_ij > E_ii), ties ½. Blind to any c(x_i) added to the energy.
        global_auroc: P(E_jk > E_ii) over all pairs, ties ½: one threshold for all anchors.
        gauge_gap: anchor_auroc - global_auroc: what is lost to anchors whose energies are not on one scale.
        recall: recall@k, keyed by k: the positive is among the anchor's k lowest energies. Ties are broken at random,
            in expectation.
        d_prime: (μ⁻ - μ⁺) / √(½(σ⁺² + σ⁻²)), biased variances; None where neither kind of pair has any spread.
        mean: μ of "positive" and "negative" pairs.
        std: Their σ.
        roc: "fpr" and "tpr" of one threshold for all anchors, pairs of low energy being called positive: from (0, 0) to
            (1, 1), exact at each point. The thresholds in between are quantiles of the positive pairs' energies.
        edges: Of the histograms' bins, common to all.
        histograms: Counts of "positive" (two views of one image), "same_class" (two images) and "different_class".
    """

    images: int
    anchor_auroc: float
    global_auroc: float
    gauge_gap: float
    recall: dict[str, float]
    d_prime: float | None
    mean: dict[str, float]
    std: dict[str, float]
    roc: dict[str, list[float]]
    edges: list[float]
    histograms: dict[str, list[int]]


class PairCounts(NamedTuple):
    """Counts over all n² pairs (i, j), positive and negative, from one pass over the rows of the energy matrix.

    Attributes:
        lower: For each anchor i, how many of its energies E_ij are below E_ii.
        tied: For each anchor, how many j ≠ i have E_ij = E_ii.
        by_positives_below: Element k counts the pairs above exactly k of the positive pairs' energies.
        by_positives_reached: Element k counts the pairs above or equal to exactly k of them.
        moments: Σ (E_ij - μ⁺) and Σ (E_ij - μ⁺)².
        histograms: Counts in each bin, one row a kind of pair.
    """

    lower: Float64[Tensor, " n"]
    tied: Float64[Tensor, " n"]
    by_positives_below: Int64[Tensor, " n+1"]
    by_positives_reached: Int64[Tensor, " n+1"]
    moments: Float64[Tensor, " 2"]
    histograms: Int64[Tensor, "3 bins"]


def verify(
    rows: Callable[[slice], Float[Tensor, "rows n"]], labels: Int64[Tensor, " n"], *, bins: int = 100, chunk: int = 512
) -> EnergyResult:
    """Verification statistics of E(a_i, b_j), where a_i and b_i are two views of held-out image i. Exact.

    The global AUROC counts, for every negative, the sorted positives below it, so that memory is linear in n where rows
    are made on demand; each is asked for twice.

    Args:
        rows: Gives energies [anchors in the slice, n], the same each time: `matrix.__getitem__`, or
            `lambda s: energy.cross(a[s], b)`.
        labels: Classes, for the histograms only.
        bins: Of the histograms.
        chunk: Rows held at a time.

    Raises:
        ValueError: If there are fewer than two images, rows are not [anchors, n], or an energy is not finite.
    """
    n = len(labels)
    if n < 2:
        raise ValueError(f"labels must cover at least two images, got {n}: without a second there are no negatives")
    blocks = [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
    positive, lowest, highest = _positives_and_range(rows, blocks, n)
    edges = _edges(lowest, highest, bins).to(positive)
    counts = _count_pairs(rows, blocks, positive, labels.to(positive.device), edges)
    anchor_auroc = float(1 - (counts.lower + counts.tied / 2).mean() / (n - 1))
    ranks = torch.arange(n + 1, device=positive.device)
    # pairs beaten by a positive, both sides of every tie, and the positives against themselves, which make n²
    beaten = int((ranks * (counts.by_positives_below + counts.by_positives_reached)).sum()) - n * n
    global_auroc = beaten / (2 * n * n * (n - 1))
    deviation = positive - positive.mean()
    sums = torch.stack((deviation.sum(), deviation.square().sum()))
    shift, square = (counts.moments - sums) / (n * (n - 1))  # moments of the negatives about the positives' mean
    variance = {"positive": float(deviation.square().mean()), "negative": float(square - shift**2)}
    pooled = (variance["positive"] + variance["negative"]) / 2
    return EnergyResult(
        images=n,
        anchor_auroc=anchor_auroc,
        global_auroc=global_auroc,
        gauge_gap=anchor_auroc - global_auroc,
        recall={str(k): float(((k - counts.lower) / (counts.tied + 1)).clamp(0, 1).mean()) for k in RECALL_RANKS},
        d_prime=float(shift) / pooled**0.5 if pooled > 0 else None,
        mean={"positive": float(positive.mean()), "negative": float(positive.mean() + shift)},
        std={pair: max(value, 0.0) ** 0.5 for pair, value in variance.items()},
        roc=_roc(positive.sort().values, counts.by_positives_below),
        edges=edges.tolist(),
        histograms=dict(zip(PAIR_KINDS, counts.histograms.tolist(), strict=True)),
    )


def _positives_and_range(
    rows: Callable[[slice], Tensor], blocks: list[slice], n: int
) -> tuple[Float64[Tensor, " n"], float, float]:
    """Energies of the positive pairs in float64, and the lowest and the highest energy of all pairs."""
    positive, extremes = [], []
    for block in blocks:
        energy = rows(block).detach().double()
        if energy.shape != (block.stop - block.start, n):
            raise ValueError(f"rows must give energies [{block.stop - block.start}, {n}], got {list(energy.shape)}")
        if not energy.isfinite().all():
            raise ValueError("energies must be finite, got NaN or infinity: the encoder or its energy has diverged")
        positive.append(energy[:, block].diagonal())
        extremes.append(torch.stack(energy.aminmax()))
    lowest, highest = torch.stack(extremes).T
    return torch.cat(positive), float(lowest.min()), float(highest.max())


def _count_pairs(
    rows: Callable[[slice], Tensor],
    blocks: list[slice],
    positive: Float64[Tensor, " n"],
    labels: Int64[Tensor, " n"],
    edges: Float64[Tensor, " edges"],
) -> PairCounts:
    """The counts of all pairs, one block of rows at a time."""
    n, bins, ordered, centre = len(positive), len(edges) - 1, positive.sort().values, positive.mean()
    lower, tied, moments = [], [], positive.new_zeros(2)
    below, reached = torch.zeros(2, n + 1, dtype=torch.int64, device=positive.device)
    histograms = torch.zeros(len(PAIR_KINDS) * bins, dtype=torch.int64, device=positive.device)
    for block in blocks:
        energy, of_positive = rows(block).detach().double(), positive[block, None]
        lower.append((energy < of_positive).sum(1))
        tied.append((energy == of_positive).sum(1) - 1)
        for counts, right in ((below, False), (reached, True)):
            counts += torch.bincount(torch.searchsorted(ordered, energy, right=right).flatten(), minlength=n + 1)
        moments += torch.stack(((energy - centre).sum(), (energy - centre).square().sum()))
        kind = 2 - (labels[block, None] == labels).long()
        kind[:, block].fill_diagonal_(0)
        cell = kind * bins + torch.bucketize(energy, edges[1:-1], right=True)
        histograms += torch.bincount(cell.flatten(), minlength=len(histograms))
    return PairCounts(
        torch.cat(lower).double(), torch.cat(tied).double(), below, reached, moments, histograms.view(-1, bins)
    )


def _roc(ordered: Float64[Tensor, " n"], by_positives_below: Int64[Tensor, " n+1"]) -> dict[str, list[float]]:
    """The ROC curve at quantiles of the sorted positives, from counts of all pairs by the positives below them."""
    n = len(ordered)
    quantiles = torch.linspace(0, n - 1, ROC_POINTS, dtype=torch.float64).round().long().unique().to(ordered.device)
    true = torch.searchsorted(ordered, ordered[quantiles], right=True)  # positives at most as high, ties with them
    false = by_positives_below.cumsum(0)[quantiles] - true
    rates = {"fpr": false.double() / (n * (n - 1)), "tpr": true.double() / n}
    return {name: [0.0, *rate.tolist(), 1.0] for name, rate in rates.items()}


def _edges(lowest: float, highest: float, bins: int) -> Float[Tensor, " edges"]:
    """Edges of equal bins from the lowest to the highest energy; as in NumPy, ±½ around a single value."""
    if lowest == highest:
        lowest, highest = lowest - 0.5, highest + 0.5
    return torch.linspace(lowest, highest, bins + 1, dtype=torch.float64)


def histograms(
    sets: Mapping[str, Float64[np.ndarray, " _"]],
    *,
    bins: int = 256,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, Any]:
    """Histograms of several sets over common `edges`; the end bins hold what lies beyond `limits`."""
    values = np.clip(np.concatenate(list(sets.values())), *limits)
    edges = _edges(float(values.min()), float(values.max()), bins).numpy()
    counts = {name: np.histogram(np.clip(x, edges[0], edges[-1]), edges)[0].tolist() for name, x in sets.items()}
    return {"edges": edges.tolist(), "histograms": counts}
