import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_energies import ENERGIES
from torch import Tensor
from torch.nn import functional as F

from ssl_ebm import tiles
from ssl_ebm.energies import Cosine, Energy
from ssl_ebm.tiles import Crossed, Paired, Rows

N, M, DIM = 9, 13, 5
ANCHOR_KEYS = torch.tensor([0, 1, 2, 0, 1, 2, 7, 5, 9])  # nobody has 7
CANDIDATE_KEYS = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1, 5, 2, 9, 2])  # 5 and 9 once


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which candidates an anchor takes: as keyword arguments, and as a predicate."""

    arguments: dict[str, Any]
    takes: Callable[[int, int], bool]


ITSELF = torch.tensor([0, 2, 1, 4, 3, 5, 12, 9, 11])
SELECTIONS = {
    "all": Selection({}, lambda i, j: True),
    "different": Selection(
        {"keys": (ANCHOR_KEYS, CANDIDATE_KEYS)}, lambda i, j: bool(ANCHOR_KEYS[i] != CANDIDATE_KEYS[j])
    ),
    "same": Selection(
        {"keys": (ANCHOR_KEYS, CANDIDATE_KEYS), "same": True}, lambda i, j: bool(ANCHOR_KEYS[i] == CANDIDATE_KEYS[j])
    ),
    "same, without itself": Selection(
        {
            "keys": (CANDIDATE_KEYS[ITSELF], CANDIDATE_KEYS),
            "same": True,
            "itself": ITSELF,
        },
        lambda i, j: bool(CANDIDATE_KEYS[ITSELF[i]] == CANDIDATE_KEYS[j]) and j != int(ITSELF[i]),
    ),
    "none of all": Selection({"keys": (torch.zeros(N).long(), torch.zeros(M).long())}, lambda i, j: False),
}
every_selection = pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
every_energy = pytest.mark.parametrize("build", [build for build, _ in ENERGIES.values()], ids=ENERGIES)


@dataclasses.dataclass(frozen=True)
class Reduction:
    """A reduction of rows, and of one row's energies."""

    of_rows: Callable[[Rows, Tensor], Tensor]
    of_row: Callable[[Tensor, Tensor], Tensor]


REDUCTIONS = {
    "logsumexp": Reduction(lambda rows, shift: rows.logsumexp(), lambda e, s: torch.exp(-e).sum().log()),
    "mean of softplus": Reduction(lambda rows, shift: rows.mean(F.softplus), lambda e, s: (1 + e.exp()).log().mean()),
    "mean of a hinge": Reduction(
        lambda rows, shift: rows.mean(lambda e, s: F.relu(0.3 + s - e), shift),
        lambda e, s: (0.3 + s - e).clamp(min=0).mean(),
    ),
    "mean energy": Reduction(lambda rows, shift: rows.mean_energy(), lambda e, s: e.mean()),
}
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = (N, DIM), (M, DIM), (N,)
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes)


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    def use(tile: int = 2 * M) -> None:
        monkeypatch.setattr(tiles, "DENSE", 0)
        monkeypatch.setattr(tiles, "TILE", tile)

    return use


@every_reduction
@every_selection
def test_reductions_by_loops(selection: Selection, reduction: Reduction) -> None:
    a, b, shift = (x.detach() for x in inputs())
    energy = Cosine(temperature=0.4)
    value = reduction.of_rows(Crossed(energy, a, b, **selection.arguments), shift)
    for i in range(N):
        taken = [energy.paired(a[i : i + 1], b[j : j + 1])[0] for j in range(M) if selection.takes(i, j)]
        if taken:
            torch.testing.assert_close(value[i], reduction.of_row(torch.stack(taken), shift[i]), rtol=1e-12, atol=1e-12)
        elif reduction is REDUCTIONS["logsumexp"]:
            assert value[i].isfinite() and value[i] < -1e30
        else:
            assert value[i].abs() < 1e-14


@every_selection
def test_count(selection: Selection) -> None:
    a, b, _ = inputs()
    count = Crossed(Cosine(), a, b, **selection.arguments).count
    assert count.tolist() == [sum(selection.takes(i, j) for j in range(M)) for i in range(N)]
    assert count.dtype == a.dtype


@every_reduction
@every_selection
def test_tiles_equal_the_matrix(tiled: Callable[[], None], selection: Selection, reduction: Reduction) -> None:
    def run() -> list[Tensor]:
        energy = Cosine(temperature=0.4, learnable=True).double()
        a, b, shift = inputs()
        value = reduction.of_rows(Crossed(energy, a, b, **selection.arguments), shift)
        weights = torch.linspace(-1, 2, N, dtype=torch.float64)
        wanted = [a, b, energy.log_scale, *([shift] if reduction is REDUCTIONS["mean of a hinge"] else [])]
        return [value, *torch.autograd.grad((weights * value).sum(), wanted)]

    dense = run()
    tiled()
    for one, other in zip(dense, run(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("tile", [1, M, 4 * M, N * M, 10**6])
def test_any_tile_gives_the_same(tiled: Callable[[int], None], tile: int) -> None:
    a, b, _ = inputs()
    expected = Crossed(Cosine(temperature=0.1), a, b).logsumexp()
    tiled(tile)
    torch.testing.assert_close(Crossed(Cosine(temperature=0.1), a, b).logsumexp(), expected, rtol=1e-14, atol=1e-14)


def test_tiles_never_hold_the_matrix(tiled: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    tiled(3 * M)
    sizes = []
    cross = Cosine.cross
    monkeypatch.setattr(Cosine, "cross", lambda self, a, b: sizes.append(len(a) * len(b)) or cross(self, a, b))
    a, b, _ = inputs()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
        total = Crossed(Cosine(temperature=0.1), a, b).logsumexp().sum()
    total.backward()
    assert sizes == [3 * M] * 6  # three tiles forward, three again backward
    assert max(saved) <= M * DIM  # the inputs, nothing of the matrix's size


def test_matrix_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    cross = Cosine.cross
    monkeypatch.setattr(Cosine, "cross", lambda self, a, b: calls.append(1) or cross(self, a, b))
    a, b, shift = inputs()
    rows = Crossed(Cosine(temperature=0.1), a, b)
    for reduction in REDUCTIONS.values():
        reduction.of_rows(rows, shift)
    assert len(calls) == 1


@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_reduction
def test_rows_without_samples_have_no_gradient(
    tiled: Callable[[], None], dense: bool, dtype: torch.dtype, reduction: Reduction
) -> None:
    if not dense:
        tiled()
    a, b, shift = (x.detach().to(dtype).requires_grad_() for x in inputs())
    rows = Crossed(Cosine(temperature=0.4), a, b, **SELECTIONS["same"].arguments)
    empty = 6
    assert rows.count[empty] == 0
    value = reduction.of_rows(rows, shift)
    value.sum().backward()
    assert value.isfinite().all()
    assert (a.grad[empty] == 0).all() and a.grad.isfinite().all() and b.grad.isfinite().all()
    assert (a.grad[:empty].abs().sum(1) > 0).all()


@every_selection
@every_energy
def test_mean_energy_by_factors_is_the_plain_mean(build: Callable[[], Energy], selection: Selection) -> None:
    energy = build()
    a, b, _ = inputs()
    rows = Crossed(energy, a, b, **selection.arguments)
    weights = torch.linspace(-1, 2, N, dtype=torch.float64)
    wanted = [a, b, *energy.parameters()]
    plain, factored = rows.mean(lambda e: e), rows.mean_energy()
    torch.testing.assert_close(factored, plain, rtol=1e-11, atol=1e-11)
    expected = torch.autograd.grad((weights * plain).sum(), wanted, retain_graph=True)
    for one, other in zip(torch.autograd.grad((weights * factored).sum(), wanted), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


def test_paired_rows() -> None:
    energies = torch.tensor([[1.0, 3.0], [-2.0, 0.5]], dtype=torch.float64)
    rows, shift = Paired(energies), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert rows.count.tolist() == [2, 2]
    assert rows.mean_energy().tolist() == [2.0, -0.75]
    torch.testing.assert_close(rows.logsumexp(), torch.exp(-energies).sum(1).log())
    assert rows.mean(lambda e, s: e * s, shift).tolist() == [2.0, -1.5]
    assert torch.equal(Paired(energies[:, :1]).logsumexp(), -energies[:, 0])
