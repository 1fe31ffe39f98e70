"""The Fréchet distance against closed forms and scipy's matrix root."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ssl_ebm.evaluation import frechet_distance


def some(n, d, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=generator) @ (scale * torch.randn(d, d, generator=generator))


def test_it_is_its_formula_with_a_general_matrix_root():
    a, b = some(60, 7, 0).numpy().astype(float), 0.5 + some(50, 7, 1, 2.0).numpy().astype(float)
    cov_a, cov_b = np.cov(a.T), np.cov(b.T)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    assert frechet_distance(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-9)


def test_closed_forms():
    a = some(40, 5, 2)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    shift = torch.tensor([3.0, 0.0, 0.0, 0.0, 4.0])
    assert frechet_distance(a, a + shift) == pytest.approx(25, rel=1e-5)
    centred = a.double() - a.double().mean(0)
    variance = float(centred.square().sum() / 39)
    assert frechet_distance(centred, 3 * centred) == pytest.approx(4 * variance, rel=1e-6)  # (3 - 1)² tr Σ
    assert frechet_distance(some(4, 9, 3), some(5, 9, 4)) > 0  # fewer images than dimensions


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least 2 images of each kind, got 1 and 3"):
        frechet_distance(torch.ones(1, 2), torch.ones(3, 2))
    with pytest.raises(ValueError, match="must be finite"):
        frechet_distance(torch.full((3, 2), float("nan")), torch.ones(3, 2))
