"""Few-shot classification: a linear classifier on few images a class, and how much it depends on which."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch.nn.functional import normalize

from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.evaluation.probes.classification import Standardisation
from ssl_ebm.evaluation.probes.linear import logistic_regression

SHOTS = (1, 5, 10, 100)  # training images a class
DRAWS, SEED = 5, 0
STRENGTH = 10.0  # C; within 1.5 points of the best of 1, 10 and 100 on Fashion-MNIST's validation images
DESCRIPTION = (
    f"standardised, length 1, logistic regression at C = {STRENGTH:g}, {DRAWS} nested draws from train, seed {SEED}"
)


def few_shot(
    bank: Bank,
    *,
    shots: Sequence[int] = SHOTS,
    draws: int = DRAWS,
    strength: float = STRENGTH,
    seed: int = SEED,
) -> dict[str, Any]:
    """Test accuracy of a classifier that learns from few training images of each class, over several draws of them.

    Multinomial logistic regression on features of length 1 with a fixed C, since so few images leave none to choose it
    with: the baseline of Tian et al. 2020 (arXiv 2003.11539). Before, features are standardised by the whole training
    split, which needs no labels: else C would mean less the more all features point one way, as an untrained network's
    do. Draws are nested: the images of 1 a class are among those of 5. A class with fewer images gives all it has.

    Gives for each number of shots, as text, `accuracies` of each draw, their `mean` and standard deviation `std`
    (with draws - 1), and `short_classes`, the number of classes with fewer images. A number above the size of every
    class is left out, since each draw would be the whole split.

    Args:
        bank: Features of the three splits; validation is not used.
        shots: Numbers of training images a class.
        draws: Draws of each number.
        strength: C, the inverse of regularisation.
        seed: Of the first draw.

    Raises:
        ValueError: If a number is out of its range or the train split holds one class only.
    """
    if not shots or min(shots) < 1:
        raise ValueError(f"shots must be numbers of images of at least 1, got {tuple(shots)}")
    if draws < 2:
        raise ValueError(f"draws must be at least 2, to have a spread, got {draws}")
    standardise = Standardisation(torch.from_numpy(bank.train.features))
    x, query = (_directions(split, standardise) for split in (bank.train, bank.test))
    size = np.bincount(bank.train.labels)
    ranks = [rank_in_class(bank.train.labels, np.random.RandomState(seed + draw)) for draw in range(draws)]
    results = {}
    for count in sorted(set(shots)):
        if count > size.max():
            continue
        accuracies = []
        for rank in ranks:
            drawn = rank < count
            predicted = _predict(Split(x[drawn], bank.train.labels[drawn]), query, strength)
            accuracies.append(float((predicted == bank.test.labels).mean()))
        results[str(count)] = {
            "accuracies": accuracies,
            "mean": float(np.mean(accuracies)),
            "std": float(np.std(accuracies, ddof=1)),
            "short_classes": int(((size > 0) & (size < count)).sum()),
        }
    return results


def rank_in_class(labels: Int64[np.ndarray, " n"], random: np.random.RandomState) -> Int64[np.ndarray, " n"]:
    """The place of each image, from 0, in a random order of its class: `rank < k` draws k images a class."""
    order = random.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    size = np.bincount(labels)
    rank = np.empty_like(labels)
    rank[order] = np.arange(len(labels)) - np.repeat(np.cumsum(size) - size, size)
    return rank


def _predict(train: Split, query: Float32[np.ndarray, "q d"], strength: float) -> Int64[np.ndarray, " q"]:
    """Classes of the queries; where there are fewer images than dimensions, the solution lies in the images' span."""
    x, queries = torch.from_numpy(train.features), torch.from_numpy(query)
    if len(x) < x.shape[1]:
        axes, coordinates = torch.linalg.qr(x.T)
        x, queries = coordinates.T.contiguous(), queries @ axes
    present, labels = np.unique(train.labels, return_inverse=True)
    fit = logistic_regression(x, torch.from_numpy(labels), [strength], classes=len(present))
    return present[(queries @ fit.weights[0].T + fit.intercepts[0]).argmax(1).numpy()]


def _directions(split: Split, standardise: Standardisation) -> Float32[np.ndarray, "n d"]:
    """Standardised features of length 1; zeros stay zero."""
    return normalize(standardise(torch.from_numpy(split.features)).float(), dim=1).numpy()
