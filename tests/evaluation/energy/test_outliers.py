import json
import math

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.datasets import load_digits

from ssl_ebm.energies.pairwise import Cosine, Distance, SquaredEuclidean
from ssl_ebm.evaluation.energy.outlier_images import outlier_sets, textures, to_bytes
from ssl_ebm.evaluation.energy.outlier_scores import Mahalanobis, detection, free_energies, knn_distances


def features(n, d=5, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


@pytest.mark.parametrize("energy", [Cosine(temperature=0.1), SquaredEuclidean(), Distance()], ids=lambda e: str(e))
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_free_energies_by_loops(energy, beta):
    queries, bank = (torch.from_numpy(features(n, seed=n)) for n in (7, 30))
    energies = energy.cross(queries.double(), bank.double())
    expected = [-math.log(np.mean([math.exp(-beta * float(e)) for e in row])) / beta for row in energies]
    assert free_energies(energy, queries, bank, beta=beta) == pytest.approx(expected, rel=1e-5)
    alone = [free_energies(energy, queries[i : i + 1], bank, beta=beta)[0] for i in range(7)]
    assert alone == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="beta must be > 0, got 0"):
        free_energies(energy, queries, bank, beta=0.0)


def test_knn_distances_by_loops():
    queries, bank = features(9, seed=1), features(60)
    unit = [x.astype(float) / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, bank)]
    expected = [sorted(np.linalg.norm(unit[1] - q, axis=1))[49] for q in unit[0]]
    assert knn_distances(queries, bank) == pytest.approx(expected, abs=1e-6)
    assert knn_distances(3 * queries, bank[:4]) == pytest.approx(
        [max(np.linalg.norm(unit[1][:4] - q, axis=1)) for q in unit[0]], abs=1e-6
    )


def test_mahalanobis_equals_scikit_learn():
    bank, queries = features(40, 8) * np.arange(1, 9, dtype=np.float32) + 2, features(6, 8, seed=1)
    model = LedoitWolf().fit(bank.astype(float))
    assert Mahalanobis.fit(bank)(queries) == pytest.approx(np.sqrt(model.mahalanobis(queries.astype(float))), rel=1e-6)


def test_mahalanobis_where_covariances_are_singular():
    few = Mahalanobis.fit(features(3, 8))(features(6, 8, seed=1))
    assert np.isfinite(few).all() and (few > 0).all()
    constant = Mahalanobis.fit(np.full((5, 2), 3.0, dtype=np.float32))
    assert constant(np.array([[3.0, 3], [6, 7]], dtype=np.float32)) == pytest.approx([0, 5])
    line = Mahalanobis.fit(np.outer(np.linspace(-1, 1, 500), [1, 1, 0]).astype(np.float32))
    on, off = line(np.array([[1.0, 1, 0], [1, -1, 0]], dtype=np.float32))
    assert off > 3 * on


def test_foreign_is_positive():
    found = detection(np.array([0.0, 1, 2, 3]), np.array([2.5, 4, 5, 6]))
    assert found["auroc"] == pytest.approx(15 / 16) and found["fpr95"] == 0.25
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(("channels", "size"), [(1, 28), (3, 32), (3, 5)])
def test_outlier_sets_are_images_and_always_the_same(channels, size):
    sets = outlier_sets(channels, size, count=30)
    assert set(sets) == {"noise", "uniform", "textures", "digits"}
    for name, images in sets.items():
        assert images.dtype == torch.uint8 and images.shape == (30, channels, size, size), name
        assert torch.equal(images, outlier_sets(channels, size, count=30)[name])
        assert len(images.flatten(1).unique(dim=0)) == 30  # no two are the same
    assert abs(float(sets["uniform"].float().mean()) - 127.5) < 3
    assert float(sets["noise"].float().std()) == pytest.approx(0.25 * 255, rel=0.1)


def test_digits_are_scikit_learns():
    """A hundred at their own size of 8 pixels, where nothing is resized: sixteenths of white."""
    expected = (torch.from_numpy(load_digits().images[:100]) / 16 * 255).round()
    assert torch.equal(outlier_sets(1, 8, count=100)["digits"][:, 0].double(), expected)


def test_textures_are_not_noise():
    images = textures(60, 3, 32, torch.Generator().manual_seed(0))
    assert 0 <= images.min() and images.max() <= 1
    grey = images.mean(1)
    change, spread = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean((1, 2)), grey.std((1, 2))
    assert (change < 1.2 * spread).all()  # of independent pixels it is 1.13 at least for normal, 1.15 for uniform ones
    assert (change < 0.8 * spread).float().mean() > 0.9


def test_pixels_are_rounded_to_the_nearest_and_clipped():
    assert to_bytes(torch.tensor([[[[-0.5, 0.5, 1.5]]]])).flatten().tolist() == [0, 128, 255]
