"""The kNN probe: weighted votes of nearest neighbours, for a grid of k and temperature from one search."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Float32, Int64

from ssl_ebm.evaluation.features.bank import Bank, Split, check_features
from ssl_ebm.evaluation.probes.classification import class_accuracies

KS = (10, 20, 100, 200)
TEMPERATURES = (0.07, 0.1, 0.2)
HEADLINE_K, HEADLINE_TEMPERATURE = 20, 0.07  # DINO's (Caron et al. 2021, arXiv 2104.14294)
HEADLINE = f"k = {HEADLINE_K}, T = {HEADLINE_TEMPERATURE:g}".replace("= 0.", "= .")
DESCRIPTION = f"cosine, exact, bank = train + validation; headline {HEADLINE}; choice on validation"
CHUNK_BYTES = 2**28  # of the bank that is normalised and searched at a time
VOTE_CELLS = 2**23  # scores [queries, classes] held at a time


@dataclass(frozen=True, kw_only=True)
class KnnResult:
    """Accuracies in [0, 1]; rows are in the order of `ks`.

    Attributes:
        ks: The numbers of neighbours asked for, ascending.
        ks_used: The same, clipped to the bank's size.
        temperatures: T of the weights.
        weighted: Accuracy for each (k, T), with weights exp(s/T) of similarities s.
        uniform: Accuracy for each k, one vote a neighbour.
        bank_size: Number of feature vectors in the bank.
        queries: Number of queries.
        bank_zeros: Vectors of the bank that are zero, whose similarity with everything is 0; many mean a collapse.
        query_zeros: The same among the queries.
    """

    ks: list[int]
    ks_used: list[int]
    temperatures: list[float]
    weighted: list[list[float]]
    uniform: list[float]
    bank_size: int
    queries: int
    bank_zeros: int
    query_zeros: int


def neighbours(
    bank: Float[np.ndarray, "n d"], queries: Float[np.ndarray, "q d"], *, k: int
) -> tuple[Float32[np.ndarray, "q k"], Int64[np.ndarray, "q k"]]:
    """The k bank vectors of largest cosine similarity with each query: similarities, descending, and row numbers.

    The search is exact (`faiss.IndexFlatIP`), on the GPUs where faiss sees any. A bank above 256 MiB is normalised and
    searched by chunks whose answers are merged, so that it needs no second copy and may be a `np.memmap` larger than
    memory. Threads are faiss's OpenMP default (OMP_NUM_THREADS).
    """
    directions = _normalised(queries)
    nearest = faiss.ResultHeap(len(queries), k, keep_max=True)
    rows = max(1, CHUNK_BYTES // (4 * bank.shape[1]))
    for start in range(0, len(bank), rows):
        index: faiss.Index = faiss.IndexFlatIP(bank.shape[1])
        index.add(_normalised(bank[start : start + rows]))
        if faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_all_gpus(index)
        similarity, row = index.search(directions, min(k, index.ntotal))
        nearest.add_result(similarity, row + start)
    nearest.finalize()
    return nearest.D, nearest.I


def vote(
    similarity: Float[np.ndarray, "q k"],
    labels: Int64[np.ndarray, "q k"],
    *,
    classes: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
) -> Int64[np.ndarray, "ks weights q"]:
    """The class that the neighbours vote for: that of the largest Σ_{j ≤ k} exp(s_j/T) 1[y_j = c], for each k and T.

    Uniform weights, T = ∞, come last. Scores accumulate from one k to the next. Ties go to the smallest label.

    Args:
        similarity: Of each query's neighbours, descending.
        labels: Of the same neighbours.
        classes: Number of classes.
        ks: Ascending, none above the number of neighbours.
        temperatures: Each > 0.
    """
    predicted = np.empty((len(ks), len(temperatures) + 1, len(labels)), dtype=np.int64)
    rows = max(1, VOTE_CELLS // classes)
    for start in range(0, len(labels), rows):
        part, label = similarity[start : start + rows], labels[start : start + rows]
        cell = np.arange(len(label))[:, None] * classes + label
        for j, temperature in enumerate((*temperatures, np.inf)):
            weight = np.exp((part - part[:, :1]) / np.float32(temperature))  # relative to the nearest: no overflow
            score, counted = np.zeros(len(label) * classes), 0
            for i, k in enumerate(ks):
                score += np.bincount(cell[:, counted:k].ravel(), weight[:, counted:k].ravel(), minlength=len(score))
                predicted[i, j, start : start + rows] = score.reshape(-1, classes).argmax(1)
                counted = k
    return predicted


def knn_grid(
    bank: Float[np.ndarray, "n d"],
    bank_labels: Int64[np.ndarray, " n"],
    queries: Float[np.ndarray, "q d"],
    query_labels: Int64[np.ndarray, " q"],
    *,
    classes: int,
    ks: Sequence[int] = KS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> KnnResult:
    """Accuracy of weighted kNN for every k and T, from one search at the largest k.

    Classes may be missing from the queries, and there may be more classes than neighbours: only those of the neighbours
    get votes. A k above the bank's size means the whole bank.

    Raises:
        ValueError: If `check_features` refuses bank or queries, the bank holds one class only (any classifier would be
            perfect), or a k or a temperature is out of its range.
    """
    return _grid(Split(bank, bank_labels), Split(queries, query_labels), classes, ks, temperatures)[0]


def knn_evaluate(bank: Bank, *, ks: Sequence[int] = KS, temperatures: Sequence[float] = TEMPERATURES) -> dict[str, Any]:
    """The `knn` protocol: k and T chosen on validation against train; test read once against train and validation.

    Gives `headline`, with k and T fixed beforehand, and `chosen`, with the best on validation (the first in the order
    of the grid, where uniform weights, `temperature` None, come last): each with its accuracy, that of each class, and
    its test predictions for paired statistics. `validation` and `test` are the grids.

    Raises:
        ValueError: As `knn_grid`.
    """
    ks, temperatures = sorted({*ks, HEADLINE_K}), sorted({*temperatures, HEADLINE_TEMPERATURE})
    validation, _ = _grid(bank.train, bank.validation, bank.classes, ks, temperatures)
    final, predicted = _grid(bank.full_train(), bank.test, bank.classes, ks, temperatures)
    on_validation = np.column_stack((validation.weighted, validation.uniform))

    def results_of(i: int, j: int) -> dict[str, Any]:
        return {
            "k": ks[i],
            "temperature": temperatures[j] if j < len(temperatures) else None,
            "accuracy": (final.weighted[i] + [final.uniform[i]])[j],
            "validation_accuracy": float(on_validation[i, j]),
            "per_class": class_accuracies(predicted[i, j], bank.test.labels, bank.classes),
            "predictions": predicted[i, j].tolist(),
        }

    best_k, best_weight = np.unravel_index(on_validation.argmax(), on_validation.shape)
    return {
        "headline": results_of(ks.index(HEADLINE_K), temperatures.index(HEADLINE_TEMPERATURE)),
        "chosen": results_of(int(best_k), int(best_weight)),
        "validation": asdict(validation),
        "test": asdict(final),
    }


def _grid(
    bank: Split, queries: Split, classes: int, ks: Sequence[int], temperatures: Sequence[float]
) -> tuple[KnnResult, Int64[np.ndarray, "ks weights q"]]:
    """Accuracies for every k and T, and the predictions behind them."""
    check_features(bank.features, bank.labels, classes, "bank")
    check_features(queries.features, queries.labels, classes, "query")
    if (bank.labels == bank.labels[0]).all():
        raise ValueError(f"the bank must hold at least two classes, got class {bank.labels[0]} only")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be numbers of neighbours of at least 1, got {tuple(ks)}")
    if not all(temperature > 0 for temperature in temperatures):
        raise ValueError(f"temperatures must be > 0, got {tuple(temperatures)}")
    ks = sorted(ks)
    clipped = [min(k, len(bank)) for k in ks]
    similarity, row = neighbours(bank.features, queries.features, k=clipped[-1])
    predicted = vote(similarity, bank.labels[row], classes=classes, ks=clipped, temperatures=temperatures)
    accuracy = (predicted == queries.labels).mean(2)
    result = KnnResult(
        ks=list(ks),
        ks_used=clipped,
        temperatures=list(temperatures),
        weighted=accuracy[:, :-1].tolist(),
        uniform=accuracy[:, -1].tolist(),
        bank_size=len(bank),
        queries=len(queries),
        bank_zeros=int((~bank.features.any(1)).sum()),
        query_zeros=int((~queries.features.any(1)).sum()),
    )
    return result, predicted


def _normalised(features: np.ndarray) -> Float32[np.ndarray, "n d"]:
    """The features' directions; zero vectors stay zero."""
    directions = np.array(features, dtype=np.float32, order="C")
    faiss.normalize_L2(directions)
    return directions
