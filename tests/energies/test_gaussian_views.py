"""Canonical correlations of banks that are Gaussian, and of banks that are not."""

import math

import pytest
import torch
from torch import Tensor

from ssl_ebm.energies.canonical import Gaussian, mutual_information
from ssl_ebm.energies.gaussian_views import CanonicalCorrelation, Scaled, best_scale, ledoit_wolf
from ssl_ebm.energies.pairwise import Distance, SquaredEuclidean

RHO = torch.tensor([0.9, 0.6, 0.3], dtype=torch.float64)


def gaussian_pairs(n: int, *, seed: int = 0, rho: Tensor = RHO) -> tuple[Tensor, Tensor]:
    """Jointly Gaussian views of unit variance whose canonical correlations are ρ."""
    generator = torch.Generator().manual_seed(seed)
    a, noise = torch.randn(2, n, len(rho), generator=generator, dtype=torch.float64)
    return a, rho * a + (1 - rho**2).sqrt() * noise


def curved_pairs(n: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two coordinates seen through 64 waves: uncorrelated, and far from independent, as trained embeddings are."""
    waves = torch.randn(2, 64, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    phase = torch.arange(64).double()
    a, b = gaussian_pairs(n, seed=seed, rho=torch.tensor([0.9, 0.9]).double())
    return torch.cos(a @ waves + phase), torch.cos(b @ waves + phase)


def bound(energies: Tensor) -> float:
    """InfoNCE's bound, the mean of both sides', by loops."""
    n, total = len(energies), 0.0
    for i in range(n):
        row = math.log(sum(math.exp(-float(energies[i, j])) for j in range(n)) / n)
        column = math.log(sum(math.exp(-float(energies[j, i])) for j in range(n)) / n)
        total += -float(energies[i, i]) - (row + column) / 2
    return total / n


@pytest.mark.parametrize("shift", [0.0, 7.0])
def test_the_best_scale_maximises_the_bound(shift: float) -> None:
    a, b = gaussian_pairs(25, seed=3)
    energy = SquaredEuclidean(scale=0.4)
    scale = best_scale(energy, a + shift, b + shift)
    energies = energy.cross(a, b)
    best = bound(scale * energies)
    assert 0.1 < scale < 5 and best > 0
    assert all(bound((scale + step) * energies) < best for step in (-0.01, -1e-3, 1e-3, 0.01))


def test_the_best_scale_at_its_ends() -> None:
    a, b = gaussian_pairs(40)
    energy = SquaredEuclidean()
    assert best_scale(energy, a, a) == pytest.approx(10, rel=1e-5)  # told apart without error: the bound
    assert best_scale(energy, a, -b) == 0  # anti-correlated: worse than nothing at any scale
    assert best_scale(energy, torch.ones(40, 3), torch.ones(40, 3)) <= 10


def test_gaussian_views_have_a_scale_of_one_and_their_pmi() -> None:
    energy = Gaussian().fit(SquaredEuclidean(), *gaussian_pairs(4000))
    assert float(energy.energy.scale) == pytest.approx(1, abs=0.06)
    a, b = gaussian_pairs(500, seed=1)
    rest = 1 - RHO**2
    pmi = (-rest.log() / 2 - (RHO**2 * (a**2 + b**2) - 2 * RHO * a * b) / (2 * rest)).sum(1)
    close = (energy.paired(a, b) + pmi).abs()
    assert close.mean() < 0.1 and close.max() < 0.8  # the largest far from the bank
    information = float(-rest.log().sum() / 2)
    a, b = gaussian_pairs(2000, seed=2)
    assert float(mutual_information(energy, a, b)) == pytest.approx(information, abs=0.1)


def test_views_that_are_not_gaussian_have_a_bound_above_zero() -> None:
    bank, held = curved_pairs(1000), curved_pairs(500, seed=1)
    plain, fitted = CanonicalCorrelation(*bank), Gaussian().fit(SquaredEuclidean(), *bank)
    assert float(mutual_information(plain, *held)) < -1
    assert 0 < float(fitted.energy.scale) < 0.5
    assert 1 < float(mutual_information(fitted, *held)) < -math.log(1 - 0.9**2)
    density = torch.exp(-fitted.cross(*held))
    density.fill_diagonal_(0)
    assert float(density.mean(1).median()) == pytest.approx(1, abs=0.2)  # normalised, far from the bank's edge


def test_independent_views_have_no_information() -> None:
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(2, 300, 40, generator=generator, dtype=torch.float64)
    held = torch.randn(2, 500, 40, generator=generator, dtype=torch.float64)
    assert float(mutual_information(CanonicalCorrelation(*bank), *held)) < -0.5
    fitted = Gaussian().fit(SquaredEuclidean(), *bank)
    assert float(fitted.energy.scale) < 0.1
    assert abs(float(mutual_information(fitted, *held))) < 0.02


def test_ledoit_wolf_by_loops() -> None:
    a, b = gaussian_pairs(30)
    joint = [
        (torch.outer(torch.cat([x, y]), torch.cat([x, y])) + torch.outer(torch.cat([y, x]), torch.cat([y, x]))) / 2
        for x, y in zip(a, b, strict=True)
    ]
    mean = sum(joint) / 30
    error = sum(float((sample - mean).square().sum()) for sample in joint) / 30**2
    spread = float((mean - mean.trace() / 6 * torch.eye(6)).square().sum())
    assert 0 < error < spread
    assert ledoit_wolf(a, b, mean[:3, :3], mean[:3, 3:]) == pytest.approx(error / spread, rel=1e-10)
    noise, other = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    within, across = (noise.T @ noise + other.T @ other) / 8, (noise.T @ other + other.T @ noise) / 8
    assert 0.3 < ledoit_wolf(noise, other, within, across) <= 1
    assert ledoit_wolf(a, b, torch.eye(3).double(), torch.zeros(3, 3).double()) == 0  # nothing to shrink


def test_shrunk_correlations_stay_below_one() -> None:
    a, b = gaussian_pairs(60)
    a, b = a * torch.tensor([1.0, 10, 100]).double(), b * torch.tensor([1.0, 10, 100]).double()
    whole, half = CanonicalCorrelation(a, b), CanonicalCorrelation(a, b, shrinkage=0.5)
    assert half.correlations.max() < whole.correlations.max() < 1
    assert (CanonicalCorrelation(a, b, shrinkage=1.0).correlations == 0).all()
    few = CanonicalCorrelation(a[:4], b[:4], shrinkage=None)
    assert few.correlations.isfinite().all()
    with pytest.raises(ValueError, match="canonical correlations of 3 dimensions need more than 3 pairs, got 3"):
        CanonicalCorrelation(a[:3], b[:3], shrinkage=None)


def test_scaled_energies() -> None:
    a, b = gaussian_pairs(10)
    energy = SquaredEuclidean(scale=0.5)
    torch.testing.assert_close(Scaled(energy, 0.3).cross(a, b), 0.3 * energy.cross(a, b))
    assert (Scaled(energy, 0.0).cross(a, b) == 0).all()
    with pytest.raises(ValueError, match="Distance has a link: its factors cannot be scaled"):
        Scaled(Distance(), 0.3)
