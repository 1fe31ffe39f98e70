"""What all probes share: classifiers on standardised features, and what is reported of a classifier."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_ebm.energies.labels import LabelEnergy
from ssl_ebm.evaluation.features.bank import Split


class Standardisation:
    """Mean 0 and standard deviation 1 for each feature, by the statistics of the split that is fitted.

    A feature that is constant there counts for nothing: it becomes 0.
    """

    def __init__(self, x: Float[Tensor, "n d"]) -> None:
        spread, self.mean = torch.std_mean(x, 0, correction=0)
        self.scale = torch.where(spread > 1e-6 * self.mean.abs(), spread, torch.inf)  # the rest is float32's rounding

    def __call__(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Standardised features."""
        return (x.to(self.mean) - self.mean).div_(self.scale)


class Fitted(Protocol):
    """Linear classifiers, one a member of a sweep: scores are x Wᵀ + b."""

    @property
    def weights(self) -> Float[Tensor, "members classes d"]:
        """W."""

    @property
    def intercepts(self) -> Float[Tensor, "members classes"]:
        """B."""


F = TypeVar("F", bound=Fitted)


class Classifiers(Generic[F]):
    """A sweep of linear classifiers with the standardisation and the classes of the split that they are fitted on.

    Attributes:
        fit: What `fit(x, labels, classes=...)` gave for standardised features and labels without gaps.
        present: Classes of the split; a class that is absent there scores -∞ and is never predicted.
    """

    def __init__(self, split: Split, fit: Callable[..., F], *, device: torch.device | str = "cpu") -> None:
        x = torch.from_numpy(split.features).to(device)
        self.standardise = Standardisation(x)
        self.present, labels = np.unique(split.labels, return_inverse=True)
        if len(self.present) < 2:
            raise ValueError(f"labels must hold at least two classes, got class {self.present[0]} only")
        self.fit = fit(self.standardise(x), torch.from_numpy(labels).to(device), classes=len(self.present))

    def scores(self, split: Split, classes: int, member: int = 0) -> Float[np.ndarray, "n classes"]:
        """Scores of all classes by one member."""
        weights, intercepts = self.fit.weights[member], self.fit.intercepts[member]
        x = self.standardise(torch.from_numpy(split.features)).to(weights)
        scores = (x @ weights.T + intercepts).cpu().numpy()
        spread = np.full((len(scores), classes), -np.inf, dtype=scores.dtype)
        spread[:, self.present] = scores
        return spread

    def accuracies(self, split: Split, classes: int) -> list[float]:
        """Of each member."""
        members = range(len(self.fit.weights))
        return [float((self.scores(split, classes, i).argmax(1) == split.labels).mean()) for i in members]

    def unseen(self, classes: int) -> list[int]:
        """Classes that are absent from the split."""
        return sorted(set(range(classes)) - set(self.present.tolist()))


def class_accuracies(
    predicted: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], classes: int
) -> list[float | None]:
    """The part of each class's images that is predicted right; None for a class without an image."""
    size = np.bincount(labels, minlength=classes)
    right = np.bincount(labels[predicted == labels], minlength=classes)
    return [float(r / s) if s else None for r, s in zip(right, size, strict=True)]


def classification_scores(
    scores: Float[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    *,
    logits: bool = True,
    bins: int = 15,
) -> dict[str, Any]:
    """What is reported of a classifier, by the scores that it gives each class.

    Logits make it a `LabelEnergy`, E(x, y) = -f_y(x) with p(y | x) = exp(F(x) - E(x, y)).

    Gives `top1`; `top5`, None unless there are more than 5 classes; `per_class` accuracies, None for a class without an
    image; `confusion` counts [true][predicted]; the expected calibration error `ece` = Σ_b n_b/n |accuracy_b -
    confidence_b| over `bins` equal bins of the winner's probability (Guo et al. 2017, arXiv 1706.04599) and `nll`, the
    mean of -log p(y | x) = E(x, y) - F(x) in nats, both None unless the scores are `logits` (`nll` also where a class
    was never seen); `size`; and `predictions`, for paired statistics. Ties go to the smallest class.
    """
    size, classes = scores.shape
    predicted = scores.argmax(1)
    correct = predicted == labels
    confusion = np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)
    top5 = None
    if classes > 5:
        best = (-scores).argsort(1, kind="stable")[:, :5]
        known = np.isfinite(scores[np.arange(size), labels])
        top5 = float(((best == labels[:, None]).any(1) & known).mean())
    energy = LabelEnergy().log_probability(torch.from_numpy(scores).double()).neg().numpy() if logits else None
    nll = None if energy is None else float(energy[np.arange(size), labels].mean())
    return {
        "top1": float(correct.mean()),
        "top5": top5,
        "per_class": class_accuracies(predicted, labels, classes),
        "confusion": confusion.tolist(),
        "ece": None if energy is None else _calibration_error(np.exp(-energy.min(1)), correct, bins),
        "nll": nll if nll is not None and np.isfinite(nll) else None,
        "size": size,
        "predictions": predicted.tolist(),
    }


def _calibration_error(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float:
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(bin_of, correct - confidence, minlength=bins)).sum() / len(correct))
