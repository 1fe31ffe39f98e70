"""Weighted nearest neighbours on cosine similarity: one search, then the whole grid of k and temperature from it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float, Float32, Int64

from ssl_ebm.evaluation.features.bank import Bank, check_features
from ssl_ebm.evaluation.probes.classification import class_accuracies

KS = (10, 20, 100, 200)
TEMPERATURES = (0.07, 0.1, 0.2)
HEADLINE = (20, 0.07)  # DINO's k and T (Caron et al. 2021, arXiv 2104.14294)
CHUNK_BYTES = 2**28  # of the bank, normalised and searched at a time
VOTE_CELLS = 2**23  # scores [queries, classes] held at a time


@dataclass(frozen=True, kw_only=True)
class KnnResult:
    """Accuracies in [0, 1]; rows are in the order of `ks`.

    Attributes:
        ks: As asked for, ascending.
        ks_used: Those, clipped to the bank's size.
        temperatures: T, ascending.
        weighted: Accuracy for each (k, T), weights exp(s/T).
        uniform: Accuracy for each k, one vote a neighbour.
        bank_size: Images whose labels vote.
        queries: Images classified.
        bank_zeros: Feature vectors that are zero, whose similarity with everything is 0; many mean a collapse.
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
    """The k bank vectors of largest cosine similarity: similarities, descending, and row numbers.

    Exact (`faiss.IndexFlatIP`), on the GPUs where faiss sees any. faiss itself tiles queries against vectors; here a
    bank above 256 MiB is further normalised and searched by chunks whose answers are merged, so that it needs no second
    copy and may be a `np.memmap` larger than memory. Threads are faiss's OpenMP default (OMP_NUM_THREADS).
    """
    directions = _normalised(queries)
    best = faiss.ResultHeap(len(queries), k, keep_max=True)
    rows = max(1, CHUNK_BYTES // (4 * bank.shape[1]))
    for start in range(0, len(bank), rows):
        index: faiss.Index = faiss.IndexFlatIP(bank.shape[1])
        index.add(_normalised(bank[start : start + rows]))
        if faiss.get_num_gpus() > 0:
            index = faiss.index_cpu_to_all_gpus(index)
        similarity, row = index.search(directions, min(k, index.ntotal))
        best.add_result(similarity, row + start)
    best.finalize()
    return best.D, best.I


def vote(
    similarity: Float[np.ndarray, "q k"],
    labels: Int64[np.ndarray, "q k"],
    *,
    classes: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
) -> Int64[np.ndarray, "ks weights q"]:
    """The class of the largest Σ_{j ≤ k} exp(s_j/T) 1[y_j = c], for each k and T, and last for uniform weights.

    Scores accumulate from one k to the next. Uniform is T = ∞. Ties go to the smallest label.

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
        near, label = similarity[start : start + rows], labels[start : start + rows]
        cell = np.arange(len(label))[:, None] * classes + label
        for j, temperature in enumerate((*temperatures, np.inf)):
            weight = np.exp((near - near[:, :1]) / np.float32(temperature))  # relative to the nearest: no overflow
            score, done = np.zeros(len(label) * classes), 0
            for i, k in enumerate(ks):
                score += np.bincount(cell[:, done:k].ravel(), weight[:, done:k].ravel(), minlength=len(score))
                predicted[i, j, start : start + rows] = score.reshape(-1, classes).argmax(1)
                done = k
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
    return _grid(bank, bank_labels, queries, query_labels, classes, ks, temperatures)[0]


def knn_evaluate(bank: Bank, *, ks: Sequence[int] = KS, temperatures: Sequence[float] = TEMPERATURES) -> dict[str, Any]:
    """The protocol: k and T chosen on validation against train; test read once against train and validation.

    Gives `headline` (k = 20, T = .07, fixed beforehand) and `chosen` (the first best on validation in the order of the
    grid, uniform weights, `temperature` None, last), each with its accuracy for each class and its test predictions for
    paired statistics, and both grids.

    Raises:
        ValueError: As `knn_grid`.
    """
    ks, temperatures = sorted({*ks, HEADLINE[0]}), sorted({*temperatures, HEADLINE[1]})
    full, classes = bank.full_train(), bank.classes
    train, held, test = bank.train, bank.validation, bank.test
    validation, _ = _grid(train.features, train.labels, held.features, held.labels, classes, ks, temperatures)
    final, predicted = _grid(full.features, full.labels, test.features, test.labels, classes, ks, temperatures)
    on_validation = np.column_stack((validation.weighted, validation.uniform))

    def cell(i: int, j: int) -> dict[str, Any]:
        return {
            "k": ks[i],
            "temperature": temperatures[j] if j < len(temperatures) else None,
            "accuracy": (final.weighted[i] + [final.uniform[i]])[j],
            "validation_accuracy": float(on_validation[i, j]),
            "per_class": class_accuracies(predicted[i, j], test.labels, classes),
            "predictions": predicted[i, j].tolist(),
        }

    best_k, best_weight = np.unravel_index(on_validation.argmax(), on_validation.shape)
    return {
        "headline": cell(ks.index(HEADLINE[0]), temperatures.index(HEADLINE[1])),
        "chosen": cell(int(best_k), int(best_weight)),
        "validation": asdict(validation),
        "test": asdict(final),
    }


def _grid(
    bank: np.ndarray,
    bank_labels: np.ndarray,
    queries: np.ndarray,
    query_labels: np.ndarray,
    classes: int,
    ks: Sequence[int],
    temperatures: Sequence[float],
) -> tuple[KnnResult, Int64[np.ndarray, "ks weights q"]]:
    check_features(bank, bank_labels, classes, "bank")
    check_features(queries, query_labels, classes, "query")
    if (bank_labels == bank_labels[0]).all():
        raise ValueError(f"the bank must hold at least two classes, got class {bank_labels[0]} only")
    if not ks or min(ks) < 1:
        raise ValueError(f"ks must be numbers of neighbours of at least 1, got {tuple(ks)}")
    if not all(temperature > 0 for temperature in temperatures):
        raise ValueError(f"temperatures must be > 0, got {tuple(temperatures)}")
    ks = sorted(ks)
    used = [min(k, len(bank)) for k in ks]
    similarity, row = neighbours(bank, queries, k=used[-1])
    predicted = vote(similarity, bank_labels[row], classes=classes, ks=used, temperatures=temperatures)
    accuracy = (predicted == query_labels).mean(2)
    result = KnnResult(
        ks=list(ks),
        ks_used=used,
        temperatures=list(temperatures),
        weighted=accuracy[:, :-1].tolist(),
        uniform=accuracy[:, -1].tolist(),
        bank_size=len(bank),
        queries=len(queries),
        bank_zeros=int((~bank.any(1)).sum()),
        query_zeros=int((~queries.any(1)).sum()),
    )
    return result, predicted


def _normalised(features: np.ndarray) -> Float32[np.ndarray, "n d"]:
    copy = np.array(features, dtype=np.float32, order="C")
    faiss.normalize_L2(copy)  # leaves zero vectors zero
    return copy
