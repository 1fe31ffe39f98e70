"""How alike two encoders are on the same images: their spaces, their neighbourhoods, their order of pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64

from ssl_ebm.evaluation.knn import neighbours
from ssl_ebm.evaluation.ranks import spearman

NEIGHBOURS = 10


def linear_cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Linear centred kernel alignment, ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features: in [0, 1].

    1 for spaces equal up to rotation and scale. No n × n matrix is built. 0 where a side is constant. Biased
    upwards where n is not far above the dimensions.

    Source: Kornblith et al. 2019, arXiv 1905.00414, eq. 3.
    """
    a, b = _centred(x), _centred(y)
    size = np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b)
    return float(np.linalg.norm(b.T @ a) ** 2 / size) if size > 0 else 0.0


def _centred(x: np.ndarray) -> np.ndarray:
    x = x.astype(np.float64)
    return x - x.mean(0)


def nearest(x: Float[np.ndarray, "n d"], *, k: int = NEIGHBOURS) -> Int64[np.ndarray, "n k"]:
    """The k other images of largest cosine similarity with each.

    Raises:
        ValueError: There are not more than k images.
    """
    if not 1 <= k < len(x):
        raise ValueError(f"k must be in [1, {len(x) - 1}], the number of other images, got {k}")
    found = neighbours(x, x, k=k + 1)[1]
    own = found == np.arange(len(x))[:, None]
    own[~own.any(1), -1] = True  # among more than k equal vectors its own may be missing
    return found[~own].reshape(len(x), k)


def overlap(a: Int64[np.ndarray, "n k"], b: Int64[np.ndarray, "n k"]) -> float:
    """Mean part of an image's neighbours in one space that are its neighbours in the other; in [0, 1]."""
    both = np.sort(np.concatenate([a, b], axis=1), axis=1)
    return float((both[:, 1:] == both[:, :-1]).sum(1).mean() / a.shape[1])


def similarities(
    features: Sequence[Float[np.ndarray, "_ _"]], energies: Sequence[Float[np.ndarray, " _"]], *, k: int = NEIGHBOURS
) -> dict[str, list[list[float | None]]]:
    """Matrices over runs: `cka`, `overlap` of k neighbours, and `spearman`, the rank correlation of energies.

    Args:
        features: Of the same images, one array a run.
        energies: Of the same pairs, one array a run (`pairs.npz`).
        k: How many neighbours.

    Raises:
        ValueError: Runs differ in images or in pairs.
    """
    for name, arrays in (("features", features), ("energies", energies)):
        if len({len(array) for array in arrays}) > 1:
            raise ValueError(f"{name} must be of the same images for every run, got {[len(a) for a in arrays]}")
    near = [nearest(x, k=min(k, len(x) - 1)) for x in features]
    return {
        "cka": _symmetric(features, linear_cka),
        "overlap": _symmetric(near, overlap),
        "spearman": _symmetric(energies, spearman),
    }


def _symmetric(items: Sequence[np.ndarray], measure: object) -> list[list[float | None]]:
    matrix: list[list[float | None]] = [[1.0] * len(items) for _ in items]
    for i, first in enumerate(items):
        for j in range(i):
            matrix[i][j] = matrix[j][i] = measure(items[j], first)  # type: ignore[operator]
    return matrix


def listed_pairs(
    labels: Int64[np.ndarray, " n"], *, seed: int = 0
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Pairs (i, j) of images that energies are compared on, the same for every run, and their kinds.

    For each image itself (kind 0), a random one of its class (1), and a random one of another class (2), where there is
    one.
    """
    random = np.random.RandomState(seed)  # its stream is the same in every version of NumPy (NEP 19)
    images = np.arange(len(labels))
    pairs = [(images, images)]
    for same in (True, False):
        partner = np.full(len(labels), -1)
        for i, label in enumerate(labels):
            choice = np.flatnonzero((labels == label) == same)
            choice = choice[choice != i]
            if len(choice):
                partner[i] = choice[random.randint(len(choice))]
        pairs.append((images[partner >= 0], partner[partner >= 0]))
    kinds = np.repeat(np.arange(3), [len(first) for first, _ in pairs])
    return np.concatenate([a for a, _ in pairs]), np.concatenate([b for _, b in pairs]), kinds
