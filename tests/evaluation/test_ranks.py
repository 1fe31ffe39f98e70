import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score, roc_curve

from ssl_ebm.evaluation.ranks import auroc, average_ranks, fpr_at, roc, spearman


def scores(*, tied, n=300, m=200, seed=0):
    random = np.random.default_rng(seed)
    negative, positive = random.normal(size=n), random.normal(0.8, 1.5, size=m)
    return (np.round(negative), np.round(positive)) if tied else (negative, positive)


def labelled(negative, positive):
    return np.repeat([0, 1], [len(negative), len(positive)]), np.concatenate([negative, positive])


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "ties"])
def test_auroc_equals_scikit_learn_and_the_loop(tied):
    negative, positive = scores(tied=tied)
    loop = np.mean([[1.0 if p > n else 0.5 if p == n else 0.0 for n in negative] for p in positive])
    assert auroc(negative, positive) == pytest.approx(loop, abs=1e-12)
    assert auroc(negative, positive) == pytest.approx(roc_auc_score(*labelled(negative, positive)), abs=1e-12)


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "ties"])
def test_points_of_the_curve_are_exact(tied):
    negative, positive = scores(tied=tied)
    curve = roc(negative, positive)
    known = set(
        zip(
            *(np.round(x, 12) for x in roc_curve(*labelled(negative, positive), drop_intermediate=False)[:2]),
            strict=True,
        )
    )
    assert set(zip(*(np.round(curve[name], 12) for name in ("fpr", "tpr")), strict=True)) <= known
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(curve["fpr"]) >= 0) and np.all(np.diff(curve["tpr"]) >= 0)
    assert len(curve["fpr"]) == len(curve["tpr"]) == 52
    few = roc(negative, positive[:3])
    assert len(few["tpr"]) == 5 and set(np.round(few["tpr"], 9)) <= set(np.round([0, 1 / 3, 2 / 3, 1], 9))


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "ties"])
@pytest.mark.parametrize("tpr", [0.95, 0.5, 1.0])
def test_false_positives_at_a_rate_by_the_loop(tied, tpr):
    negative, positive = scores(tied=tied)
    threshold = max(t for t in positive if np.mean(positive >= t) >= tpr)
    assert fpr_at(negative, positive, tpr=tpr) == np.mean(negative >= threshold)


def test_separated_scores_are_perfect_and_their_opposite_the_worst():
    low, high = np.array([0, 1]), np.array([2, 3])
    assert (auroc(low, high), fpr_at(low, high)) == (1, 0)
    assert (auroc(high, low), fpr_at(high, low)) == (0, 1)
    assert (auroc(low[:1], low[:1]), fpr_at(low[:1], low[:1])) == (0.5, 1)


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "ties"])
def test_spearman_equals_scipy(tied):
    a, b = scores(tied=tied, m=300)
    b = b + a
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert spearman(a, np.exp(a)) == pytest.approx(1) and spearman(a, -a) == pytest.approx(-1)
    assert average_ranks(np.array([3.0, 1, 3, 2])).tolist() == [2.5, 0, 2.5, 1]
    assert spearman(a, np.ones_like(a)) is None


def test_scores_that_cannot_be_ranked_are_refused():
    with pytest.raises(ValueError, match="negative scores must hold at least one value, got 0"):
        auroc(np.array([]), np.ones(1))
    with pytest.raises(ValueError, match="positive scores must be finite"):
        roc(np.ones(1), np.array([np.nan]))
    with pytest.raises(ValueError, match=r"tpr must be in \(0, 1\], got 0"):
        fpr_at(np.ones(1), np.ones(1), tpr=0.0)
