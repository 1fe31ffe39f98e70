import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from ssl_ebm.softplus import softplus
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_ebm.energies.pairwise import Bilinear, Cosine, Distance, Dot, Energy, InverseMultiquadratic, SquaredEuclidean
from ssl_ebm.energies.rows import Union
from ssl_ebm.energies.tiled import kernels as reductions
from ssl_ebm.energies.tiled import matrix
from ssl_ebm.energies.tiled import selection as selections
from ssl_ebm.energies.tiled.matrix import EnergyMatrix, Listed, Paired, Rows

N, M, DIM = 9, 13, 5
ANCHOR_KEYS = torch.tensor([0, 1, 2, 0, 1, 2, 7, 5, 9])  # nobody has 7
CANDIDATE_KEYS = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1, 5, 2, 9, 2])  # 5 and 9 once
ITSELF = torch.tensor([0, 2, 1, 4, 3, 5, 12, 9, 11])
WITHOUT = torch.tensor([[5, 0, 5, 8, 0, 5, 2, *[6] * M], [1, 12, 3, 8, 0, 1, 2, *range(M)]])  # in no order, one twice


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which candidates an anchor takes: as keyword arguments, and as a predicate."""

    arguments: dict[str, Any]
    takes: Callable[[int, int], bool]


def _left(i: int, j: int) -> bool:
    return [i, j] in WITHOUT.T.tolist()


SELECTIONS = {
    "all": Selection({}, lambda i, j: True),
    "different": Selection(
        {"keys": (ANCHOR_KEYS, CANDIDATE_KEYS)}, lambda i, j: bool(ANCHOR_KEYS[i] != CANDIDATE_KEYS[j])
    ),
    "same": Selection(
        {"keys": (ANCHOR_KEYS, CANDIDATE_KEYS), "same": True}, lambda i, j: bool(ANCHOR_KEYS[i] == CANDIDATE_KEYS[j])
    ),
    "same, without itself": Selection(
        {"keys": (CANDIDATE_KEYS[ITSELF], CANDIDATE_KEYS), "same": True, "itself": ITSELF},
        lambda i, j: bool(CANDIDATE_KEYS[ITSELF[i]] == CANDIDATE_KEYS[j]) and j != int(ITSELF[i]),
    ),
    "different, itself implied": Selection(
        {"keys": (CANDIDATE_KEYS[ITSELF], CANDIDATE_KEYS), "itself": ITSELF},
        lambda i, j: bool(CANDIDATE_KEYS[ITSELF[i]] != CANDIDATE_KEYS[j]),
    ),
    "without itself": Selection({"itself": ITSELF}, lambda i, j: j != int(ITSELF[i])),
    "without a list": Selection({"without": (WITHOUT[0], WITHOUT[1])}, lambda i, j: not _left(i, j)),
    "without both": Selection(
        {"without": (WITHOUT[0], WITHOUT[1]), "itself": ITSELF},
        lambda i, j: not _left(i, j) and j != int(ITSELF[i]),
    ),
    "none of all": Selection({"keys": (torch.zeros(N).long(), torch.zeros(M).long())}, lambda i, j: False),
}
every_selection = pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)


@dataclasses.dataclass(frozen=True)
class Reduction:
    """A reduction of rows, and of one row's energies, with a value per anchor and a scalar."""

    of_rows: Callable[[Rows, Tensor, Tensor], Tensor]
    of_row: Callable[[Tensor, Tensor, Tensor], Tensor]
    empty: float = 0.0


LARGEST = torch.finfo(torch.float64).max / 4
REDUCTIONS = {
    "logsumexp": Reduction(
        lambda rows, shift, bias: rows.logsumexp(), lambda e, s, b: torch.logsumexp(-e, 0), empty=-LARGEST
    ),
    "minimum": Reduction(lambda rows, shift, bias: rows.minimum(), lambda e, s, b: e.min(), empty=LARGEST),
    "mean energy": Reduction(lambda rows, shift, bias: rows.mean_energy(), lambda e, s, b: e.mean()),
    "mean of softplus": Reduction(
        lambda rows, shift, bias: rows.mean(lambda e, b: softplus(b - e), bias),
        lambda e, s, b: torch.log1p((b - e).exp()).mean(),
    ),
    "mean of a hinge": Reduction(
        lambda rows, shift, bias: rows.mean(lambda e, s, b: F.relu(0.3 + s - e * b), shift, bias),
        lambda e, s, b: (0.3 + s - e * b).clamp(min=0).mean(),
    ),
}
every_reduction = pytest.mark.parametrize("reduction", REDUCTIONS.values(), ids=REDUCTIONS)


def bilinear() -> Bilinear:
    energy = Bilinear(dim=DIM).double()
    energy.weight.data += 0.3 * random(DIM, DIM, seed=7).detach()
    return energy


BUILDS: dict[str, Callable[[], Energy]] = {
    "cosine": lambda: Cosine(temperature=0.2),
    "cosine, learnable": lambda: Cosine(temperature=0.3, learnable=True).double(),
    "cosine, τ .01": lambda: Cosine(temperature=0.01),  # beyond what exp takes without a shift
    "squared": lambda: SquaredEuclidean(scale=0.5),
    "bilinear": bilinear,
    "distance": Distance,
    "inverse multiquadratic": lambda: InverseMultiquadratic(scale=0.8, learnable=True).double(),
}
every_energy = pytest.mark.parametrize("build", BUILDS.values(), ids=BUILDS)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """At once, and by tiles of awkward sizes; related pairs in the matrix, and listed."""
    for dense, tile, listed in ((10**6, 1, 0), (0, 6, 8), (0, 20, 0), (0, 999, 0)):
        monkeypatch.setattr(matrix, "DENSE", dense)
        monkeypatch.setattr(matrix, "DENSE_LOGSUMEXP", dense)
        monkeypatch.setattr(matrix, "TILE", tile)
        monkeypatch.setattr(selections, "LISTED", listed)
        yield f"dense {dense}, tile {tile}, listed {listed}"


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(tile: int = 6) -> None:
        monkeypatch.setattr(matrix, "DENSE", 0)
        monkeypatch.setattr(matrix, "TILE", tile)

    return use


def by_loops(energies: Tensor, takes: Callable[[int, int], bool], reduction: Reduction, *values: Tensor) -> Tensor:
    shift, bias = values
    rows = []
    for i in range(len(energies)):
        taken = [j for j in range(energies.shape[1]) if takes(i, j)]
        empty = energies.new_full((), reduction.empty)
        rows.append(reduction.of_row(energies[i, taken], shift[i], bias) if taken else empty)
    return torch.stack(rows)


def derivatives(value: Tensor, wanted: list[Tensor]) -> list[Tensor]:
    """The value, and gradients of a weighted sum of its rows by all that is wanted."""
    weights = torch.linspace(-1, 2, len(value), dtype=torch.float64)
    if not value.requires_grad:
        return [value, *(torch.zeros_like(x) for x in wanted)]
    found = torch.autograd.grad((weights * value).sum(), wanted, retain_graph=True, allow_unused=True)
    return [value, *(torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True))]


def assert_same(found: list[Tensor], expected: list[Tensor], way: str, rtol: float = 1e-12) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=1e-12, msg=lambda text: f"{way}: {text}")


@every_reduction
@every_selection
@every_energy
def test_values_and_gradients_by_loops(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], Energy], selection: Selection, reduction: Reduction
) -> None:
    energy, a, b, shift, bias = build(), random(N, DIM), random(M, DIM, seed=1), random(N), random(seed=2)
    wanted = [a, b, shift, bias, *energy.parameters()]
    pairs = energy.paired(a.repeat_interleave(M, 0), b.repeat(N, 1)).view(N, M)
    expected = derivatives(by_loops(pairs, selection.takes, reduction, shift, bias), wanted)
    for way in ways(monkeypatch):
        rows = EnergyMatrix(energy, a, b, **selection.arguments)
        assert_same(derivatives(reduction.of_rows(rows, shift, bias), wanted), expected, way, rtol=1e-11)


@every_selection
def test_count(selection: Selection) -> None:
    a, b = random(N, DIM), random(M, DIM, seed=1)
    count = EnergyMatrix(Cosine(), a, b, **selection.arguments).count
    assert count.tolist() == [sum(selection.takes(i, j) for j in range(M)) for i in range(N)]
    assert count.dtype == a.dtype


IDENTITY = torch.arange(M)
SYMMETRIC = {
    "all": {},
    "itself": {"itself": IDENTITY},
    "different": {"keys": (CANDIDATE_KEYS, CANDIDATE_KEYS.clone())},
    "same": {"keys": (CANDIDATE_KEYS, CANDIDATE_KEYS), "same": True},
    "same, without itself": {"keys": (CANDIDATE_KEYS, CANDIDATE_KEYS), "same": True, "itself": IDENTITY},
    "a symmetric list": {"without": (torch.tensor([3, 1, 12, 0, 1, 5]), torch.tensor([1, 3, 0, 12, 3, 5]))},
}


@every_reduction
@pytest.mark.parametrize("arguments", SYMMETRIC.values(), ids=SYMMETRIC)
@pytest.mark.parametrize("name", ["cosine, learnable", "cosine, τ .01", "squared", "inverse multiquadratic"])
def test_half_the_tiles_give_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: dict[str, Any], reduction: Reduction
) -> None:
    energy, z, shift, bias = BUILDS[name](), random(M, DIM), random(M), random(seed=2)
    wanted = [z, shift, bias, *energy.parameters()]
    expected = derivatives(reduction.of_rows(EnergyMatrix(energy, z, z, **arguments), shift, bias), wanted)
    for way in ways(monkeypatch):
        rows = EnergyMatrix(energy, z, z, symmetric=True, **arguments)
        assert rows.selection.halved
        assert_same(derivatives(reduction.of_rows(rows, shift, bias), wanted), expected, way, rtol=1e-11)


def test_half_the_tiles_are_half_the_work(tiled: Callable[..., None]) -> None:
    tiled(16)
    z = random(40, DIM)
    assert len(EnergyMatrix(Cosine(), z, z)._tiles) == 100
    assert len(EnergyMatrix(Cosine(), z, z, symmetric=True)._tiles) == 55


def test_promise_of_symmetry_is_not_used_where_the_selection_breaks_it(tiled: Callable[..., None]) -> None:
    tiled()
    z, key = random(M, DIM), torch.arange(M)
    for arguments in (
        {"without": (torch.tensor([1, 2]), torch.tensor([2, 3]))},
        {"keys": (key, key.flip(0))},
        {"itself": key.roll(1)},
    ):
        promised = derivatives(EnergyMatrix(Cosine(), z, z, symmetric=True, **arguments).logsumexp(), [z])
        assert_same(promised, derivatives(EnergyMatrix(Cosine(), z, z, **arguments).logsumexp(), [z]), str(arguments))
    constant = z.detach()
    promised = derivatives(EnergyMatrix(Cosine(), z, constant, symmetric=True).logsumexp(), [z])
    assert_same(promised, derivatives(EnergyMatrix(Cosine(), z, constant).logsumexp(), [z]), "constant candidates")


@pytest.mark.parametrize("name", ["cosine, learnable", "squared", "bilinear", "cosine, τ .01"])
@pytest.mark.parametrize("arguments", [{}, SELECTIONS["different"].arguments, SELECTIONS["without a list"].arguments])
@pytest.mark.parametrize("fixed", ["anchors", "candidates", "both"])
def test_gradient_on_one_side_only(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments: dict[str, Any], fixed: str
) -> None:
    energy, a, b = BUILDS[name](), random(N, DIM), random(M, DIM, seed=1)
    a, b = a.requires_grad_(fixed == "candidates"), b.requires_grad_(fixed == "anchors")
    wanted = [x for x in (a, b, *energy.parameters()) if x.requires_grad]
    results = [derivatives(EnergyMatrix(energy, a, b, **arguments).logsumexp(), wanted) for _ in ways(monkeypatch)]
    for result in results[1:]:
        assert_same(result, results[0], fixed)
    with torch.no_grad():
        torch.testing.assert_close(
            EnergyMatrix(energy, a, b, **arguments).logsumexp(), results[0][0], rtol=1e-12, atol=0
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_reduction
def test_rows_without_samples_have_no_gradient(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, reduction: Reduction
) -> None:
    empty = 6
    for energy in (Cosine(temperature=0.4), Cosine(temperature=0.01), Distance()):
        for name in ("same", "without a list"):
            for _ in ways(monkeypatch):
                a, b = (x.detach().to(dtype).requires_grad_() for x in (random(N, DIM), random(M, DIM, seed=1)))
                shift, bias = (x.detach().to(dtype).requires_grad_() for x in (random(N) + 3, random(seed=2)))
                rows = EnergyMatrix(energy, a, b, **SELECTIONS[name].arguments)
                assert rows.count[empty] == 0
                value = reduction.of_rows(rows, shift, bias)
                value.sum().backward()
                assert value.isfinite().all() and value.dtype == dtype
                assert abs(value[empty]) < 1e-30 or abs(value[empty]) > 1e37
                assert (a.grad[empty] == 0).all() and a.grad.isfinite().all() and b.grad.isfinite().all()
                assert (a.grad[:empty].abs().sum(1) > 0).all()


@pytest.mark.parametrize("symmetric", [False, True])
def test_energies_beyond_the_exponential(tiled: Callable[..., None], symmetric: bool) -> None:
    tiled()
    z = (40 * random(M, DIM)).detach().float().requires_grad_()
    energies = (-z @ z.T).fill_diagonal_(torch.inf)
    assert energies.min() < -1000
    rows = EnergyMatrix(Dot(), z, z, itself=IDENTITY, symmetric=symmetric)
    expected = derivatives(torch.logsumexp(-energies, 1), [z])
    for found, wanted in zip(derivatives(rows.logsumexp(), [z]), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("n", "m", "dim"), [(1, 1, 1), (9, 1300, 5), (1000, 700, 130)])
def test_fused_attention_gives_the_same(tiled: Callable[..., None], n: int, m: int, dim: int) -> None:
    tiled(10**4)
    a, b = random(n, dim), random(m, dim, seed=1).detach()
    for energy in (Cosine(temperature=0.1), Cosine(temperature=0.01), Dot()):
        expected = derivatives(torch.logsumexp(-energy.cross(a, b), 1), [a])
        single = EnergyMatrix(energy, a.float(), b.float()).logsumexp()
        assert single.grad_fn.name() == "_AttentionBackward"
        for found, wanted in zip(derivatives(single, [a]), expected, strict=True):
            atol = 1e-5 * wanted.abs().max().item()
            torch.testing.assert_close(found.double(), wanted.double(), rtol=1e-5, atol=max(atol, 1e-12))


def test_safety_without_a_bound_is_read_off_the_factors() -> None:
    a, b = random(N, DIM), random(M, DIM, seed=1)
    energies = [SquaredEuclidean(), Dot(), Bilinear(dim=DIM).double(), Cosine(temperature=0.5, learnable=True)]
    for energy in energies:
        assert EnergyMatrix(energy, 0.1 * a, 0.1 * b)._safe()
    for energy in energies[:3]:
        largest = energy.cross(20 * a, 20 * b).abs().max()
        assert largest > reductions.SAFE and not EnergyMatrix(energy, 20 * a, 20 * b)._safe()


def test_minimum_pulls_only_on_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in ways(monkeypatch):
        a, b = random(N, DIM), random(M, DIM, seed=1)
        lowest = Cosine().cross(a, b).argmin(1)
        EnergyMatrix(Cosine(), a, b).minimum().sum().backward()
        assert (b.grad.abs().sum(1) > 0).nonzero().flatten().tolist() == sorted(set(lowest.tolist()))


def test_not_a_number_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    for energy in (Cosine(temperature=0.4), Cosine(temperature=0.01), Distance(), Distance(normalize=True)):
        for way in ways(monkeypatch):
            a, b = random(N, DIM), random(M, DIM, seed=1)
            with torch.no_grad():
                b[3] = torch.nan
            value = EnergyMatrix(energy, a, b, **SELECTIONS["different"].arguments).logsumexp()
            value.sum().backward()
            takes = ANCHOR_KEYS != CANDIDATE_KEYS[3]
            assert torch.equal(value.isnan(), takes), way
            assert a.grad[takes].isnan().any(1).all(), way


def test_function_without_a_derivative(tiled: Callable[..., None]) -> None:
    tiled()
    a, b, shift = random(N, DIM), random(M, DIM, seed=1), random(N)
    share = EnergyMatrix(Cosine(), a, b).mean(lambda e, s: (e < s).to(e.dtype), shift)
    torch.testing.assert_close(share, (Cosine().cross(a, b) < shift[:, None]).double().mean(1))
    share.sum().backward()
    assert (a.grad == 0).all() and (shift.grad == 0).all()


@pytest.mark.parametrize("tile", [1, 2, 13, 50])
@every_selection
def test_any_tile_gives_the_same(tiled: Callable[..., None], selection: Selection, tile: int) -> None:
    a, b = random(N, DIM), random(M, DIM, seed=1)
    expected = derivatives(EnergyMatrix(Cosine(temperature=0.1), a, b, **selection.arguments).logsumexp(), [a, b])
    tiled(tile)
    rows = EnergyMatrix(Cosine(temperature=0.1), a, b, **selection.arguments)
    assert_same(derivatives(rows.logsumexp(), [a, b]), expected, f"tile {tile}")


def test_inputs_that_are_not_contiguous(tiled: Callable[..., None]) -> None:
    a, b = random(DIM, N), random(2 * M, DIM, seed=1)
    expected = derivatives(EnergyMatrix(Cosine(temperature=0.1), a.T, b[::2]).logsumexp(), [a, b])
    tiled()
    assert_same(derivatives(EnergyMatrix(Cosine(temperature=0.1), a.T, b[::2]).logsumexp(), [a, b]), expected, "views")
    expected = derivatives(Dot().cross(a.T, b[::2]).square().mean(1), [a, b])
    assert_same(derivatives(EnergyMatrix(Dot(), a.T, b[::2]).mean(torch.square), [a, b]), expected, "views")


class LargestTensor(TorchDispatchMode):
    """Entries of the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, Tensor):
                self.largest = max(self.largest, x.untyped_storage().nbytes() // x.element_size())
        return result


MANY = 330
MANY_SELECTIONS = {
    "all": {},
    "images": {"keys": (torch.arange(MANY) // 3,) * 2},
    "images, same": {"keys": (torch.arange(MANY) // 3,) * 2, "same": True, "itself": torch.arange(MANY)},
    "classes": {"keys": (torch.arange(MANY) % 7,) * 2},
    "classes, same": {"keys": (torch.arange(MANY) % 7,) * 2, "same": True, "itself": torch.arange(MANY)},
    "a list": {"without": (torch.arange(MANY).repeat(2), torch.arange(2 * MANY) // 2)},
}


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("arguments", MANY_SELECTIONS.values(), ids=MANY_SELECTIONS)
@every_reduction
def test_the_matrix_is_never_held(
    tiled: Callable[..., None], reduction: Reduction, arguments: dict[str, Any], symmetric: bool
) -> None:
    tiled(60 * 60)
    z, shift, bias = random(MANY, DIM), random(MANY), random(seed=2)
    with LargestTensor() as made:
        rows = EnergyMatrix(Distance(), z, z, symmetric=symmetric, **arguments)
        reduction.of_rows(rows, shift, bias).sum().backward()
    assert 0 < made.largest <= 60 * 60


def test_matrix_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    cross = Cosine.cross
    monkeypatch.setattr(Cosine, "cross", lambda self, a, b: calls.append(1) or cross(self, a, b))
    rows = EnergyMatrix(Cosine(temperature=0.1), random(N, DIM), random(M, DIM, seed=1))
    for reduction in REDUCTIONS.values():
        reduction.of_rows(rows, random(N), random())
    assert len(calls) == 1


@every_reduction
def test_listed_rows_by_loops(reduction: Reduction) -> None:
    energies, shift, bias = random(11), random(5), random(seed=2)
    anchor = torch.tensor([3, 0, 0, 4, 3, 3, 0, 1, 3, 4, 0])  # none of 2
    rows = Listed(energies, anchor, 5)
    assert rows.count.tolist() == [4, 1, 0, 4, 2]
    table = [[energies[k] for k in range(11) if anchor[k] == i] for i in range(5)]
    expected = torch.stack(
        [
            reduction.of_row(torch.stack(row), shift[i], bias) if row else energies.new_full((), reduction.empty)
            for i, row in enumerate(table)
        ]
    )
    wanted = [energies, shift, bias]
    found = derivatives(reduction.of_rows(rows, shift, bias), wanted)
    assert_same(found, derivatives(expected, wanted), "listed")
    nothing = Listed(energies[:0], anchor[:0], 5)
    assert reduction.of_rows(nothing, shift, bias).tolist() == [reduction.empty] * 5


def test_paired_rows() -> None:
    energies = torch.tensor([[1.0, 3.0], [-2.0, 0.5]], dtype=torch.float64)
    rows, shift = Paired(energies), torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert rows.count.tolist() == [2, 2]
    assert rows.mean_energy().tolist() == [2.0, -0.75]
    assert rows.minimum().tolist() == [1.0, -2.0]
    torch.testing.assert_close(rows.logsumexp(), torch.exp(-energies).sum(1).log())
    assert rows.mean(lambda e, s: e * s, shift).tolist() == [2.0, -1.5]
    assert rows.mean(lambda e, s: e * s, shift[1]).tolist() == [4.0, -1.5]
    assert torch.equal(Paired(energies[:, :1]).logsumexp(), -energies[:, 0])


@every_reduction
def test_union(monkeypatch: pytest.MonkeyPatch, reduction: Reduction) -> None:
    z, shift, bias = random(M, DIM), random(M), random(seed=2)
    keys = (CANDIDATE_KEYS, CANDIDATE_KEYS)
    energy = Cosine(temperature=0.3)
    whole = by_loops(energy.cross(z, z), lambda i, j: i != j, reduction, shift, bias)
    expected = derivatives(whole, [z, shift, bias])
    for way in ways(monkeypatch):
        same = EnergyMatrix(energy, z, z, keys=keys, same=True, itself=IDENTITY, symmetric=True)
        different = EnergyMatrix(energy, z, z, keys=keys, symmetric=True)
        for rows in (same.union(different), different.union(same), Union(same, different)):
            assert rows.count.tolist() == [M - 1] * M
            assert_same(derivatives(reduction.of_rows(rows, shift, bias), [z, shift, bias]), expected, way, rtol=1e-11)
        one_pass = same.union(different)
        assert isinstance(one_pass, EnergyMatrix) and one_pass.keys is None and one_pass.symmetric


@every_reduction
def test_union_of_unlike_rows(reduction: Reduction) -> None:
    z, few, shift, bias = random(M, DIM), random(M, 2, seed=3), random(M), random(seed=2)
    energy, keys = Cosine(), (CANDIDATE_KEYS, CANDIDATE_KEYS)
    rows = EnergyMatrix(energy, z, z, keys=keys, same=True).union(Paired(few))
    assert isinstance(rows, Union)
    together = torch.cat([energy.cross(z, z), few], dim=1)
    expected = by_loops(
        together, lambda i, j: j >= M or bool(CANDIDATE_KEYS[i] == CANDIDATE_KEYS[j]), reduction, shift, bias
    )
    wanted = [z, few, shift, bias]
    assert_same(derivatives(reduction.of_rows(rows, shift, bias), wanted), derivatives(expected, wanted), "union")
    other = EnergyMatrix(energy, z, z + 0, keys=keys)
    assert isinstance(EnergyMatrix(energy, z, z, keys=keys, same=True).union(other), Union)


def test_contradictions_are_named() -> None:
    z, key = random(4, DIM), torch.arange(4)
    with pytest.raises(ValueError, match="same=True needs keys"):
        EnergyMatrix(Cosine(), z, z, same=True)
    with pytest.raises(ValueError, match="without and keys exclude each other"):
        EnergyMatrix(Cosine(), z, z, keys=(key, key), without=(key, key))
    with pytest.raises(ValueError, match="as many candidates as anchors, got 4 and 3"):
        EnergyMatrix(Cosine(), z, z[:3], symmetric=True)
    with pytest.raises(ValueError, match="needs a symmetric energy, got Bilinear"):
        EnergyMatrix(Bilinear(dim=DIM), z, z, symmetric=True)


def test_softplus() -> None:
    for dtype, tolerance in ((torch.float32, 3e-7), (torch.float64, 5e-16)):
        x = torch.linspace(-80, 80, 4001, dtype=dtype)
        expected = torch.log1p(torch.exp(-x.double().abs())) + x.double().clamp(min=0)
        torch.testing.assert_close(softplus(x).double(), expected, rtol=tolerance, atol=0)
    assert softplus(torch.tensor([torch.inf, -torch.inf, 0.0])).tolist()[:2] == [torch.inf, 0]
    x = random(7)
    assert torch.autograd.gradcheck(softplus, x) and torch.autograd.gradgradcheck(softplus, x)
