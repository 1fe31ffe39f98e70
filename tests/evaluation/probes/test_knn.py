import json
import math

import faiss
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from ssl_ebm.data.datasets import DataConfig, DataError, load_data
from ssl_ebm.evaluation.features.bank import Bank, Split
from ssl_ebm.evaluation.probes import knn
from ssl_ebm.evaluation.probes.knn import knn_evaluate, knn_grid, neighbours


def clusters(n, *, classes=5, d=16, noise=1.5, seed=0):
    """Features around one centre a class, hard enough that k and T matter."""
    centres = np.random.default_rng(99).standard_normal((classes, d))
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, n)
    return (centres[labels] + noise * random.standard_normal((n, d))).astype(np.float32), labels


def predict_by_loop(bank, bank_labels, query, k, temperature, classes):
    """One query by the definition, in float64; temperature None: uniform."""
    similarity = [
        float(np.dot(row.astype(float), query) / np.linalg.norm(row.astype(float)) / np.linalg.norm(query))
        for row in bank
    ]
    score = [0.0] * classes
    for j in sorted(range(len(bank)), key=lambda j: -similarity[j])[:k]:
        score[bank_labels[j]] += 1 if temperature is None else math.exp(similarity[j] / temperature)
    return score.index(max(score))


def a_bank(classes=5, **sizes):
    sizes = {"train": 200, "validation": 80, "test": 60} | sizes
    return Bank(
        **{name: Split(*clusters(n, seed=i, classes=classes)) for i, (name, n) in enumerate(sizes.items())},
        classes=classes,
    )


def test_grid_equals_the_definition():
    (bank, bank_labels), (queries, labels) = clusters(150), clusters(40, seed=1)
    result = knn_grid(bank, bank_labels, queries, labels, classes=5, ks=(3, 20, 70), temperatures=(0.07, 0.5))
    for i, k in enumerate((3, 20, 70)):
        for j, temperature in enumerate((0.07, 0.5, None)):
            expected = [
                predict_by_loop(bank, bank_labels, q, k, temperature, 5) == y
                for q, y in zip(queries.astype(float), labels, strict=True)
            ]
            got = result.uniform[i] if temperature is None else result.weighted[i][j]
            assert got == pytest.approx(np.mean(expected)), (k, temperature)
    assert len({*np.ravel(result.weighted), *result.uniform}) > 3  # the grid is not flat, so that errors would show


def test_uniform_weights_equal_scikit_learn():
    (bank, bank_labels), (queries, labels) = clusters(300), clusters(100, seed=1)
    result = knn_grid(bank, bank_labels, queries, labels, classes=5, ks=(1, 10, 51))
    for k, accuracy in zip((1, 10, 51), result.uniform, strict=True):
        peer = KNeighborsClassifier(k, metric="cosine").fit(bank, bank_labels)
        assert accuracy == pytest.approx(peer.score(queries, labels)), k


def test_temperature_runs_from_nearest_neighbour_to_uniform():
    (bank, bank_labels), (queries, labels) = clusters(300, classes=2), clusters(100, classes=2, seed=1)
    result = knn_grid(bank, bank_labels, queries, labels, classes=2, ks=(1, 21), temperatures=(1e-6, 1e6))
    assert result.weighted[1][0] == result.weighted[0][0] == result.uniform[0]
    assert result.weighted[1][1] == result.uniform[1] != result.uniform[0]


def test_features_count_by_direction_alone():
    (bank, bank_labels), (queries, labels) = clusters(200), clusters(50, seed=1)
    lengths = np.random.default_rng(0).choice(np.float32([0.25, 1, 8]), (200, 1))
    expected = knn_grid(bank, bank_labels, queries, labels, classes=5)
    assert knn_grid(bank * lengths, bank_labels, queries * 4, labels, classes=5) == expected
    assert np.abs(bank).max() > 1  # the caller's features are left as they are


@pytest.mark.parametrize("rows", [1, 7, 64])
def test_chunks_of_the_bank_and_of_the_votes_change_nothing(monkeypatch, rows):
    (bank, bank_labels), (queries, labels) = clusters(150), clusters(40, seed=1)
    similarity, row = neighbours(bank, queries, k=20)
    expected = knn_grid(bank, bank_labels, queries, labels, classes=5)
    monkeypatch.setattr(knn, "CHUNK_BYTES", 4 * 16 * rows)
    monkeypatch.setattr(knn, "VOTE_CELLS", 5 * rows)
    chunked_similarity, chunked_row = neighbours(bank, queries, k=20)
    assert chunked_similarity == pytest.approx(similarity, abs=1e-6)
    assert np.array_equal(chunked_row, row)
    assert knn_grid(bank, bank_labels, queries, labels, classes=5) == expected


def test_bank_may_be_a_file_larger_than_memory(tmp_path):
    (bank, bank_labels), (queries, labels) = clusters(150), clusters(40, seed=1)
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r")
    assert knn_grid(mapped, bank_labels, queries, labels, classes=5) == knn_grid(
        bank, bank_labels, queries, labels, classes=5
    )


def test_gpus_are_used_where_faiss_sees_them(monkeypatch):
    moved = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1)
    monkeypatch.setattr(faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index.ntotal) or index)
    bank, _ = clusters(30)
    neighbours(bank, bank, k=2)
    assert moved == [30]


def test_k_above_the_bank_is_clipped_and_said():
    (bank, bank_labels), (queries, labels) = clusters(30), clusters(40, seed=1)
    result = knn_grid(bank, bank_labels, queries, labels, classes=5, ks=(200, 10, 30))
    assert (result.ks, result.ks_used) == ([10, 30, 200], [10, 30, 30])
    assert result.weighted[1] == result.weighted[2]
    assert (result.bank_size, result.queries) == (30, 40)


def test_classes_may_be_missing_from_queries_and_bank():
    (bank, bank_labels), (queries, labels) = clusters(200), clusters(50, seed=1)
    one = labels == 3
    complete = knn_grid(bank, bank_labels, queries[one], labels[one], classes=5, ks=(20,))
    assert complete.queries == one.sum() and complete.uniform[0] > 0.2
    without = bank_labels != 3
    incomplete = knn_grid(bank[without], bank_labels[without], queries[one], labels[one], classes=5, ks=(20,))
    assert incomplete.uniform == [0]


def test_zero_vectors_are_counted_and_similar_to_nothing():
    (bank, bank_labels), (queries, labels) = clusters(60), clusters(20, seed=1)
    bank[:3], queries[5] = 0, 0
    result = knn_grid(bank, bank_labels, queries, labels, classes=5)
    assert (result.bank_zeros, result.query_zeros) == (3, 1)
    similarity, row = neighbours(bank, queries, k=60)
    assert (similarity[5] == 0).all() and (similarity[row < 3] == 0).all()


def test_what_cannot_be_judged_is_refused():
    (bank, bank_labels), (queries, labels) = clusters(60), clusters(20, seed=1)

    def refuse(match, **change):
        arguments = {"bank": bank, "bank_labels": bank_labels, "queries": queries, "query_labels": labels, "classes": 5}
        with pytest.raises(ValueError, match=match):
            knn_grid(**arguments | change)

    broken = queries.copy()
    broken[2, 3] = np.nan
    refuse("bank split must hold at least one image", bank=bank[:0], bank_labels=bank_labels[:0])
    refuse("query split must hold at least one image", queries=queries[:0], query_labels=labels[:0])
    refuse("query split must be finite.*first row 2", queries=broken)
    refuse("at least two classes, got class 4 only", bank_labels=np.full(60, 4))
    refuse(r"must lie in 0 \.\. 3", classes=4)
    refuse("ks must be", ks=(0, 10))
    refuse("ks must be", ks=())
    refuse("temperatures must be > 0, got", temperatures=(0.1, 0.0))


def test_protocol_reports_headline_and_choice():
    bank = a_bank()
    result = knn_evaluate(bank)
    full = bank.full_train()
    grid = knn_grid(full.features, full.labels, bank.test.features, bank.test.labels, classes=5)
    assert result["headline"]["accuracy"] == grid.weighted[grid.ks.index(20)][grid.temperatures.index(0.07)]
    assert result["test"]["bank_size"] == 280 and result["validation"]["bank_size"] == 200
    best = max(np.max(result["validation"]["weighted"]), np.max(result["validation"]["uniform"]))
    assert result["chosen"]["validation_accuracy"] == best
    for which in ("headline", "chosen"):
        correct = np.array(result[which]["predictions"]) == bank.test.labels
        assert correct.mean() == result[which]["accuracy"]
    assert json.loads(json.dumps(result)) == result


def test_headline_is_reported_of_any_grid():
    result = knn_evaluate(a_bank(), ks=(5,), temperatures=(1.0,))
    assert result["headline"]["k"] == 20 and result["headline"]["temperature"] == 0.07
    assert result["test"]["ks"] == [5, 20] and result["test"]["temperatures"] == [0.07, 1.0]


def test_choice_is_blind_to_test_labels():
    bank = a_bank()
    test = Split(bank.test.features, 4 - bank.test.labels)
    blind = Bank(train=bank.train, validation=bank.validation, test=test, classes=5)
    for key in ("k", "temperature", "validation_accuracy", "predictions"):
        assert knn_evaluate(bank)["chosen"][key] == knn_evaluate(blind)["chosen"][key]


def test_choice_may_fall_on_uniform_weights():
    near, far = np.float32([1, 0]), np.float32([0, 1])
    train = Split(np.stack([near] * 4 + [far] * 8), np.array([0] * 4 + [1] * 8))
    query = Split(near[None], np.array([1]))  # its four nearest are of another class
    result = knn_evaluate(Bank(train=train, validation=query, test=query, classes=2))
    assert result["headline"]["accuracy"] == 0
    assert (result["chosen"]["k"], result["chosen"]["temperature"], result["chosen"]["accuracy"]) == (10, None, 1)


@pytest.mark.slow
def test_fashion_mnist_pixels():
    try:
        data = load_data(DataConfig(name="fashion_mnist", download=False))
    except DataError as error:
        pytest.skip(str(error))
    parts = {
        name: Split(getattr(data, name).images.flatten(1).float().numpy(), getattr(data, name).labels.numpy())
        for name in ("train", "validation", "test")
    }
    result = knn_evaluate(Bank(**parts, classes=10))
    assert result["headline"]["accuracy"] == pytest.approx(0.846, abs=5e-4)
