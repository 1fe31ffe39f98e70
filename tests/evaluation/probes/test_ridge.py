import json

import numpy as np
import pytest
import torch
from clusters import bank, blind, clusters, reordered, without
from sklearn.linear_model import Ridge

from ssl_ebm.evaluation.probes import ridge
from ssl_ebm.evaluation.probes.ridge import ridge_probe, ridge_regression

PENALTIES = [1e-4, 1e-1, 10.0]


def problem(n=90, d=7, classes=4):
    split = clusters(n, d=d, classes=classes)
    return torch.from_numpy(split.features + np.float32(3)), torch.from_numpy(split.labels)


def normal_equations(x, labels, penalty, classes):
    """Weights and intercepts by one dense solve in float64, the intercept an unpenalised column."""
    design = np.column_stack([x.double().numpy(), np.ones(len(x))])
    penalised = penalty * len(x) * np.diag([1.0] * x.shape[1] + [0.0])
    solution = np.linalg.solve(design.T @ design + penalised, design.T @ np.eye(classes)[labels])
    return solution[:-1].T, solution[-1]


@pytest.mark.parametrize("n", [90, 6])  # more images than dimensions, and fewer
def test_equals_the_normal_equations_and_scikit_learn(n):
    x, labels = problem(n)
    fit = ridge_regression(x, labels, PENALTIES, classes=4)
    for penalty, weights, intercepts in zip(PENALTIES, fit.weights, fit.intercepts, strict=True):
        expected, bias = normal_equations(x, labels, penalty, 4)
        assert weights.numpy() == pytest.approx(expected, rel=1e-6, abs=1e-9)
        assert intercepts.numpy() == pytest.approx(bias, rel=1e-6, abs=1e-8)
        peer = Ridge(alpha=penalty * n).fit(x.double().numpy(), np.eye(4)[labels])
        assert weights.numpy() == pytest.approx(peer.coef_, rel=1e-6, abs=1e-8)


def test_a_vanishing_penalty_interpolates_and_an_infinite_one_gives_the_frequencies():
    x, labels = problem(6)
    fit = ridge_regression(x, labels, [1e-12, 1e12], classes=4)
    scores = x.double() @ fit.weights.mT + fit.intercepts[:, None]
    assert scores[0].numpy() == pytest.approx(np.eye(4)[labels], abs=1e-6)
    assert scores[1].numpy() == pytest.approx(np.tile(np.bincount(labels) / 6, (6, 1)), abs=1e-9)


def test_scores_sum_to_one():
    x, labels = problem()
    fit = ridge_regression(x, labels, PENALTIES, classes=4)
    assert (x.double() @ fit.weights.mT + fit.intercepts[:, None]).sum(2).numpy() == pytest.approx(1)


def test_chunks_and_order_change_nothing(monkeypatch):
    x, labels = problem()
    whole = ridge_regression(x, labels, PENALTIES, classes=4)
    monkeypatch.setattr(ridge, "CHUNK_ROWS", 7)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    other = ridge_regression(x[order], labels[order], PENALTIES, classes=4)
    assert other.weights.numpy() == pytest.approx(whole.weights.numpy(), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("penalties", [[], [0.0], [1.0, -1.0], [float("inf")], [float("nan")]])
def test_impossible_penalties_are_refused(penalties):
    with pytest.raises(ValueError, match="penalties must be finite and > 0"):
        ridge_regression(*problem(), penalties, classes=4)


def test_impossible_labels_are_refused():
    x, labels = problem()
    with pytest.raises(ValueError, match=r"labels must lie in 0 \.\. 2, got 0 \.\. 3"):
        ridge_regression(x, labels, [1.0], classes=3)
    with pytest.raises(ValueError, match="at least two classes, got class 2 only"):
        ridge_regression(x, torch.full_like(labels, 2), [1.0], classes=4)


def test_probe_equals_the_protocol_spelled_out_with_scikit_learn():
    b = bank()
    grid = np.logspace(-3, 2, 6).tolist()
    result = ridge_probe(b, penalties=grid[::-1])

    def fit(part, penalty):
        mean, std = part.features.mean(0), part.features.std(0)
        model = Ridge(alpha=penalty * len(part)).fit((part.features - mean) / std, np.eye(4)[part.labels])
        return lambda other: model.predict((other.features - mean) / std).argmax(1)

    curve = [float((fit(b.train, penalty)(b.validation) == b.validation.labels).mean()) for penalty in grid]
    best = max(range(6), key=lambda i: (curve[i], i))
    assert result["strengths"] == grid and result["validation"] == pytest.approx(curve)
    assert result["strength"] == grid[best] and result["at_edge"] == (best in (0, 5))
    assert result["test"]["predictions"] == fit(b.full_train(), grid[best])(b.test).tolist()
    assert result["test"]["ece"] is None
    assert json.loads(json.dumps(result)) == result


def test_probe_chooses_without_the_test_labels():
    plain, other = ridge_probe(bank()), ridge_probe(blind(bank()))
    assert plain.pop("test")["predictions"] == other.pop("test")["predictions"]
    assert plain == other


def test_probe_does_not_depend_on_the_order_of_images():
    b = bank()
    plain, other = ridge_probe(b), ridge_probe(bank(train=reordered(b.train), validation=reordered(b.validation)))
    assert plain == other


def test_classes_without_training_images_are_never_predicted():
    b = bank()
    result = ridge_probe(bank(train=without(b.train, 3), validation=without(b.validation, 3)))
    assert result["unseen_classes"] == [3] and 3 not in result["test"]["predictions"]
