"""Do clusters that are found without labels agree with the classes? k-means of features, compared with labels."""

from __future__ import annotations

import faiss
import numpy as np
from jaxtyping import Float, Int64
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.metrics.cluster import contingency_matrix

RESTARTS, ITERATIONS = 5, 50  # of k-means
DESCRIPTION = f"k-means on unit vectors of test, as many clusters as classes, best of {RESTARTS} starts"


def cluster_scores(
    features: Float[np.ndarray, "n d"], labels: Int64[np.ndarray, " n"], *, classes: int
) -> dict[str, float]:
    """Agreement of k-means with the labels; there are as many clusters as classes, and labels only judge.

    `nmi` is the mutual information of cluster and class over the mean of their entropies, in [0, 1]; `ari` the adjusted
    Rand index, 0 by chance and 1 at best (Hubert & Arabie 1985); `accuracy` that of the best one-to-one matching of
    clusters and classes.
    """
    clusters = kmeans(features, clusters=min(classes, len(features)))
    counts = contingency_matrix(clusters, labels)
    return {
        "nmi": float(normalized_mutual_info_score(labels, clusters)),
        "ari": float(adjusted_rand_score(labels, clusters)),
        "accuracy": float(counts[linear_sum_assignment(counts, maximize=True)].sum() / len(labels)),
    }


def kmeans(features: Float[np.ndarray, "n d"], *, clusters: int) -> Int64[np.ndarray, " n"]:
    """The cluster of each feature vector by `faiss.Kmeans` on their directions.

    Of several random starts the one with the least distance to the centroids counts. The order of the vectors does not
    matter: they are sorted before the starts, which are drawn by position, by their product with a fixed random vector.
    """
    directions = np.array(features, dtype=np.float32, order="C")
    faiss.normalize_L2(directions)
    key = np.random.RandomState(0).standard_normal(directions.shape[1])
    order = np.argsort((directions.astype(np.float64) * key).sum(1), kind="stable")
    model = faiss.Kmeans(
        directions.shape[1],
        clusters,
        niter=ITERATIONS,
        nredo=RESTARTS,
        seed=0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(directions),
        gpu=faiss.get_num_gpus() > 0,
    )
    model.train(np.ascontiguousarray(directions[order]))
    return model.index.search(directions, 1)[1][:, 0]
