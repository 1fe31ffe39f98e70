import dataclasses
import json

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score, roc_curve

from ssl_ebm.evaluation.energy.verification import verify


def energies(n=40, *, seed=0, gap=1.0, levels=None):
    """A matrix whose diagonal is lower by `gap`; `levels` rounds it, so that there are ties."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(n, n, generator=generator) - gap * torch.eye(n)
    return matrix if levels is None else (matrix * levels).round() / levels


def labels(n=40, classes=4):
    return torch.arange(n) % classes


def auroc_by_loop(positive, negatives):
    return np.mean([1.0 if e > positive else 0.5 if e == positive else 0.0 for e in negatives])


@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "ties"])
@pytest.mark.parametrize("chunk", [1, 7, 40, 512])
def test_aurocs_and_recall_equal_their_definitions(levels, chunk):
    matrix = energies(levels=levels)
    n = len(matrix)
    result = verify(matrix.__getitem__, labels(), chunk=chunk)
    others = [[float(matrix[i, j]) for j in range(n) if j != i] for i in range(n)]
    own = [float(matrix[i, i]) for i in range(n)]
    assert result.anchor_auroc == pytest.approx(
        np.mean([auroc_by_loop(p, e) for p, e in zip(own, others, strict=True)])
    )
    target = np.eye(n, dtype=int).ravel()
    assert result.global_auroc == pytest.approx(roc_auc_score(target, -matrix.numpy().ravel()), abs=1e-12)
    assert result.gauge_gap == pytest.approx(result.anchor_auroc - result.global_auroc)
    for k in (1, 5, 10):
        hits = []
        for p, negatives in zip(own, others, strict=True):
            below, tied = sum(e < p for e in negatives), sum(e == p for e in negatives)
            places = range(below, below + tied + 1)  # where a random order of the tied may put the positive
            hits.append(np.mean([place < k for place in places]))
        assert result.recall[str(k)] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "ties"])
@pytest.mark.parametrize(("n", "chunk"), [(40, 16), (200, 512)])
def test_points_of_the_curve_are_exact(levels, n, chunk):
    matrix = energies(n, levels=levels)
    curve = verify(matrix.__getitem__, labels(n), chunk=chunk).roc
    known = roc_curve(np.eye(n).ravel(), -matrix.numpy().ravel(), drop_intermediate=False)[:2]
    points = set(zip(*(np.round(curve[name], 12) for name in ("fpr", "tpr")), strict=True))
    assert points <= set(zip(*(np.round(rate, 12) for rate in known), strict=True)) and len(points) > 6
    assert (curve["fpr"][0], curve["tpr"][0], curve["fpr"][-1], curve["tpr"][-1]) == (0, 0, 1, 1)
    assert len(curve["fpr"]) == len(curve["tpr"]) == min(n, 50) + 2


def test_order_of_the_images_does_not_matter():
    matrix, order = energies(), torch.randperm(40, generator=torch.Generator().manual_seed(1))
    plain = verify(matrix.__getitem__, labels())
    permuted = verify(matrix[order][:, order].__getitem__, labels()[order], chunk=7)
    for name, value in dataclasses.asdict(plain).items():
        exact = name in ("roc", "histograms")
        assert dataclasses.asdict(permuted)[name] == (value if exact else pytest.approx(value, rel=1e-9)), name


def test_moments_equal_numpy():
    matrix = energies().double() + 1e4  # a large common offset costs no digits
    result = verify(matrix.__getitem__, labels(), chunk=16)
    own = matrix.diagonal().numpy()
    negative = matrix[~torch.eye(40, dtype=torch.bool)].numpy()
    assert result.mean == pytest.approx({"positive": own.mean(), "negative": negative.mean()}, rel=1e-12)
    assert result.std == pytest.approx({"positive": own.std(), "negative": negative.std()}, rel=1e-9)
    expected = (negative.mean() - own.mean()) / np.sqrt((own.var() + negative.var()) / 2)
    assert result.d_prime == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("whole", [False, True], ids=["real", "on the edges"])
def test_histograms_equal_numpy(whole):
    matrix, label = energies(), labels()
    if whole:
        matrix = (4 * matrix).round().clamp(-10, 10)
    result = verify(matrix.__getitem__, label, chunk=16, bins=20)
    own = torch.eye(40, dtype=torch.bool)
    same = (label[:, None] == label) & ~own
    for kind, mask in {"positive": own, "same_class": same, "different_class": ~own & ~same}.items():
        expected, _ = np.histogram(matrix[mask].double().numpy(), bins=result.edges)
        assert result.histograms[kind] == expected.tolist()
    assert sum(map(sum, result.histograms.values())) == 40 * 40
    assert (result.edges[0], result.edges[-1]) == pytest.approx((matrix.min().item(), matrix.max().item()))
    assert len(result.edges) == 21


def test_separated_energies_are_perfect_and_their_opposite_is_the_worst():
    matrix = energies(gap=100)
    best, worst = verify(matrix.__getitem__, labels()), verify((-matrix).__getitem__, labels())
    assert (best.anchor_auroc, best.global_auroc, best.recall["1"]) == (1, 1, 1)
    assert (worst.anchor_auroc, worst.global_auroc, worst.recall["10"]) == (0, 0, 0)
    assert best.d_prime == pytest.approx(-worst.d_prime) and best.d_prime > 10


def test_a_collapsed_energy_is_chance():
    result = verify(torch.full((40, 40), -1.5).__getitem__, labels())
    assert (result.anchor_auroc, result.global_auroc, result.gauge_gap) == (0.5, 0.5, 0)
    assert result.recall == pytest.approx({"1": 1 / 40, "5": 5 / 40, "10": 10 / 40})
    assert result.d_prime is None
    assert result.std == {"positive": 0, "negative": 0}
    assert [sum(counts) for counts in result.histograms.values()] == [40, 40 * 9, 40 * 30]


def test_an_offset_of_each_anchor_moves_the_global_auroc_alone():
    matrix, offset = energies(gap=3), 10 * torch.randn(40, 1, generator=torch.Generator().manual_seed(5))
    plain, gauged = verify(matrix.__getitem__, labels()), verify((matrix + offset).__getitem__, labels())
    assert gauged.anchor_auroc == pytest.approx(plain.anchor_auroc, abs=1e-9)
    assert gauged.recall == plain.recall
    assert gauged.global_auroc < plain.global_auroc - 0.1
    assert gauged.gauge_gap > plain.gauge_gap + 0.1


def test_a_monotone_change_of_scale_moves_no_rank():
    matrix = energies().double()
    plain, changed = verify(matrix.__getitem__, labels()), verify(matrix.exp().__getitem__, labels())
    assert (changed.anchor_auroc, changed.global_auroc) == (plain.anchor_auroc, plain.global_auroc)
    assert changed.recall == plain.recall


def test_rows_may_be_made_on_demand_with_gradient_and_any_dtype():
    a = torch.randn(40, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    made = []

    def rows(part):
        made.append(part.stop - part.start)
        return -(a[part] @ a.T)

    result = verify(rows, labels(), chunk=16)
    assert made == [16, 16, 8] * 2
    assert result == verify((-(a @ a.T)).__getitem__, labels(), chunk=16)
    assert json.loads(json.dumps(dataclasses.asdict(result))) == dataclasses.asdict(result)
    half = verify(energies(gap=100).bfloat16().__getitem__, labels())
    assert half.global_auroc == 1


def test_two_images_are_enough_and_one_is_not():
    result = verify(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]).__getitem__, labels(2))
    assert (result.anchor_auroc, result.global_auroc) == (0.5, 0.5)
    assert result.recall == {"1": 0.5, "5": 1, "10": 1}
    with pytest.raises(ValueError, match="at least two images, got 1"):
        verify(torch.zeros(1, 1).__getitem__, labels(1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_energies_are_refused(value):
    matrix = energies()
    matrix[3, 5] = value
    with pytest.raises(ValueError, match="must be finite"):
        verify(matrix.__getitem__, labels())
    with pytest.raises(ValueError, match=r"\[40, 40\], got \[40, 39\]"):
        verify(energies()[:, 1:].__getitem__, labels())
