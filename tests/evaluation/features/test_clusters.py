import itertools

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from ssl_ebm.evaluation.features.clusters import (
    assign,
    cluster_scores,
    contingency,
    kmeans,
    mutual_information_score,
    rand_score,
)


def blobs(n=300, classes=5, d=16, noise=0.3, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    return (random.normal(size=(classes, d))[labels] + noise * random.normal(size=(n, d))).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(4))
def test_scores_equal_scikit_learn(seed):
    random = np.random.default_rng(seed)
    a = random.integers(0, 4, 200)
    b = np.where(random.random(200) < 0.5, a, random.integers(0, 7, 200))
    table = contingency(a, b)
    assert mutual_information_score(table) == pytest.approx(normalized_mutual_info_score(a, b), abs=1e-12)
    assert rand_score(table) == pytest.approx(adjusted_rand_score(a, b), abs=1e-12)


def test_scores_of_extremes():
    a = np.array([0, 0, 1, 1, 2])
    for score in (mutual_information_score, rand_score):
        assert score(contingency(a, 7 - a)) == pytest.approx(1)
        assert score(contingency(a, np.zeros(5, dtype=int))) == pytest.approx(0)
        assert score(contingency(np.zeros(5, dtype=int), np.zeros(5, dtype=int))) == 1


@pytest.mark.parametrize("shape", [(6, 6), (4, 9), (9, 4), (1, 3)])
@pytest.mark.parametrize("whole", [False, True], ids=["real", "ties"])
def test_assignments_equal_scipy(shape, whole):
    random = np.random.default_rng(0)
    for _ in range(10):
        cost = random.normal(size=shape) * 5
        cost = cost.round() if whole else cost
        rows, columns = assign(cost)
        assert len(set(rows)) == len(set(columns)) == min(shape)
        assert cost[rows, columns].sum() == pytest.approx(cost[linear_sum_assignment(cost)].sum(), abs=1e-9)


def test_accuracy_is_that_of_the_best_matching():
    x, labels = blobs(noise=1.5, classes=4)
    found = kmeans(x, clusters=4)
    best = max(np.mean(np.array(p)[found] == labels) for p in itertools.permutations(range(4)))
    scores = cluster_scores(x, labels, classes=4)
    assert scores["accuracy"] == pytest.approx(best)
    assert scores["nmi"] == pytest.approx(normalized_mutual_info_score(labels, found), abs=1e-12)


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
