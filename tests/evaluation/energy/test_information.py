import math

import pytest
import torch

from ssl_ebm.evaluation.energy.calibration import split_kinds
from ssl_ebm.evaluation.energy.information import infonce, information, jsd, nwj

RHO = torch.tensor([0.8, 0.5], dtype=torch.float64)
TRUTH = float(-(1 - RHO**2).log().sum() / 2)


def gaussian_energies(n=2000, *, seed=0):
    """-PMI of all pairs of n jointly Gaussian views, whose information is known."""
    a, noise = torch.randn(2, n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    b, rest = RHO * a + (1 - RHO**2).sqrt() * noise, 1 - RHO**2
    square = RHO**2 / (2 * rest)
    offset = (a.square() @ square)[:, None] + b.square() @ square
    return rest.log().sum() / 2 + offset - (a * (RHO / rest)) @ b.T


def test_all_bounds_are_tight_at_the_pmi_of_correlated_gaussians():
    found = information(gaussian_energies())
    for name in ("infonce", "nwj", "jsd"):
        assert found[name] == pytest.approx(TRUTH, abs=0.05), name
    assert found["pairs"] == 2000


def test_bounds_by_loops():
    energies = gaussian_energies(12)
    n = len(energies)
    expected = sum(
        -float(energies[i, i]) - math.log(sum(math.exp(-float(energies[i, j])) for j in range(n)) / n) for i in range(n)
    )
    assert infonce(energies) == pytest.approx(expected / n, rel=1e-12)
    negatives = [math.exp(-float(energies[i, j])) for i in range(n) for j in range(n) if i != j]
    expected = 1 - float(energies.diagonal().mean()) - sum(negatives) / len(negatives)
    assert nwj(*split_kinds(energies)) == pytest.approx(expected, rel=1e-12)


def test_infonce_is_at_most_log_k_and_blind_to_offsets_of_anchors():
    sharp = 1000 * (1 - torch.eye(50).double())
    assert infonce(sharp) == pytest.approx(math.log(50))
    energies = gaussian_energies(50)
    offsets = torch.linspace(-5, 5, 50, dtype=torch.float64)[:, None]
    assert infonce(energies + offsets) == pytest.approx(infonce(energies), rel=1e-9)
    assert nwj(*split_kinds(energies + offsets)) < nwj(*split_kinds(energies)) - 1


def test_the_jsd_critic_mends_scale_and_zero():
    energies = gaussian_energies()
    wrong = 3 * energies + 7
    assert nwj(*split_kinds(wrong)) < 0
    assert jsd(wrong) == pytest.approx(jsd(energies), rel=1e-6)


def test_energies_that_tell_nothing_or_too_much():
    flat = information(torch.full((20, 20), 2.0))
    assert flat["infonce"] == pytest.approx(0) and flat["jsd"] == pytest.approx(0)
    assert flat["nwj"] == pytest.approx(-1 - math.exp(-2))  # its zero is part of its claim
    wild = -2000 * torch.rand(20, 20, generator=torch.Generator().manual_seed(0)).double()
    assert information(wild)["nwj"] is None
    with pytest.raises(ValueError, match="at least four images, two for each half, got 3"):
        information(torch.zeros(3, 3))


def test_order_of_the_images_does_not_matter():
    energies, order = gaussian_energies(100), torch.randperm(100, generator=torch.Generator().manual_seed(1))
    permuted = energies[order][:, order]
    assert infonce(permuted) == pytest.approx(infonce(energies), rel=1e-9)
    assert nwj(*split_kinds(permuted)) == pytest.approx(nwj(*split_kinds(energies)), rel=1e-9)
