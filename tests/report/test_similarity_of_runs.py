import json

import numpy as np
import pytest
from scipy.stats import spearmanr

from ssl_ebm.evaluation.energy.of_pairs import listed_pairs
from ssl_ebm.report.similarity_of_runs import linear_cka, nearest, overlap, similarities


def features(n=80, d=6, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def test_cka_equals_the_alignment_of_centred_gram_matrices():
    x, y = features(), features(d=9, seed=1) + 3
    y[:, :6] += x
    centre = np.eye(80) - 1 / 80
    k, m = (centre @ (z.astype(float) @ z.T.astype(float)) @ centre for z in (x, y))
    expected = (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())
    assert linear_cka(x, y) == pytest.approx(expected, rel=1e-6)
    assert linear_cka(y, x) == pytest.approx(linear_cka(x, y), rel=1e-12)


def test_cka_of_rotated_and_of_unlike_spaces():
    x = features(n=4000)
    rotation, _ = np.linalg.qr(features(6, 6, seed=2).astype(float))
    assert linear_cka(x, (7 * x @ rotation - 2).astype(np.float32)) == pytest.approx(1, abs=1e-6)
    assert linear_cka(x, features(n=4000, seed=3)) < 0.01
    assert linear_cka(x, np.ones((4000, 3), dtype=np.float32)) == 0


def test_neighbours_and_their_overlap_by_loops():
    x, y = features(), features(seed=1) + features()
    found = []
    for z in (x, y):
        unit = z.astype(float) / np.linalg.norm(z, axis=1, keepdims=True)
        rows = [[j for j in np.argsort(-unit @ unit[i]) if j != i][:5] for i in range(80)]
        assert [set(row) for row in nearest(z, k=5).tolist()] == [set(row) for row in rows]
        found.append(rows)
    expected = np.mean([len(set(a) & set(b)) / 5 for a, b in zip(*found, strict=True)])
    assert overlap(nearest(x, k=5), nearest(y, k=5)) == pytest.approx(expected, abs=1e-12)
    assert overlap(nearest(x, k=5), nearest(x, k=5)) == 1
    same = nearest(np.ones((30, 4), dtype=np.float32), k=3)
    assert same.shape == (30, 3) and not (same == np.arange(30)[:, None]).any()
    with pytest.raises(ValueError, match=r"k must be in \[1, 79\], the number of other images, got 80"):
        nearest(x, k=80)


def test_matrices_over_runs():
    spaces = [features(), 2 * features(), features(seed=1)]
    order = np.random.default_rng(0).permutation(80)
    energies = [np.arange(9.0), np.arange(9.0) ** 2, np.array([3.0, 1, 4, 1, 5, 9, 2, 6, 5])]
    found = similarities(spaces, energies)
    assert found["cka"][0][1] == pytest.approx(1) and found["overlap"][0][1] == 1
    assert found["cka"][0][2] == found["cka"][2][0] < 0.5 and found["overlap"][0][2] < 0.5
    assert found["spearman"][0] == pytest.approx([1, 1, spearmanr(energies[0], energies[2]).statistic])
    assert json.loads(json.dumps(found)) == found
    permuted = similarities([x[order] for x in spaces], energies)
    assert np.allclose(permuted["cka"], found["cka"], rtol=1e-9)
    assert permuted["overlap"] == found["overlap"]
    with pytest.raises(ValueError, match=r"features must be of the same images for every run, got \[80, 79\]"):
        similarities([spaces[0], spaces[0][1:]], energies[:2])


def test_listed_pairs_are_of_their_kinds_and_always_the_same():
    labels = np.array([0, 0, 0, 1, 1, 2])
    left, right, kind = listed_pairs(labels)
    assert np.bincount(kind).tolist() == [6, 5, 6]  # the only one of its class has no other of it
    assert (left[kind == 0] == right[kind == 0]).all()
    for same in (1, 2):
        assert (left[kind == same] != right[kind == same]).all()
        assert ((labels[left] == labels[right]) == (same == 1))[kind == same].all()
    assert all((a == b).all() for a, b in zip(listed_pairs(labels), (left, right, kind), strict=True))
    assert set(listed_pairs(np.zeros(4, dtype=int))[2]) == {0, 1}
