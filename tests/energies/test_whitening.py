"""White coordinates, the distance in them, and the energy in running ones."""

from typing import Any

import pytest
import torch
from small import constant_batch, random_batch
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm.energies.whitening import Whitened, eigh, whiten
from ssl_ebm.networks.heads import MLP
from ssl_ebm.objectives.parts.regularizers import WhitenedDistance
from ssl_ebm.objectives.presets.regularized import wmse

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_white_coordinates(method: Any) -> None:
    x = random(3, 40, 4) @ random(4, 4, seed=1) + 5
    white = whiten(x, method=method, eps=1e-14)
    covariance = white.mT @ white / 39
    torch.testing.assert_close(covariance, torch.eye(4).double().expand(3, -1, -1), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(white.mean(1), torch.zeros(3, 4).double(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["cholesky", "zca"])
def test_gradient_of_whitening(method: Any) -> None:
    x = random(2, 7, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: whiten(x, method=method, eps=1e-6), x)
    sphere = torch.cat([torch.eye(3), -torch.eye(3)]).double().requires_grad_()  # C ∝ I: eigenvalues are equal
    assert torch.autograd.gradcheck(lambda x: whiten(x, method=method, eps=1e-6), sphere)


def test_equal_views_whiten_to_equal_views() -> None:
    z = random(1, 9, 4)
    scale = torch.tensor([0.5, 20.0, 3.0, 1.0]).double()
    lower = torch.tril(random(4, 4, seed=2)) + 3 * torch.eye(4)
    for method, changed in (("cholesky", z * scale + 7), ("cholesky", z @ lower.T), ("zca", 3 * z + 7)):
        value = WhitenedDistance(method=method, eps=1e-12)(torch.cat([z, changed]))  # type: ignore[arg-type]
        torch.testing.assert_close(value, tensor(0.0), rtol=0, atol=1e-9)


def test_zca_does_not_depend_on_the_coordinates_and_cholesky_does() -> None:
    z = random(2, 9, 4)
    values = {
        m: [WhitenedDistance(method=m)(x) for x in (z, z @ torch.linalg.qr(random(4, 4, seed=7)).Q)]
        for m in ("cholesky", "zca")
    }
    torch.testing.assert_close(values["zca"][1], values["zca"][0], rtol=1e-10, atol=1e-10)
    assert (values["cholesky"][1] - values["cholesky"][0]).abs() > 1e-2


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_whitened_distance_does_not_depend_on_the_scale(scale: float) -> None:
    z = random(2, 9, 4)
    torch.testing.assert_close(
        WhitenedDistance()(scale * z), WhitenedDistance()(z), rtol=1e-6 if scale > 1 else 1e-5, atol=1e-9
    )


def test_windows_are_drawn_anew_and_cover_the_batch() -> None:
    regularizer = WhitenedDistance(window=6)
    orders = [regularizer.permutations(14) for _ in range(2)]
    assert not torch.equal(*orders)
    assert all(torch.equal(order.sort(1).values[0], torch.arange(14)) for order in orders)
    z, whole = random(2, 14, 4), WhitenedDistance(window=14)
    assert not torch.equal(regularizer(z), regularizer(z))
    torch.testing.assert_close(whole(z), whole(z), **EXACT)  # one window: the order does not matter


def test_a_collapse_of_white_embeddings_costs_two() -> None:
    torch.testing.assert_close(WhitenedDistance()(constant_batch().projection), tensor(2.0), **EXACT)


def test_running_white_coordinates() -> None:
    energy = Whitened(dim=4, momentum=0.9)
    a, b = random(7, 4), random(7, 4, seed=1)
    plain = (F.normalize(a) - F.normalize(b)).square().sum(1)
    torch.testing.assert_close(energy.paired(a, b), plain, **EXACT)
    mixing, mean, covariance = random(4, 4, seed=2), None, None
    for seed in range(4):
        z = random(2, 30, 4, seed=seed) @ mixing + seed
        energy.update(z)
        flat = z.flatten(0, 1)
        mean = flat.mean(0) if mean is None else 0.9 * mean + 0.1 * flat.mean(0)
        covariance = flat.T.cov() if covariance is None else 0.9 * covariance + 0.1 * flat.T.cov()
        torch.testing.assert_close(energy.mean, mean, **EXACT)
        torch.testing.assert_close(energy.covariance, covariance, **EXACT)
    inverse = torch.linalg.inv(covariance)
    for x, y, value in zip(a, b, energy.paired(a, b), strict=True):
        x, y = x - mean, y - mean
        cosine = x @ inverse @ y / (x @ inverse @ x * (y @ inverse @ y)).sqrt()
        torch.testing.assert_close(value, 2 - 2 * cosine, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(energy.cross(a, b).diagonal(), energy.paired(a, b), **EXACT)
    torch.testing.assert_close(energy.paired(a[:1], b[:1]), energy.paired(a, b)[:1], **EXACT)
    assert energy.paired(a.float(), b.float()).dtype == torch.float32
    assert (energy.cross(a, b) >= 0).all() and (energy.cross(a, b) <= energy.bound).all()


def test_objective_scores_with_running_white_coordinates() -> None:
    objective, batch = wmse(projector=MLP(out=4)).double(), random_batch(images=8)
    objective.eval()(batch)
    assert objective.scorer.batches == 0
    objective.train()(batch)
    assert objective.scorer.batches == 1
    torch.testing.assert_close(objective.scorer.mean, batch.projection.mean((0, 1)), **EXACT)


def test_eigenvectors_of_what_is_not_finite() -> None:
    matrices = torch.stack([torch.eye(3), torch.full((3, 3), torch.nan)])
    values, vectors = eigh(matrices)
    assert values[0].isfinite().all() and values[1].isnan().all() and vectors.isfinite().all()
