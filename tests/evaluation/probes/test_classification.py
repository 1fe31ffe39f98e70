import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from ssl_ebm.energies.labels import LabelEnergy
from ssl_ebm.evaluation.features.bank import Split
from ssl_ebm.evaluation.probes.classification import (
    Classifiers,
    Standardisation,
    class_accuracies,
    classification_scores,
)


def random_logits(n=200, classes=8):
    random = np.random.default_rng(0)
    labels = random.integers(0, classes - 1, n)  # the last class has no image
    return (random.standard_normal((n, classes)) + np.eye(classes)[labels]).astype(np.float32), labels


def test_scores_equal_scikit_learn():
    logits, labels = random_logits()
    scores = classification_scores(logits, labels)
    predicted = logits.argmax(1)
    matrix = confusion_matrix(labels, predicted, labels=range(8))
    assert scores["top1"] == (predicted == labels).mean()
    assert scores["top5"] == pytest.approx(top_k_accuracy_score(labels, logits, k=5, labels=range(8)))
    assert scores["confusion"] == matrix.tolist()
    assert scores["per_class"][:-1] == pytest.approx(matrix.diagonal()[:-1] / matrix.sum(1)[:-1])
    assert scores["per_class"][-1] is None
    assert scores["predictions"] == predicted.tolist() and scores["size"] == 200
    assert json.loads(json.dumps(scores)) == scores


def test_calibration_error_equals_its_definition():
    logits, labels = random_logits()
    probability = np.exp(logits.astype(float)) / np.exp(logits.astype(float)).sum(1, keepdims=True)
    confidence, correct = probability.max(1), probability.argmax(1) == labels
    error = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert classification_scores(logits, labels)["ece"] == pytest.approx(error)


def test_calibration_error_of_certain_and_of_blind_classifiers():
    labels = np.arange(30) % 3
    certain = np.float32(np.eye(3)[labels] * 1000)
    assert classification_scores(certain, labels)["ece"] == pytest.approx(0, abs=1e-12)
    assert classification_scores(certain[::-1].copy(), labels)["ece"] == pytest.approx(2 / 3)
    assert classification_scores(np.zeros((30, 3), np.float32), labels)["ece"] == pytest.approx(0, abs=1e-12)


def test_top5_needs_more_than_five_classes_and_a_class_that_can_be_predicted():
    assert classification_scores(*random_logits(classes=5))["top5"] is None
    logits = np.full((3, 6), -np.inf, dtype=np.float32)
    logits[:, 0] = 0
    scores = classification_scores(logits, np.array([0, 1, 1]))
    assert scores["top1"] == scores["top5"] == pytest.approx(1 / 3)
    blind = classification_scores(np.zeros((60, 60), np.float32), np.arange(60))
    assert blind["top5"] == pytest.approx(5 / 60)


def test_scores_that_are_no_logits_have_no_calibration():
    logits, labels = random_logits()
    plain, other = classification_scores(logits, labels), classification_scores(logits, labels, logits=False)
    assert other.pop("ece") is None and plain.pop("ece") > 0
    assert other.pop("nll") is None and plain.pop("nll") > 0 and plain == other


def test_a_classifier_is_an_energy_of_image_and_label():
    logits, labels = random_logits()
    energy, free = LabelEnergy(), torch.from_numpy(logits).double()
    gap = energy.energy(free, torch.from_numpy(labels)) - energy.free_energy(free)
    assert classification_scores(logits, labels)["nll"] == pytest.approx(float(gap.mean()))
    logits[:, labels[0]] = -np.inf  # a class that was never seen
    assert classification_scores(logits, labels)["nll"] is None


def test_class_accuracies_are_the_confusion_matrix_s_diagonal():
    labels, predicted = np.array([0, 0, 0, 2, 2]), np.array([0, 1, 0, 2, 0])
    assert class_accuracies(predicted, labels, 4) == [pytest.approx(2 / 3), None, 0.5, None]


def test_absent_classes_score_minus_infinity():
    def fit(x, labels, *, classes):
        assert labels.tolist() == [0, 1, 1] and classes == 2
        return SimpleNamespace(weights=torch.tensor([[[1.0], [-1.0]]]), intercepts=torch.tensor([[0.5, 0.0]]))

    split = Split(np.float32([[0], [1], [2]]), np.array([1, 3, 3]))
    sweep = Classifiers(split, fit)
    root = np.sqrt(1.5)
    expected = [[-np.inf, 0.5 + z, -np.inf, -z] for z in (-root, 0, root)]
    assert sweep.scores(split, 4) == pytest.approx(np.float32(expected))
    assert sweep.unseen(4) == [0, 2] and sweep.accuracies(split, 4) == [pytest.approx(0)]


def test_standardisation_is_by_the_fitted_split_and_silences_constants():
    x = torch.tensor([[1.0, 0.1, 5.0], [3.0, 0.1, 9.0]])
    standardise = Standardisation(x)
    assert standardise(x).tolist() == [[-1, 0, -1], [1, 0, 1]]
    assert standardise(torch.tensor([[5.0, 1e6, 7.0]])).tolist() == [[3, 0, 0]]
