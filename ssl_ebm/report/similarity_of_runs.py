"""How alike what runs learnt is, from the files that their evaluations left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from ssl_ebm.evaluation.features.bank import read_split
from ssl_ebm.evaluation.probes.knn import neighbours
from ssl_ebm.evaluation.ranks import spearman
from ssl_ebm.report.runs import Group, lookup

IMAGES = 2000  # of the test split, at even distances


def run_similarities(groups: Sequence[Group]) -> dict[str, Any] | None:
    """`similarities` of the groups' first runs, and the `names` of the groups in their order.

    Of the groups whose evaluation kept features and pairs; None where those are fewer than two. Energies of pairs are
    compared where all runs have the same views, and so the same pairs.
    """
    known = [group for group in groups if all(path.is_file() for path in _files(group)) and _has_energy(group)]
    if len(known) < 2:
        return None
    features, energies = [], []
    for group in known:
        test = read_split(group.first.path / "features", "test").features
        features.append(test[np.linspace(0, len(test) - 1, min(IMAGES, len(test))).round().astype(int)])
        with np.load(_files(group)[1], allow_pickle=False) as pairs:
            energies.append(pairs["trained"])
    found: dict[str, Any] = {"names": [group.name for group in known], **similarities(features, energies)}
    views = {json.dumps(group.first.results["config"]["views"], sort_keys=True) for group in known}
    return found if len(views) == 1 else {key: value for key, value in found.items() if key != "spearman"}


def _has_energy(group: Group) -> bool:
    return lookup(group.first.results, "energy", "trained") is not None


def _files(group: Group) -> tuple[Path, Path]:
    return group.first.path / "features" / "test.faiss", group.first.path / "pairs.npz"


MATRICES = {
    "cka": ("Linear CKA of features", "1 where features agree up to a rotation and a scale."),
    "overlap": ("Overlap of neighbourhoods", "Part of an image's nearest neighbours that two encoders share."),
    "spearman": ("Rank correlation of energies", "Spearman, of the trained energies of the same pairs."),
}


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
