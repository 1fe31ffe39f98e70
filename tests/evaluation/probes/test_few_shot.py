import json

import numpy as np
import pytest
from clusters import bank, clusters, without
from sklearn.linear_model import LogisticRegression

from ssl_ebm.evaluation.features.bank import Split
from ssl_ebm.evaluation.probes.few_shot import few_shot, rank_in_class


def directions(split, train):
    """Standardised by train, of length 1."""
    features = (split.features - train.features.mean(0)) / train.features.std(0)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def test_equals_the_protocol_spelled_out_with_scikit_learn():
    b = bank()
    result = few_shot(b, shots=(2, 20), draws=3, strength=1.0, seed=7)  # 8 images in 12 dimensions, and 80
    for shots in (2, 20):
        expected = []
        for draw in range(3):
            rank = rank_in_class(b.train.labels, np.random.RandomState(7 + draw))
            drawn = rank < shots
            model = LogisticRegression(C=1.0, tol=1e-6, max_iter=10_000)
            model.fit(directions(b.train, b.train)[drawn], b.train.labels[drawn])
            expected.append(model.score(directions(b.test, b.train), b.test.labels))
        got = result[str(shots)]
        assert got["accuracies"] == pytest.approx(expected)
        assert got["mean"] == pytest.approx(np.mean(expected))
        assert got["std"] == pytest.approx(np.std(expected, ddof=1)) and got["std"] > 0
    assert list(result) == ["2", "20"] and json.loads(json.dumps(result)) == result


def test_draws_are_of_each_class_nested_and_seeded():
    labels = np.random.default_rng(0).integers(0, 3, 50)
    rank = rank_in_class(labels, np.random.RandomState(0))
    for label in range(3):
        assert sorted(rank[labels == label]) == list(range((labels == label).sum()))
    assert np.array_equal(rank, rank_in_class(labels, np.random.RandomState(0)))
    assert not np.array_equal(rank, rank_in_class(labels, np.random.RandomState(1)))


def test_more_images_are_better_and_less_spread():
    result = few_shot(bank(sizes=(800, 10, 400)))
    means = [result[shots]["mean"] for shots in ("1", "5", "10", "100")]
    assert means == sorted(means) and means[0] > 0.25
    assert result["100"]["std"] < result["1"]["std"]


def test_a_small_class_gives_all_it_has_and_is_counted():
    b = bank()
    rare = (b.train.labels == 3).nonzero()[0][:2]
    kept = np.concatenate([(b.train.labels != 3).nonzero()[0], rare])
    result = few_shot(bank(train=Split(b.train.features[kept], b.train.labels[kept])))
    assert [result[shots]["short_classes"] for shots in ("1", "5", "10")] == [0, 1, 1]
    assert "100" not in result  # no class has more than 50


def test_a_class_that_is_absent_is_never_right():
    b = bank()
    result = few_shot(bank(train=without(b.train, 3)), shots=(20,))
    assert result["20"]["short_classes"] == 0
    assert max(result["20"]["accuracies"]) <= (b.test.labels != 3).mean()


def test_shift_and_scale_of_each_feature_do_not_count():
    scale, shift = np.float32(2.0 ** np.arange(-6, 6)), np.float32(np.linspace(-4, 4, 12))
    b = bank()
    train, test = (Split(part.features * scale + shift, part.labels) for part in (b.train, b.test))
    moved, plain = few_shot(bank(train=train, test=test), shots=(5, 20)), few_shot(b, shots=(5, 20))
    for shots in ("5", "20"):
        assert moved[shots]["accuracies"] == pytest.approx(plain[shots]["accuracies"], abs=1 / 50)


def test_a_direction_that_all_features_share_does_not_hide_the_classes():
    b = bank()
    train, test = (Split(part.features + np.float32(300), part.labels) for part in (b.train, b.test))
    assert few_shot(bank(train=train, test=test), shots=(20,))["20"]["mean"] > 0.5


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="shots must be numbers of images of at least 1, got"):
        few_shot(bank(), shots=(0, 1))
    with pytest.raises(ValueError, match="draws must be at least 2"):
        few_shot(bank(), draws=1)
    split = clusters(40)
    with pytest.raises(ValueError, match="at least two classes"):
        few_shot(bank(train=Split(split.features, np.zeros_like(split.labels))))
