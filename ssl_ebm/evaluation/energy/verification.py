"""Verification by energy: does E(a, b) tell two views of one image from views of two images?"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

RECALLS = (1, 5, 10)
POINTS = 50  # of the ROC curve
KINDS = ("positive", "same_class", "different_class")


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
            (1, 1), exact at each point. The thresholds in between are positive pairs' own quantiles.
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
    parts = [slice(start, min(start + chunk, n)) for start in range(0, n, chunk)]
    positive, lowest, highest = _first_pass(rows, parts, n)
    ordered, centre = positive.sort().values, positive.mean()
    edges = _edges(lowest, highest, bins).to(positive)
    labels = labels.to(positive.device)

    below, equal, moment = [], [], torch.zeros(2, dtype=torch.float64, device=positive.device)
    accepted, beaten = torch.zeros(2, n + 1, dtype=torch.int64, device=positive.device)
    counts = torch.zeros(3 * bins, dtype=torch.int64, device=positive.device)
    for part in parts:
        energy, own = rows(part).detach().double(), positive[part, None]
        below.append((energy < own).sum(1))
        equal.append((energy == own).sum(1) - 1)
        for place, right in ((accepted, False), (beaten, True)):
            place += torch.bincount(torch.searchsorted(ordered, energy, right=right).flatten(), minlength=n + 1)
        moment += torch.stack(((energy - centre).sum(), (energy - centre).square().sum()))
        kind = 2 - (labels[part, None] == labels).long()
        kind[:, part].fill_diagonal_(0)
        cell = kind * bins + torch.bucketize(energy, edges[1:-1], right=True)
        counts += torch.bincount(cell.flatten(), minlength=3 * bins)

    lower, tied = torch.cat(below).double(), torch.cat(equal).double()
    anchor = float(1 - (lower + tied / 2).mean() / (n - 1))
    steps = torch.arange(n + 1, device=positive.device)
    # both sides of every tie were counted, and the positives against themselves, which make n²
    whole = (int((steps * (accepted + beaten)).sum()) - n * n) / (2 * n * n * (n - 1))
    spread = positive - centre
    shift, square = (moment - torch.stack((spread.sum(), spread.square().sum()))) / (n * (n - 1))
    mean = {"positive": float(centre), "negative": float(centre + shift)}
    variance = {"positive": float(spread.square().mean()), "negative": float(square - shift**2)}
    pooled = (variance["positive"] + variance["negative"]) / 2
    return EnergyResult(
        images=n,
        anchor_auroc=anchor,
        global_auroc=whole,
        gauge_gap=anchor - whole,
        recall={str(k): float(((k - lower) / (tied + 1)).clamp(0, 1).mean()) for k in RECALLS},
        d_prime=float(shift) / pooled**0.5 if pooled > 0 else None,
        mean=mean,
        std={pair: max(value, 0.0) ** 0.5 for pair, value in variance.items()},
        roc=_curve(ordered, accepted),
        edges=edges.tolist(),
        histograms=dict(zip(KINDS, counts.view(3, bins).tolist(), strict=True)),
    )


def _curve(ordered: Tensor, accepted: Tensor) -> dict[str, list[float]]:
    """ROC at quantiles of the positives, of how many pairs of all kinds have how many positives strictly below."""
    n = len(ordered)
    places = torch.linspace(0, n - 1, POINTS, dtype=torch.float64).round().long().unique().to(ordered.device)
    found = torch.searchsorted(ordered, ordered[places], right=True)  # positives at most as high, ties with them
    false = accepted.cumsum(0)[places] - found
    rates = {"fpr": false.double() / (n * (n - 1)), "tpr": found.double() / n}
    return {name: [0.0, *rate.tolist(), 1.0] for name, rate in rates.items()}


def _first_pass(rows: Callable[[slice], Tensor], parts: list[slice], n: int) -> tuple[Tensor, float, float]:
    """Positive energies in float64, and the lowest and highest energy of all."""
    positive, bounds = [], []
    for part in parts:
        energy = rows(part).detach().double()
        if energy.shape != (part.stop - part.start, n):
            raise ValueError(f"rows must give energies [{part.stop - part.start}, {n}], got {list(energy.shape)}")
        if not energy.isfinite().all():
            raise ValueError("energies must be finite, got NaN or infinity: the encoder or its energy has diverged")
        positive.append(energy[:, part].diagonal())
        bounds.append(torch.stack(energy.aminmax()))
    every = torch.stack(bounds)
    return torch.cat(positive), float(every[:, 0].min()), float(every[:, 1].max())


def _edges(lowest: float, highest: float, bins: int) -> Float[Tensor, " edges"]:
    """Bins from the lowest to the highest energy; as in NumPy, ±½ around a single value."""
    if lowest == highest:
        lowest, highest = lowest - 0.5, highest + 0.5
    return torch.linspace(lowest, highest, bins + 1, dtype=torch.float64)


def histograms(
    sets: Mapping[str, Float64[np.ndarray, " _"]],
    *,
    bins: int = 256,
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> dict[str, Any]:
    """`edges` common to all sets, and the counts of each under `histograms`; end bins hold what is beyond `limits`."""
    values = np.clip(np.concatenate(list(sets.values())), *limits)
    edges = _edges(float(values.min()), float(values.max()), bins).numpy()
    counts = {name: np.histogram(np.clip(own, edges[0], edges[-1]), edges)[0].tolist() for name, own in sets.items()}
    return {"edges": edges.tolist(), "histograms": counts}
