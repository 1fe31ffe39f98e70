import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_ebm.evaluation.energy.calibration import calibrate, ece, fit_odds, nll, split_kinds


def energies(n=60, *, seed=0, gap=2.0, spread=1.0, shift=0.0):
    """Normal energies of variance 1, positives lower by `gap`: log-odds that are linear in them."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n, n, generator=generator, dtype=torch.float64) - gap * torch.eye(n)
    return spread * matrix + shift


def balanced_loss(beta, bias, positive, negative):
    """Platt's targets, each kind one half, by loops."""
    high, low = (len(positive) + 1) / (len(positive) + 2), 1 / (len(negative) + 2)
    total = 0.0
    for values, target in ((positive, high), (negative, low)):
        for energy in values.tolist():
            p = 1 / (1 + math.exp(beta * energy + bias))
            total -= (target * math.log(p) + (1 - target) * math.log(1 - p)) / (2 * len(values))
    return total


@pytest.mark.parametrize(("spread", "shift"), [(1, 0), (0.01, 5), (30, -200)])
def test_the_fit_is_the_minimum(spread, shift):
    positive, negative = split_kinds(energies(20, spread=spread, shift=shift))
    beta, bias = fit_odds(positive, negative)
    best = balanced_loss(beta, bias, positive, negative)
    for step, turn in ((1e-3, 0), (-1e-3, 0), (0, 1e-3), (0, -1e-3)):
        worse = balanced_loss(beta * (1 + step), bias + turn - beta * step * shift, positive, negative)
        assert worse > best
    plain = fit_odds(*split_kinds(energies(20)))
    assert (beta * spread, bias + beta * shift) == pytest.approx(plain, rel=1e-6, abs=1e-6)


def test_the_fit_equals_scikit_learn_but_for_the_targets():
    positive, negative = split_kinds(energies(400))
    x = -torch.cat([positive, negative]).numpy()[:, None]
    y = np.repeat([1, 0], [len(positive), len(negative)])
    weight = np.where(y == 1, 1 / len(positive), 1 / len(negative))
    model = LogisticRegression(C=1e8, tol=1e-10, max_iter=1000).fit(x, y, sample_weight=weight)
    beta, bias = fit_odds(positive, negative)
    assert beta == pytest.approx(model.coef_[0, 0], rel=0.02)
    assert -bias == pytest.approx(model.intercept_[0], rel=0.05)


def test_normal_energies_have_a_closed_form():
    """E⁺ ~ N(-2, 1), E⁻ ~ N(0, 1): log-odds -2 E - 2."""
    beta, bias = fit_odds(*split_kinds(energies(800)))
    assert (beta, bias) == pytest.approx((2, 2), abs=0.15)


def test_calibration_mends_a_wrong_scale_and_leaves_a_right_one():
    right = calibrate(2 * energies(500) + 2, 2 * energies(500, seed=1) + 2)
    assert right.nll_before == pytest.approx(right.nll_after, abs=0.01)
    assert right.ece_before < 0.03 and (right.beta, right.bias) == pytest.approx((1, 0), abs=0.2)
    wrong = calibrate(20 * energies(500) + 50, 20 * energies(500, seed=1) + 50)
    assert wrong.nll_before > 2 * wrong.nll_after and wrong.ece_before > 5 * wrong.ece_after
    assert wrong.nll_after == pytest.approx(right.nll_after, rel=1e-6)
    assert wrong.ece_after == pytest.approx(right.ece_after, rel=1e-6)
    assert wrong.beta == pytest.approx(right.beta / 10, rel=1e-6)


def test_losses_by_loops():
    positive, negative = split_kinds(-energies(12))
    p = [1 / (1 + math.exp(-x)) for x in torch.cat([positive, negative]).tolist()]
    truth = [1] * len(positive) + [0] * len(negative)
    weight = [0.5 / len(positive)] * len(positive) + [0.5 / len(negative)] * len(negative)
    expected = -sum(w * math.log(q if y else 1 - q) for q, y, w in zip(p, truth, weight, strict=True))
    assert nll(positive, negative) == pytest.approx(expected, rel=1e-12)
    gaps = [
        abs(sum(w * (y - q) for q, y, w in zip(p, truth, weight, strict=True) if b / 15 <= q < (b + 1) / 15))
        for b in range(15)
    ]
    assert ece(positive, negative) == pytest.approx(sum(gaps), rel=1e-12)


def test_flat_and_perfect_energies():
    flat = calibrate(torch.full((9, 9), 3.0), torch.full((9, 9), 3.0))
    assert (flat.beta, flat.bias) == (0, 0) and flat.nll_after == pytest.approx(math.log(2))
    assert flat.ece_after == pytest.approx(0, abs=1e-12)
    perfect = calibrate(energies(50, gap=100), energies(50, gap=100, seed=1))
    assert perfect.nll_after < 0.05 and 0 < perfect.beta < 10
    worst = calibrate(energies(50, gap=-3), energies(50, gap=-3, seed=1))
    assert worst.beta < 0 and worst.nll_after < math.log(2)


def test_order_of_the_images_does_not_matter():
    matrix, order = energies(100), torch.randperm(100, generator=torch.Generator().manual_seed(1))
    beta, bias = fit_odds(*split_kinds(matrix))
    assert fit_odds(*split_kinds(matrix[order][:, order])) == pytest.approx((beta, bias), rel=1e-9)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        calibrate(torch.zeros(1, 1), matrix)
