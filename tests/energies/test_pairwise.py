from collections.abc import Callable

import pytest
import torch
from example_energies import DIM, ENERGIES, Formula
from reference import dot, squared_distance, unit
from torch import Tensor

from ssl_ebm.energies.pairwise import (
    Bilinear,
    Cosine,
    DirectPrediction,
    Distance,
    Dot,
    Energy,
    InverseMultiquadratic,
    SquaredEuclidean,
)

every_energy = pytest.mark.parametrize(("build", "formula"), ENERGIES.values(), ids=ENERGIES)


def random(n: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(n, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@every_energy
def test_value_by_loops(build: Callable[[], Energy], formula: Formula) -> None:
    energy, a, b = build().requires_grad_(False), random(4), random(6, seed=1)
    expected = torch.tensor([[formula(x, y) for y in b] for x in a])
    torch.testing.assert_close(energy.cross(a, b), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(energy.paired(a, b[:4]), expected[:, :4].diagonal(), rtol=1e-12, atol=1e-12)


@every_energy
def test_factorisation_gives_the_same_matrix(build: Callable[[], Energy], formula: Formula) -> None:
    energy, a, b = build().requires_grad_(False), random(4), random(6, seed=1)
    f, g = energy.factor(a, "anchor"), energy.factor(b, "candidate")
    u = torch.zeros(4) if f.offset is None else f.offset
    v = torch.zeros(6) if g.offset is None else g.offset
    raw = torch.tensor([[-dot(f.vectors[i], g.vectors[j]) + u[i] + v[j] for j in range(6)] for i in range(4)])
    matrix = energy.cross(a, b)
    torch.testing.assert_close(energy.link(raw), matrix, rtol=1e-12, atol=1e-12)
    assert torch.equal(raw.flatten().argsort(), matrix.flatten().argsort())  # so that raw energies can be searched
    assert energy.linear == torch.equal(energy.link(raw), raw)


@every_energy
def test_flags_are_true(build: Callable[[], Energy], formula: Formula) -> None:
    energy = build()
    for scale in (0.3, 1.0, 30.0):
        matrix = energy.cross(random(20, scale=scale), random(20, seed=1, scale=scale))
        assert not energy.nonnegative or (matrix >= 0).all()
        assert energy.bound is None or (matrix.abs() <= energy.bound + 1e-12).all()
    longer = energy.cross(2 * random(5), 3 * random(5, seed=1))
    assert torch.allclose(longer, energy.cross(random(5), random(5, seed=1)), rtol=1e-10) == energy.scale_free


@every_energy
def test_symmetry_flag_is_true(build: Callable[[], Energy], formula: Formula) -> None:
    energy, a, b = build(), random(4), random(6, seed=1)
    assert torch.allclose(energy.cross(a, b), energy.cross(b, a).T, rtol=1e-12, atol=1e-12) == energy.symmetric


@every_energy
def test_energy_of_a_pair_is_independent_of_the_others(build: Callable[[], Energy], formula: Formula) -> None:
    energy, a, b = build(), random(4), random(4, seed=1)
    alone = torch.stack([energy.paired(a[i : i + 1], b[i : i + 1])[0] for i in range(4)])
    torch.testing.assert_close(energy.paired(a, b), alone, rtol=1e-14, atol=1e-14)


@every_energy
def test_zero_vectors_are_finite(build: Callable[[], Energy], formula: Formula) -> None:
    energy = build()
    a, b = random(3), random(3, seed=1)
    a[0], b[0], b[1] = 0, 0, 0
    a.requires_grad_()
    b.requires_grad_()
    total = energy.paired(a, b).sum() + energy.cross(a, b).sum()
    total.backward()
    assert total.isfinite() and a.grad.isfinite().all() and b.grad.isfinite().all()


@every_energy
def test_dtype_is_kept(build: Callable[[], Energy], formula: Formula) -> None:
    energy, a = build(), random(3)
    assert energy.cross(a, a).dtype == energy.paired(a, a).dtype == torch.float64
    energy = energy.float()
    assert energy.cross(a.float(), a.float()).dtype == energy.paired(a.float(), a.float()).dtype == torch.float32


def test_ranges() -> None:
    a = random(50, scale=10)
    pairs = torch.cat([a, -a, a * 3]), torch.cat([a, a, a])
    opposite = torch.cat([-torch.ones(50), torch.ones(50), -torch.ones(50)]).double()
    torch.testing.assert_close(Cosine(temperature=0.25).paired(*pairs), 4 * opposite)
    torch.testing.assert_close(
        SquaredEuclidean(normalize=True).paired(*pairs), 2 + 2 * opposite, atol=1e-14, rtol=1e-12
    )
    assert (SquaredEuclidean().cross(a, random(50, seed=1)) >= 0).all()
    assert (Dot(max_norm=1.5).cross(a, a).abs() <= 1.5**2 + 1e-12).all()


def test_distance_of_close_vectors_is_exact() -> None:
    a = random(1, scale=1e6).float()
    b = a + 0.25
    assert SquaredEuclidean().paired(a, b).item() == DIM * 0.25**2
    assert Distance().paired(a, b).item() == pytest.approx(DIM**0.5 * 0.25, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("normalize", [True, False])
def test_distance_of_equal_vectors_has_no_gradient(normalize: bool, dtype: torch.dtype) -> None:
    a = random(3).to(dtype).requires_grad_()
    energy = Distance(normalize=normalize)
    energy.paired(a, a.detach().clone()).sum().backward()
    assert (a.grad == 0).all()
    a.grad = None
    energy.cross(a, a.detach().clone()).diagonal().sum().backward()  # by the factors: rounding, and yet no NaN
    assert a.grad.isfinite().all()


def test_kernel_is_one_at_no_distance_and_its_width_learns() -> None:
    energy, a, b = InverseMultiquadratic(scale=0.7, learnable=True).double(), random(3), random(3, seed=1)
    torch.testing.assert_close(energy.paired(a, 2 * a), -torch.ones(3).double())
    energy.paired(a, b).sum().backward()
    squares = torch.stack([squared_distance(unit(x), unit(y)) for x, y in zip(a, b, strict=True)])
    # E = -c (c² + d²)^(-1/2), so dE/dlog c = -c d² (c² + d²)^(-3/2)
    expected = (-0.7 * squares * (0.49 + squares) ** -1.5).sum()
    torch.testing.assert_close(energy.log_scale.grad, expected, rtol=1e-6, atol=1e-9)
    assert not InverseMultiquadratic().log_scale.requires_grad
    assert "0.7" in repr(energy) and "learnable" in repr(energy)


def test_predictor_follows_the_spectrum() -> None:
    """W = U diag(max(√(s / s_max) + ε, 1e-4)) Uᵀ of C ← m C + (1 - m) mean z zᵀ, not centred."""
    energy = DirectPrediction(dim=DIM, epsilon=0.1, old_weight=0.3).double()
    correlation = torch.eye(DIM, dtype=torch.float64)
    assert torch.equal(energy.weight, correlation)
    for seed in range(3):
        z = random(12, seed=seed, scale=2.0) + 1
        energy.update(z.view(2, 6, DIM))
        moment = torch.tensor([[sum(x[i] * x[j] for x in z) / 12 for j in range(DIM)] for i in range(DIM)])
        correlation = 0.3 * correlation + 0.7 * moment
        torch.testing.assert_close(energy.correlation, correlation, rtol=1e-12, atol=1e-12)
    values, axes = torch.linalg.eigh(correlation)
    for value, axis in zip(values, axes.T, strict=True):  # W has the axes of C
        gain = (value / values.max()).sqrt() + 0.1
        torch.testing.assert_close(energy.weight @ axis, gain * axis, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(energy.weight, energy.weight.T)


def test_predictor_of_a_collapse_is_finite() -> None:
    energy = DirectPrediction(dim=DIM, epsilon=0.0, old_weight=0.0)
    energy.update(torch.zeros(2, 6, DIM))
    torch.testing.assert_close(energy.weight, 1e-4 * torch.eye(DIM))
    energy.update(torch.ones(2, 6, DIM))
    torch.testing.assert_close(energy.weight @ torch.ones(DIM), torch.ones(DIM))
    assert torch.linalg.eigvalsh(energy.weight).min() == pytest.approx(1e-4, rel=0.1)


def test_vectors_below_the_largest_norm_are_left_alone() -> None:
    a = unit(random(1)[0])[None]
    assert torch.equal(Dot(max_norm=1.01).paired(a, a), Dot().paired(a, a))
    torch.testing.assert_close(Dot(max_norm=0.5).paired(a, a), torch.tensor([-0.25]).double())


def test_learnable_temperature_is_a_parameter_with_a_gradient() -> None:
    energy, a, b = Cosine(temperature=0.2, learnable=True).double(), random(3), random(3, seed=1)
    assert energy.temperature.item() == pytest.approx(0.2, rel=1e-7)
    energy.paired(a, b).sum().backward()
    # E = -c e^s, so dE/ds = E
    torch.testing.assert_close(energy.log_scale.grad, energy.paired(a, b).sum().detach())
    assert list(Cosine(temperature=0.2).parameters()) == []
    assert "0.2" in repr(energy) and "learnable" in repr(energy)


def test_bilinear_starts_as_the_dot_product_and_learns() -> None:
    energy, a, b = Bilinear(dim=DIM), random(3).float(), random(3, seed=1).float()
    torch.testing.assert_close(energy.cross(a, b), Dot().cross(a, b))
    energy.paired(a, b).sum().backward()
    torch.testing.assert_close(energy.weight.grad, -(a.T @ b))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cosine(temperature=0.0), r"temperature must be > 0, got 0\.0"),
        (lambda: Cosine(temperature=-0.1), r"temperature must be > 0, got -0\.1"),
        (lambda: Cosine(temperature=float("nan")), "temperature must be > 0, got nan"),
        (lambda: SquaredEuclidean(scale=0.0), r"scale must be > 0, got 0\.0"),
        (lambda: Dot(max_norm=0.0), r"max_norm must be > 0 or None, got 0\.0"),
        (lambda: Bilinear(dim=0), "dim must be >= 1, got 0"),
        (lambda: InverseMultiquadratic(scale=0.0), r"scale must be > 0, got 0\.0"),
        (lambda: DirectPrediction(dim=3, epsilon=-0.1), r"epsilon must be >= 0, got -0\.1"),
        (lambda: DirectPrediction(dim=3, old_weight=1.0), r"old_weight must be in \[0, 1\), got 1\.0"),
    ],
)
def test_mistakes_name_the_argument(build: Callable[[], Energy], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
