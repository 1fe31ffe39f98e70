"""Probes of arrays: the function for users of other encoders, its table, and what no probe depends on."""

import json

import faiss
import numpy as np
import pytest
import torch
from clusters import bank, clusters, reordered

from ssl_ebm.evaluation import PROTOCOLS, evaluate_bank, evaluate_features, make_bank
from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.evaluation.probes.protocols import DESCRIPTIONS
from ssl_ebm.report.tables.probes import probe_table

TRAIN, TEST = clusters(200), clusters(60, seed=2)


def call(**change):
    arguments = {
        "train": TRAIN.features,
        "train_labels": TRAIN.labels,
        "test": TEST.features,
        "test_labels": TEST.labels,
        "protocols": ("ridge",),
    }
    arguments |= change
    given = [arguments.pop(key) for key in ("train", "train_labels", "test", "test_labels")]
    return evaluate_features(*given, **arguments)


def test_results_are_those_of_each_protocol():
    held = clusters(80, seed=1)
    results = call(validation=(held.features, held.labels), protocols=("knn", "linear", "ridge", "few_shot"))
    b = Bank(train=TRAIN, validation=held, test=TEST, classes=4)
    for name in ("knn", "linear", "ridge"):
        expected = PROTOCOLS[name](b)
        for part in ("headline", "chosen", "test"):
            if "predictions" in expected.get(part, {}):
                expected[part].pop("predictions")
        assert results[name] == expected
    assert results["few_shot"] == PROTOCOLS["few_shot"](b)
    assert set(results["predictions"]) == {"knn", "knn_chosen", "linear", "ridge"}
    assert (results["predictions"]["linear"] == TEST.labels).mean() == results["linear"]["test"]["top1"]
    assert (results["num_features"], results["classes"]) == (12, 4)
    assert results["sizes"] == {"train": 200, "validation": 80, "test": 60}


def test_validation_is_a_stratified_seeded_tenth_of_train():
    parts = [make_bank(TRAIN.features, TRAIN.labels, TEST.features, TEST.labels, seed=seed) for seed in (0, 0, 1)]
    first, again, other = parts
    assert (len(first.train), len(first.validation)) == (180, 20)
    assert np.bincount(first.validation.labels).tolist() == [5] * 4
    assert np.array_equal(first.validation.features, again.validation.features)
    assert not np.array_equal(first.validation.features, other.validation.features)
    rows = {row.tobytes() for row in np.concatenate([first.train.features, first.validation.features])}
    assert rows == {row.tobytes() for row in TRAIN.features}


def test_every_class_is_in_both_parts():
    labels = np.where(np.arange(200) < 2, 4, TRAIN.labels)  # class 4 has two images
    parts = make_bank(TRAIN.features, labels, TEST.features, TEST.labels)
    assert (parts.train.labels == 4).sum() == (parts.validation.labels == 4).sum() == 1


def test_arrays_of_any_real_type_and_tensors_are_taken():
    pixels = np.random.default_rng(0).integers(0, 256, (200, 12), dtype=np.uint8)
    call(train=pixels, test=pixels[:60])
    call(train=TRAIN.features.astype(np.float16), test_labels=TEST.labels.astype(np.uint8))
    tensors = {"train": torch.from_numpy(TRAIN.features), "train_labels": torch.from_numpy(TRAIN.labels)}
    assert call(**tensors)["ridge"] == call()["ridge"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train": np.where(np.eye(200, 12) > 0, np.nan, TRAIN.features)}, ValueError, "split must be finite, got NaN"),
        ({"test": TEST.features * np.float64(1e300)}, ValueError, "test split must be finite"),
        (
            {"train_labels": np.where(np.arange(200) == 7, 4, TRAIN.labels)},
            ValueError,
            "class 4 has one training image",
        ),
        ({"train_labels": np.full(200, 3)}, ValueError, "train must hold at least two classes, got class 3 only"),
        ({"test_labels": TEST.labels + 1}, ValueError, r"test split must lie in 0 \.\. 3, got 1 \.\. 4"),
        ({"classes": 3}, ValueError, r"train split must lie in 0 \.\. 2"),
        ({"train_labels": TRAIN.labels - 1}, ValueError, "train split must be integers from 0, got -1"),
        ({"train_labels": TRAIN.labels[:-1]}, ValueError, "label for each image, got 200 and 199"),
        ({"test": TEST.features[:0], "test_labels": TEST.labels[:0]}, ValueError, "label for each image, got 0 and 0"),
        ({"test": TEST.features[:, :5]}, ValueError, "one feature dimension"),
        ({"train": TRAIN.features[0]}, ValueError, r"features \[n, d\] and labels \[n\], got \[12\] and \[200\]"),
        ({"train_labels": TRAIN.labels.astype(float)}, TypeError, "train split must be integers 0, 1, .*, got float64"),
        ({"train": TRAIN.features.astype(str)}, TypeError, "train split must be real numbers, got <U"),
        ({"protocols": ("rigde",)}, ValueError, "unknown protocol 'rigde': did you mean 'ridge'"),
        ({"protocols": ()}, ValueError, r"protocols must be a list of names, got \(\)"),
        ({"protocols": "ridge"}, ValueError, "protocols must be a list of names, got 'ridge'"),
    ],
)
def test_what_cannot_be_judged_is_refused_in_one_line(change, error, message):
    with pytest.raises(error, match=message) as caught:
        call(**change)
    assert len(str(caught.value).splitlines()) == 1


def test_a_class_with_one_image_is_taken_where_validation_is_given():
    labels = np.where(np.arange(200) == 7, 4, TRAIN.labels)
    assert call(train_labels=labels, validation=(TEST.features, TEST.labels))["classes"] == 5


def test_more_classes_than_neighbours_are_allowed():
    results, _ = evaluate_bank(bank(classes=30, sizes=(270, 60, 60)), ("knn",))
    assert results["knn"]["headline"]["k"] == 20 < 30
    assert results["knn"]["headline"]["accuracy"] > 2 / 30


def test_the_order_of_images_changes_nothing():
    """kNN: but for ties in similarity. Linear: to the solver's tolerance. Ridge: to rounding of float64."""
    b = bank()
    moved = bank(train=reordered(b.train), validation=reordered(b.validation))
    plain, plain_predicted = evaluate_bank(b, ("knn", "linear", "ridge"))
    other, other_predicted = evaluate_bank(moved, ("knn", "linear", "ridge"))
    assert other["knn"] == plain["knn"]
    assert other["ridge"] == plain["ridge"]
    assert other["linear"]["strength"] == plain["linear"]["strength"]
    assert other["linear"]["test"]["ece"] == pytest.approx(plain["linear"]["test"]["ece"], abs=1e-3)
    for name, predicted in plain_predicted.items():
        assert np.array_equal(other_predicted[name], predicted), name


def test_the_order_and_number_of_queries_change_nothing():
    b = bank()
    order = np.random.default_rng(0).permutation(len(b.test))[:25]
    fewer = bank(test=Split(b.test.features[order], b.test.labels[order]))
    (_, whole), (_, part) = (evaluate_bank(x, ("knn", "linear", "ridge")) for x in (b, fewer))
    for name, predicted in whole.items():
        assert np.array_equal(part[name], predicted[order]), name


def test_the_number_of_threads_changes_nothing():
    b, answers = bank(sizes=(600, 100, 200)), []
    before, before_faiss = torch.get_num_threads(), faiss.omp_get_max_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            faiss.omp_set_num_threads(threads)
            answers.append(evaluate_bank(b, ("knn", "linear", "ridge"))[1])
    finally:
        torch.set_num_threads(before)
        faiss.omp_set_num_threads(before_faiss)
    for name, predicted in answers[0].items():
        assert np.array_equal(answers[1][name], predicted), name


def test_the_table_shows_what_was_chosen_and_how_sure_each_number_is():
    results, _ = evaluate_bank(bank(sizes=(200, 80, 100), classes=8), ("knn", "linear", "ridge", "few_shot"))
    json.dumps(results)
    results["linear"]["test"] |= {"top1": 0.5, "top5": 0.987, "ece": 0.0312}
    results["linear"] |= {"strength": 0.1, "at_edge": True}
    text = probe_table(results, 100)
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert set(lines) >= {"kNN", "kNN, chosen", "linear", "ridge", "1 a class", "5 a class", "10 a class"}
    assert lines["linear"].split() == "linear C = 0.1 (edge of the grid) 50.0 9.6 98.7 .031".split()
    assert "λ = " in lines["ridge"] and lines["ridge"].endswith("–")
    assert "5 draws" in lines["1 a class"] and "k = 20, T = 0.07" in lines["kNN"]
    assert "100 test images" in text and max(map(len, text.splitlines())) <= 120


def test_descriptions_state_the_numbers_that_the_results_state():
    small = bank(sizes=(40, 20, 20))
    results, _ = evaluate_bank(small, ("knn", "few_shot", "sgd"))
    headline, sgd = results["knn"]["headline"], results["sgd"]
    assert f"k = {headline['k']}, T = .{headline['temperature'] * 100:02.0f};" in DESCRIPTIONS["knn"]
    assert f"{len(results['few_shot']['1']['accuracies'])} nested draws" in DESCRIPTIONS["few_shot"]
    training = f"momentum .{sgd['momentum'] * 10:.0f}, cosine, {sgd['epochs']} epochs, batch {sgd['batch_size']}"
    assert training in DESCRIPTIONS["sgd"] and f"rate of {len(sgd['rates'])} by validation" in DESCRIPTIONS["sgd"]
    assert set(DESCRIPTIONS) == set(PROTOCOLS)
