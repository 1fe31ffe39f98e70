"""Clusters found without labels, beside the classes: k-means on features."""

from __future__ import annotations

import faiss
import numpy as np
from jaxtyping import Float, Int64, Shaped

RESTARTS, ITERATIONS = 5, 50


def cluster_scores(
    features: Float[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], *, classes: int
) -> dict[str, float]:
    """`nmi`, `ari` and `accuracy` of k-means with as many clusters as classes, on unit vectors.

    The best of several starts by k-means' own objective; labels only judge.
    """
    found = kmeans(features, clusters=min(classes, len(features)))
    table = contingency(found, labels)
    return {
        "nmi": mutual_information_score(table),
        "ari": rand_score(table),
        "accuracy": float(table[assign(-table)].sum() / table.sum()),
    }


def kmeans(features: Float[np.ndarray, "n d"], *, clusters: int) -> Int64[np.ndarray, " n"]:
    """Clusters by `faiss.Kmeans` of the directions of all features, whose order does not matter."""
    x = np.array(features, dtype=np.float32, order="C")
    faiss.normalize_L2(x)
    order = np.argsort((x.astype(np.float64) * _weights(x.shape[1])).sum(1), kind="stable")  # starts are drawn by place
    model = faiss.Kmeans(
        x.shape[1],
        clusters,
        niter=ITERATIONS,
        nredo=RESTARTS,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(x),
        gpu=faiss.get_num_gpus() > 0,
    )
    model.train(np.ascontiguousarray(x[order]))
    return model.index.search(x, 1)[1][:, 0]


def _weights(dim: int) -> np.ndarray:
    return np.random.RandomState(0).standard_normal(dim)


def contingency(a: Int64[np.ndarray, " n"], b: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, "rows columns"]:
    """How many elements are in cluster r of one and c of the other, for those that occur."""
    rows, columns = (np.unique(x, return_inverse=True)[1].reshape(-1) for x in (a, b))
    table = np.zeros((rows.max() + 1, columns.max() + 1), dtype=np.int64)
    np.add.at(table, (rows, columns), 1)
    return table


def mutual_information_score(table: Int64[np.ndarray, "rows columns"]) -> float:
    """Normalised mutual information I(a; b) / ½ (H(a) + H(b)), in [0, 1]; 1 where both are one cluster."""
    p = table / table.sum()
    outer = p.sum(1, keepdims=True) * p.sum(0)
    shared = float((p[p > 0] * np.log(p[p > 0] / outer[p > 0])).sum())
    entropies = [-float((q[q > 0] * np.log(q[q > 0])).sum()) for q in (p.sum(0), p.sum(1))]
    return max(0.0, shared) / (sum(entropies) / 2) if sum(entropies) > 0 else 1.0


def rand_score(table: Int64[np.ndarray, "rows columns"]) -> float:
    """Adjusted Rand index: pairs on which two clusterings agree, 0 by chance and 1 at best (Hubert & Arabie 1985)."""
    together, rows, columns = (float((x * (x - 1.0)).sum()) / 2 for x in (table, table.sum(1), table.sum(0)))
    n = float(table.sum())
    chance = rows * columns / (n * (n - 1) / 2) if n > 1 else 0.0
    most = (rows + columns) / 2
    return (together - chance) / (most - chance) if most != chance else 1.0


def assign(cost: Shaped[np.ndarray, "rows columns"]) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Rows and columns matched one to one at the least total cost; as many pairs as the shorter side has.

    Shortest augmenting paths with potentials, O(n³) (Jonker & Volgenant 1987, Computing 38).
    """
    if cost.shape[0] > cost.shape[1]:
        columns, rows = assign(cost.T)
        return rows, columns
    n, m = cost.shape
    u, v = np.zeros(n + 1), np.zeros(m + 1)
    owner = np.zeros(m + 1, dtype=int)  # row of each column, from 1; 0: none
    for row in range(1, n + 1):
        owner[0], column = row, 0
        distance, came, done = np.full(m + 1, np.inf), np.zeros(m + 1, dtype=int), np.zeros(m + 1, dtype=bool)
        while owner[column]:
            done[column] = True
            reduced = cost[owner[column] - 1] - u[owner[column]] - v[1:]
            better = ~done[1:] & (reduced < distance[1:])
            distance[1:][better], came[1:][better] = reduced[better], column
            nearest = 1 + int(np.where(done[1:], np.inf, distance[1:]).argmin())
            delta = distance[nearest]
            u[owner[done]] += delta
            v[done] -= delta
            distance[~done] -= delta
            column = nearest
        while column:
            owner[column] = owner[came[column]]
            column = came[column]
    matched = np.flatnonzero(owner[1:])
    order = owner[1:][matched].argsort()
    return owner[1:][matched][order] - 1, matched[order]
