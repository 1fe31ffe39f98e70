"""The parts that all probes share: classifiers on standardised features, and the scores of a classifier."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_ebm.energies.labels import LabelEnergy
from ssl_ebm.evaluation.features.bank import Split

CALIBRATION_BINS = 15  # of equal width in [0, 1]


class Standardisation:
    """A map of features to mean 0 and standard deviation 1, by the statistics of the split that is fitted.

    A feature that is constant there counts for nothing: it becomes 0.
    """

    def __init__(self, x: Float[Tensor, "n d"]) -> None:
        std, self.mean = torch.std_mean(x, 0, correction=0)
        self.scale = torch.where(std > 1e-6 * self.mean.abs(), std, torch.inf)  # less is float32's rounding

    def __call__(self, x: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Standardised features."""
        return (x.to(self.mean) - self.mean).div_(self.scale)


class Fitted(Protocol):
    """Linear classifiers, one a member of a sweep: scores are x Wᵀ + b."""

    @property
    def weights(self) -> Float[Tensor, "members classes d"]:
        """The weights W of each member."""

    @property
    def intercepts(self) -> Float[Tensor, "members classes"]:
        """The intercepts b of each member."""


F = TypeVar("F", bound=Fitted)


class Classifiers(Generic[F]):
    """A sweep of linear classifiers with the standardisation and the classes of the split that they are fitted on.

    Attributes:
        fit: The linear classifiers that `fit(x, labels, classes=...)` gave for standardised features and labels 0, 1,
            ... without gaps.
        present: Classes that occur in the split; one that does not scores -∞ and is never predicted.
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
        of_all = np.full((len(scores), classes), -np.inf, dtype=scores.dtype)
        of_all[:, self.present] = scores
        return of_all

    def accuracies(self, split: Split, classes: int) -> list[float]:
        """The accuracy of each member on a split."""
        members = range(len(self.fit.weights))
        return [float((self.scores(split, classes, i).argmax(1) == split.labels).mean()) for i in members]

    def unseen(self, classes: int) -> list[int]:
        """Classes that do not occur in the split that was fitted."""
        return sorted(set(range(classes)) - set(self.present.tolist()))


def class_accuracies(
    predicted: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"], classes: int
) -> list[float | None]:
    """The accuracy on the images of each class; None for a class without an image."""
    images = np.bincount(labels, minlength=classes)
    correct = np.bincount(labels[predicted == labels], minlength=classes)
    return [float(right / count) if count else None for right, count in zip(correct, images, strict=True)]


def classification_scores(
    scores: Float[np.ndarray, "n classes"],
    labels: Int64[np.ndarray, " n"],
    *,
    logits: bool = True,
    bins: int = CALIBRATION_BINS,
) -> dict[str, Any]:
    """The numbers that are reported of a classifier, from the scores that it gives each class.

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
        was_seen = np.isfinite(scores[np.arange(size), labels])
        top5 = float(((best == labels[:, None]).any(1) & was_seen).mean())
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
    """Σ_b n_b/n |accuracy_b - confidence_b| over equal bins (b-1, b]/bins of the confidence."""
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(bin_of, correct - confidence, minlength=bins)).sum() / len(correct))
