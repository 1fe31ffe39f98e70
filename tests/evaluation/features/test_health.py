import math

import numpy as np
import pytest
import torch

from ssl_ebm.evaluation.features import health as diagnostics
from ssl_ebm.evaluation.features.health import (
    alignment,
    alpha_req,
    dimension_std,
    health,
    lidar,
    rankme,
    singular_values,
    uniformity,
)


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
    monkeypatch.setattr(diagnostics, "CHUNK_ROWS", 7)
    assert uniformity(x).item() == pytest.approx(expected, rel=1e-12)


def test_dimension_std_has_closed_forms():
    assert dimension_std(torch.full((9, 4), 0.3)).tolist() == pytest.approx([0] * 4, abs=1e-12)
    corners = torch.tensor([[1.0, 0], [-5, 0], [0, 2], [0, -1]])
    assert dimension_std(corners).tolist() == pytest.approx([0.5**0.5] * 2)
    assert dimension_std(normal(20_000, 16)).numpy() == pytest.approx(np.full(16, 0.25), rel=0.03)


def with_spectrum(values, n=400, seed=0):
    """Features whose covariance has exactly these eigenvalues, up to n / (n - 1)."""
    basis, _ = torch.linalg.qr(normal(n, len(values) + 1, seed, torch.float64) + 0.0)
    basis = torch.linalg.qr(basis - basis.mean(0))[0][:, : len(values)]
    turn, _ = torch.linalg.qr(normal(len(values), len(values), seed + 1, torch.float64))
    return basis * torch.tensor(values, dtype=torch.float64).sqrt() @ turn + 5


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("dim", [12, 150])
def test_alpha_of_a_power_law_is_its_exponent(alpha, dim):
    x = with_spectrum([float(j) ** -alpha for j in range(1, dim + 1)])
    assert alpha_req(x) == pytest.approx(alpha, rel=1e-6)
    assert alpha_req(100 * x + 7) == pytest.approx(alpha, rel=1e-6)


def test_alpha_is_a_weighted_fit_of_its_range_alone():
    values = [float(j) ** -1.3 * (1 + 0.3 * math.sin(j)) for j in range(1, 121)]
    values = sorted(values, reverse=True)
    rank = np.arange(4, 101)
    slope = np.polyfit(np.log(rank), np.log(values[3:100]), 1, w=rank**-0.5)[0]  # polyfit squares its weights
    assert alpha_req(with_spectrum(values)) == pytest.approx(-slope, rel=1e-6)
    changed = [50.0, 40.0, 30.0, *values[3:100], *[1e-6] * 20]
    assert alpha_req(with_spectrum(changed)) == pytest.approx(-slope, rel=1e-6)


def test_alpha_of_too_few_dimensions_is_none():
    assert alpha_req(normal(50, 4)) is None and alpha_req(torch.ones(50, 20)) is None
    assert alpha_req(normal(50, 5)) is not None


def lidar_by_loops(views, delta):
    views = views.double().numpy()
    count, n, d = views.shape
    means = views.mean(0)
    within, between = delta * np.eye(d), np.zeros((d, d))
    for i in range(n):
        between += np.outer(means[i] - means.mean(0), means[i] - means.mean(0)) / (n - 1)
        for v in range(count):
            within += np.outer(views[v, i] - means[i], views[v, i] - means[i]) / (n * (count - 1))
    values, axes = np.linalg.eigh(within)
    root = axes @ np.diag(values**-0.5) @ axes.T
    p = np.linalg.eigvalsh(root @ between @ root).clip(0)
    p = p / p.sum()
    return math.exp(-sum(q * math.log(q) for q in p if q > 0))


@pytest.mark.parametrize("shape", [(2, 30, 6), (4, 12, 20)])
def test_lidar_by_loops(shape):
    views = normal(shape[1], shape[2]) * torch.arange(1, shape[2] + 1) + 0.5 * torch.stack(
        [normal(*shape[1:], seed=v + 1) for v in range(shape[0])]
    )
    assert lidar(views) == pytest.approx(lidar_by_loops(views, 1e-4), rel=1e-9)
    assert lidar(views, delta=1.0) == pytest.approx(lidar_by_loops(views, 1.0), rel=1e-9)
    assert lidar(views, delta=1.0) != pytest.approx(lidar(views), rel=1e-3)


def test_lidar_has_closed_forms():
    images = torch.linalg.qr(normal(9, 9, dtype=torch.float64))[0]
    assert lidar(torch.stack([images, images])) == pytest.approx(8)  # equal views: the rank of the centred means
    assert lidar(torch.ones(2, 9, 4)) == 0
    line = torch.outer(torch.arange(9.0), torch.tensor([1.0, 2, 0]))
    assert lidar(torch.stack([line, line])) == pytest.approx(1)
    with pytest.raises(ValueError, match="at least 2 views of 2 images, got 1 of 9"):
        lidar(torch.ones(1, 9, 4))


def test_lidar_of_very_many_dimensions_is_none(monkeypatch):
    monkeypatch.setattr(diagnostics, "LIDAR_DIMENSIONS", 8)
    assert lidar(torch.ones(2, 3, 9)) is None and lidar(torch.ones(2, 3, 8)) == 0


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_singular_values_equal_numpy(shape):
    x = normal(*shape)
    expected = np.linalg.svd(x.double().numpy(), compute_uv=False) / x.abs().max().item()
    assert singular_values(x).numpy() == pytest.approx(expected, rel=1e-9)


def test_health_tells_spread_from_collapse():
    spread = health(normal(2000, 16), torch.stack([normal(2000, 16, seed=1), normal(2000, 16, seed=2)]))
    assert spread["std"] == pytest.approx(1, rel=0.01) and spread["rankme"] == pytest.approx(16, rel=0.01)
    assert spread["alignment"] == pytest.approx(2, rel=0.05) and spread["dead"] == 0
    assert spread["lidar"] == pytest.approx(16, rel=0.01) and abs(spread["alpha_req"]) < 0.2
    assert len(spread["spectrum"]) == 16 and sum(spread["spectrum"]) == pytest.approx(1)
    same = torch.full((64, 16), 0.5)
    collapsed = health(same, torch.stack([same, same]))
    assert (collapsed.pop("alpha_req"), collapsed.pop("spectrum")[:2]) == (None, [1, 0])
    expected = {"rankme": 1, "lidar": 0, "alignment": 0, "uniformity": 0, "std": 0, "dead": 1}
    assert collapsed == pytest.approx(expected, abs=1e-9)
    half = normal(64, 16)
    half[:, :8] = 0
    assert health(half, torch.stack([half, half]))["dead"] == 0.5
    wide = health(normal(100, 80), torch.stack([normal(100, 80, seed=1)] * 2))
    assert len(wide["spectrum"]) == 64 and 0.8 < sum(wide["spectrum"]) < 1


def test_health_does_not_depend_on_the_order_of_images():
    a, views = normal(200, 24), torch.stack([normal(200, 24, seed=1), normal(200, 24, seed=2)]) + normal(200, 24)
    order = torch.randperm(200, generator=torch.Generator().manual_seed(3))
    plain, permuted = health(a, views), health(a[order], views[:, order])
    for name, value in plain.items():
        assert permuted[name] == pytest.approx(value, rel=1e-9), name


def test_gradients_do_not_pass_and_half_precision_is_taken():
    x = normal(32, 8).requires_grad_()
    for value in (rankme(x), alignment(x, x), uniformity(x), dimension_std(x)):
        assert not value.requires_grad
    assert rankme(x.detach().bfloat16()).item() == pytest.approx(rankme(x).item(), rel=1e-2)
