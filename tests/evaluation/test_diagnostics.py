import math

import numpy as np
import pytest
import torch

from ssl_ebm.evaluation import diagnostics
from ssl_ebm.evaluation.diagnostics import alignment, dimension_std, health, rankme, uniformity


def normal(n, d, seed=0, dtype=torch.float32):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("shape", [(30, 8), (8, 30), (12, 12)])
def test_rankme_equals_the_singular_values_entropy(shape):
    x = normal(*shape)
    sigma = np.linalg.svd(x.double().numpy(), compute_uv=False)
    p = sigma / sigma.sum()
    assert rankme(x).item() == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-10)


def test_rankme_differs_from_the_papers_epsilon_by_less_than_a_thousandth():
    x = normal(64, 3) @ normal(3, 512, seed=1)
    sigma = np.linalg.svd(x.numpy(), compute_uv=False)
    p = sigma / sigma.sum() + 1e-7
    assert rankme(x).item() == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-3)


@pytest.mark.parametrize("rank", [1, 3, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-18, 1.0, 1e18])
def test_rankme_of_equal_singular_values_is_the_rank(rank, dtype, scale):
    basis, _ = torch.linalg.qr(normal(16, 16, dtype=torch.float64))
    rows = torch.eye(rank, dtype=torch.float64).repeat(4, 1) @ basis[:rank]
    # float32 rows are orthonormal up to 1e-7 only
    assert rankme((scale * rows).to(dtype)).item() == pytest.approx(rank, rel=1e-5)


def test_rankme_of_constant_features_is_one_and_of_zeros_none():
    assert rankme(torch.full((512, 128), 0.1)).item() == pytest.approx(1, abs=1e-12)
    assert rankme(normal(1, 128).expand(512, 128)).item() == pytest.approx(1, abs=1e-12)
    assert rankme(torch.zeros(512, 128)).item() == 0


def test_rankme_is_invariant_to_scale_and_rotation():
    x = normal(50, 10, dtype=torch.float64) * torch.logspace(0, -3, 10, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(normal(10, 10, seed=1, dtype=torch.float64))
    assert rankme(1e5 * x @ rotation).item() == pytest.approx(rankme(x).item(), rel=1e-9)


def test_alignment_runs_from_equal_to_opposite():
    a = normal(20, 6)
    assert alignment(a, 3 * a).item() == pytest.approx(0, abs=1e-12)
    assert alignment(a, -a).item() == pytest.approx(4)
    right = torch.stack((-a[:, 1], a[:, 0]), 1)
    assert alignment(a[:, :2], right).item() == pytest.approx(2)


def test_uniformity_equals_the_mean_over_pairs():
    x = normal(25, 4)
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    pairs = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(25) for j in range(25) if i != j]
    assert uniformity(x).item() == pytest.approx(math.log(np.mean(pairs)), rel=1e-10)


def test_uniformity_has_closed_forms():
    assert uniformity(torch.ones(50, 8)).item() == pytest.approx(0, abs=1e-10)
    assert uniformity(torch.tensor([[1.0, 0.0], [-2.0, 0.0]])).item() == pytest.approx(-8)
    assert uniformity(torch.eye(9)).item() == pytest.approx(-4)
    assert uniformity(torch.zeros(5, 3)).item() == pytest.approx(0, abs=1e-12)


def test_uniformity_by_chunks_is_the_same(monkeypatch):
    x = normal(25, 4)
    expected = uniformity(x).item()
    monkeypatch.setattr(diagnostics, "CHUNK", 7)
    assert uniformity(x).item() == pytest.approx(expected, rel=1e-12)


def test_dimension_std_has_closed_forms():
    assert dimension_std(torch.full((9, 4), 0.3)).tolist() == pytest.approx([0] * 4, abs=1e-12)
    corners = torch.tensor([[1.0, 0], [-5, 0], [0, 2], [0, -1]])
    assert dimension_std(corners).tolist() == pytest.approx([0.5**0.5] * 2)
    assert dimension_std(normal(20_000, 16)).numpy() == pytest.approx(np.full(16, 0.25), rel=0.03)


def test_health_tells_spread_from_collapse():
    spread = health(normal(2000, 16), normal(2000, 16, seed=1))
    assert spread["std"] == pytest.approx(1, rel=0.01) and spread["rankme"] == pytest.approx(16, rel=0.01)
    assert spread["alignment"] == pytest.approx(2, rel=0.05) and spread["dead"] == 0
    collapsed = health(torch.full((64, 16), 0.5), torch.full((64, 16), 0.5))
    assert collapsed == pytest.approx({"rankme": 1, "alignment": 0, "uniformity": 0, "std": 0, "dead": 1}, abs=1e-9)
    half = normal(64, 16)
    half[:, :8] = 0
    assert health(half, half)["dead"] == 0.5


def test_gradients_do_not_pass_and_half_precision_is_taken():
    x = normal(32, 8).requires_grad_()
    for value in (rankme(x), alignment(x, x), uniformity(x), dimension_std(x)):
        assert not value.requires_grad
    assert rankme(x.detach().bfloat16()).item() == pytest.approx(rankme(x).item(), rel=1e-2)
