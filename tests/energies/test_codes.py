"""Latent codes: distributions, equal use, and the energy of a shared code."""

import math

import pytest
import torch
from reference_codes import equipartition
from small import random_batch, small_objective
from torch import Tensor

from ssl_ebm.energies.codes import CodeCrossEntropy, Codes, SharedCode, sinkhorn

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_distribution_over_codes() -> None:
    z = normal(3, 5)
    for i, row in enumerate(Codes(temperature=0.3).probabilities(z)):
        weights = [math.exp(float(x) / 0.3) for x in z[i]]
        expected = torch.tensor([weight / sum(weights) for weight in weights], dtype=torch.float64)
        torch.testing.assert_close(row, expected, **EXACT)
    codes = Codes(temperature=0.3)
    torch.testing.assert_close(codes.log_probabilities(z).exp(), codes.probabilities(z), **EXACT)


def test_prototypes_are_compared_by_cosine() -> None:
    codes, z = Codes(prototypes=6, dim=5).double(), normal(2, 3, 5)
    expected = torch.nn.functional.cosine_similarity(z[..., None, :], codes.prototypes, dim=-1)
    torch.testing.assert_close(codes.logits(z), expected, **EXACT)
    before = codes.logits(z).detach()
    codes.prototypes.data *= 3
    torch.testing.assert_close(codes.logits(z).detach(), before, **EXACT)


def test_prototypes_are_frozen_at_first() -> None:
    objective = small_objective("swav", frozen_prototypes=0.2).double()
    prototypes = objective.energy.codes.prototypes
    for progress, moves in ((0.0, False), (0.19, False), (0.2, True), (1.0, True)):
        prototypes.grad = None
        objective.set_progress(progress)
        batch = random_batch()
        batch.projection.requires_grad_()
        objective(batch).loss.backward()
        assert (prototypes.grad.abs().sum() > 0) == moves
        assert batch.projection.grad.abs().sum() > 0


def test_cross_entropy_of_codes() -> None:
    energy, a = CodeCrossEntropy(Codes(temperature=0.5, prototypes=4, dim=3).double()), normal(5, 3)
    q = normal(6, 4, seed=1).softmax(1)
    p = energy.codes.probabilities(a).detach()
    expected = torch.tensor([[-sum(q[j, k] * p[i, k].log() for k in range(4)) for j in range(6)] for i in range(5)])
    torch.testing.assert_close(energy.cross(a, q), expected, **EXACT)
    torch.testing.assert_close(energy.paired(a, q[:5]), expected[:, :5].diagonal(), **EXACT)
    f, g = energy.factor(a, "anchor"), energy.factor(q, "candidate")
    torch.testing.assert_close(-f.vectors @ g.vectors.T, expected, **EXACT)
    assert not energy.symmetric and energy.nonnegative


def test_energy_of_a_shared_code() -> None:
    energy = SharedCode(Codes(temperature=0.5), count=4).double()
    energy.marginal.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    a, b, m = normal(3, 4), normal(5, 4, seed=1), energy.marginal
    p, q = (energy.codes.probabilities(x) for x in (a, b))
    expected = [[-sum(p[i, k] * q[j, k] / m[k] for k in range(4)).log() for j in range(5)] for i in range(3)]
    torch.testing.assert_close(energy.cross(a, b), torch.tensor(expected), **EXACT)
    torch.testing.assert_close(energy.cross(a, b), energy.cross(b, a).T, **EXACT)
    assert energy.symmetric and not energy.linear


def test_use_of_codes_is_a_running_mean() -> None:
    objective = small_objective("msn").double()
    expected = objective.scorer.marginal.clone()
    torch.testing.assert_close(expected, torch.full_like(expected, 0.2))
    for seed in range(3):
        batch = random_batch(seed, views=3)
        p = objective.scorer.codes.probabilities(batch.projection).flatten(0, 1).detach()
        objective(batch)
        expected = 0.99 * expected + 0.01 * p.mean(0)
        torch.testing.assert_close(objective.scorer.marginal, expected, **EXACT)
    torch.testing.assert_close(objective.scorer.marginal.sum().item(), 1.0)


@pytest.mark.parametrize("iterations", [0, 1, 3, 10])
@pytest.mark.parametrize("shape", [(7, 4), (3, 5), (1, 3)], ids=str)
def test_sinkhorn_by_loops(shape: tuple[int, int], iterations: int) -> None:
    scores = normal(*shape)
    scores = scores.log_softmax(1) if not iterations else scores  # rows are left as they are
    expected = equipartition([list(row.exp()) for row in scores], iterations)
    value = sinkhorn(scores, iterations=iterations)
    torch.testing.assert_close(value, torch.stack([torch.stack(row) for row in expected]), **EXACT)


@pytest.mark.parametrize("shape", [(12, 4), (4, 12), (6, 6)], ids=str)
def test_sinkhorn_uses_every_code_equally(shape: tuple[int, int]) -> None:
    n, k = shape
    for iterations in (1, 3, 300):
        q = sinkhorn(normal(n, k), iterations=iterations)
        torch.testing.assert_close(q.sum(1), torch.ones(n).double(), **EXACT)
    torch.testing.assert_close(q.sum(0), torch.full((k,), n / k, dtype=torch.float64), rtol=1e-9, atol=1e-9)


def test_sinkhorn_does_not_overflow() -> None:
    q = sinkhorn(1000 * normal(8, 3).float())
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(1), torch.ones(8))


def test_sinkhorn_of_a_collapse_is_uniform() -> None:
    q = sinkhorn(normal(1, 4).expand(8, -1))
    torch.testing.assert_close(q, torch.full((8, 4), 0.25).double(), **EXACT)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be > 0, got 0"),
        ({"frozen": 1.0}, r"frozen must be a fraction in \[0, 1\), got 1"),
        ({"prototypes": 1, "dim": 3}, "prototypes must be >= 2 and have a dim, got 1 and 3"),
        ({"prototypes": 4}, "prototypes must be >= 2 and have a dim, got 4 and None"),
    ],
)
def test_mistakes_name_the_argument(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Codes(**arguments)
