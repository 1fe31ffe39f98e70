import itertools

import numpy as np
import pytest

from ssl_ebm.evaluation.features.clusters import cluster_scores, kmeans


def blobs(n=300, classes=5, d=16, noise=0.3, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    return (random.normal(size=(classes, d))[labels] + noise * random.normal(size=(n, d))).astype(np.float32), labels


def mutual_information_by_loops(a, b):
    """I(a; b) / ½ (H(a) + H(b)), one cell of the joint distribution at a time."""
    joint = {(i, j): np.mean((a == i) & (b == j)) for i in set(a) for j in set(b)}
    shared = sum(p * np.log(p / (np.mean(a == i) * np.mean(b == j))) for (i, j), p in joint.items() if p)
    entropies = [-sum(np.mean(x == i) * np.log(np.mean(x == i)) for i in set(x)) for x in (a, b)]
    return shared / (sum(entropies) / 2)


def rand_index_by_loops(a, b):
    """Pairs of images that both, one or none of the two put together, against what is expected by chance."""
    pairs = list(itertools.combinations(range(len(a)), 2))
    in_a, in_b = (np.array([x[i] == x[j] for i, j in pairs]) for x in (a, b))
    chance = in_a.mean() * in_b.sum()
    return ((in_a & in_b).sum() - chance) / ((in_a.sum() + in_b.sum()) / 2 - chance)


def test_scores_by_loops():
    """Not a number of scikit-learn or scipy is taken for another one, nor clusters for classes."""
    x, labels = blobs(120, noise=1.5, classes=4)
    clusters = kmeans(x, clusters=4)
    best = max(np.mean(np.array(p)[clusters] == labels) for p in itertools.permutations(range(4)))
    expected = {
        "nmi": mutual_information_by_loops(labels, clusters),
        "ari": rand_index_by_loops(labels, clusters),
        "accuracy": best,
    }
    assert cluster_scores(x, labels, classes=4) == pytest.approx(expected, abs=1e-12)
    assert 0.1 < expected["nmi"] < 0.9, "a perfect or an empty clustering tells nothing apart"


def test_separate_blobs_are_found_in_any_order_and_at_any_scale():
    x, labels = blobs()
    assert cluster_scores(x, labels, classes=5) == pytest.approx({"nmi": 1, "ari": 1, "accuracy": 1})
    vague, labels = blobs(noise=1.2)
    order = np.random.default_rng(1).permutation(len(vague))
    found = kmeans(vague, clusters=5)
    assert (kmeans(vague[order], clusters=5) == found[order]).all()
    assert (kmeans(4 * vague, clusters=5) == found).all()  # a power of two rounds nothing


def test_collapsed_features_and_few_images():
    labels = np.arange(20) % 4
    scores = cluster_scores(np.ones((20, 3), dtype=np.float32), labels, classes=4)
    assert scores["accuracy"] == 0.25 and scores["nmi"] == pytest.approx(0)
    assert cluster_scores(*blobs(3), classes=5)["accuracy"] == 1
