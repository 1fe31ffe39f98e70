"""The ridge probe: least squares onto one-hot targets in closed form, all penalties from one eigendecomposition."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ssl_ebm.evaluation.features.bank import Bank
from ssl_ebm.evaluation.probes.classification import Classifiers, classification_scores

PENALTIES = tuple(np.logspace(-6, 3, 10).tolist())  # λ
CHUNK_ROWS = 4096  # held in float64 at a time
DESCRIPTION = "standardised, least squares onto one-hot targets, penalty by validation, refit on train + validation"


class Ridge(NamedTuple):
    """Regressions, one a penalty, whose scores are x Wᵀ + b."""

    weights: Float64[Tensor, "penalties classes d"]
    intercepts: Float64[Tensor, "penalties classes"]


def ridge_regression(
    x: Float[Tensor, "n d"], labels: Int64[Tensor, " n"], penalties: Sequence[float], *, classes: int
) -> Ridge:
    """Regressions that minimise 1/n Σ_i ‖W x_i + b - onehot(y_i)‖² + λ ‖W‖², for every λ at once; b is not penalised.

        W = M V (S + λ)⁻¹ Vᵀ,  V S Vᵀ = X̄ᵀX̄ / n,  M = Ȳᵀ X̄ / n

    for centred X̄ and Ȳ. Where n < d the eigenvectors V are X̄ᵀU / √(n S) of the smaller matrix X̄X̄ᵀ = n U S Uᵀ; what is
    orthogonal to them gets no weight. All is float64: the sums over images do not depend on their order to 1e-12.
    scikit-learn's `Ridge(alpha=λ n)` on one-hot targets.

    Raises:
        ValueError: If a penalty or a label is out of its range, or there is one class only.
    """
    if not len(penalties) or not all(0 < penalty < float("inf") for penalty in penalties):
        raise ValueError(f"penalties must be finite and > 0, got {tuple(penalties)}")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must lie in 0 .. {classes - 1}, got {int(labels.min())} .. {int(labels.max())}")
    if (labels == labels[0]).all():
        raise ValueError(f"labels must hold at least two classes, got class {int(labels[0])} only")
    n, d = x.shape
    mean = x.mean(0, dtype=torch.float64)
    moment = mean.new_zeros(classes, d)
    gram = mean.new_zeros(d, d) if n >= d else None
    for part, label in zip(x.split(CHUNK_ROWS), labels.split(CHUNK_ROWS), strict=True):
        centred = part.double() - mean
        moment.index_add_(0, label, centred)
        if gram is not None:
            gram.addmm_(centred.T, centred)
    variance, axes = _eigenvectors(x, mean, gram)
    projected = moment / n @ axes
    weights = torch.stack([projected / (variance + penalty) @ axes.T for penalty in penalties])
    share = torch.bincount(labels, minlength=classes).to(mean) / n
    return Ridge(weights, share - weights @ mean)


def _eigenvectors(x: Tensor, mean: Tensor, gram: Tensor | None) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors [d, rank] of the covariance, by the smaller of the two Gram matrices."""
    n = len(x)
    if gram is not None:
        variance, axes = torch.linalg.eigh(gram / n)
        return variance.clamp(min=0), axes
    centred = x.double() - mean
    variance, basis = torch.linalg.eigh(centred @ centred.T / n)
    kept = variance > n * torch.finfo(variance.dtype).eps * variance[-1]
    variance, basis = variance[kept], basis[:, kept]
    return variance, centred.T @ basis / (n * variance).sqrt()


def ridge_probe(bank: Bank, *, penalties: Sequence[float] = PENALTIES) -> dict[str, Any]:
    """The `ridge` protocol: λ chosen on validation, refit on train and validation, test read once.

    Features are standardised by the split that is fitted. Of penalties equal on validation the largest is taken;
    `at_edge` says that it is the grid's first or last. `strengths` are the penalties λ, ascending. `test` holds
    `classification_scores`, without a calibration error: these scores are no logits.

    Raises:
        ValueError: If a penalty is out of its range or the train split holds one class only.
    """
    penalties = sorted(penalties)
    sweep = Classifiers(bank.train, partial(ridge_regression, penalties=penalties))
    curve = sweep.accuracies(bank.validation, bank.classes)
    best = len(curve) - 1 - int(np.argmax(curve[::-1]))
    final = Classifiers(bank.full_train(), partial(ridge_regression, penalties=penalties[best : best + 1]))
    return {
        "protocol": "ridge",
        "strength": penalties[best],
        "at_edge": best in (0, len(penalties) - 1),
        "strengths": penalties,
        "validation": curve,
        "unseen_classes": final.unseen(bank.classes),
        "test": classification_scores(final.scores(bank.test, bank.classes), bank.test.labels, logits=False),
    }
