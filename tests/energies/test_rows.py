import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_ebm.energies import rows as module
from ssl_ebm.energies.pairwise import (
    Bilinear,
    Cosine,
    Distance,
    Dot,
    Energy,
    InverseMultiquadratic,
    Side,
    SquaredEuclidean,
)
from ssl_ebm.energies.rows import EnergyMatrix, Listed, Paired, Pairs, Rows, SameKey
from ssl_ebm.energies.tiled import kernels

N, M, DIM = 9, 13, 5
ANCHOR_KEYS = torch.tensor([0, 1, 2, 0, 1, 2, 7, 5, 9])  # nobody has 7
CANDIDATE_KEYS = torch.tensor([0, 2, 1, 1, 0, 2, 2, 0, 1, 5, 2, 9, 2])  # 5 and 9 once
ITSELF = torch.tensor([0, 2, 1, 4, 3, 5, 12, 9, 11])
WITHOUT = torch.tensor([[5, 0, 5, 8, 0, 2, *[6] * M], [1, 12, 3, 8, 0, 2, *range(M)]])  # in no order


@dataclasses.dataclass(frozen=True)
class Selection:
    """Which candidates an anchor takes: as keyword arguments, and as a predicate."""

    arguments: dict[str, Any]
    takes: Callable[[int, int], bool]


def _left(i: int, j: int) -> bool:
    return [i, j] in WITHOUT.T.tolist()


KEY = SameKey(ANCHOR_KEYS, CANDIDATE_KEYS)
KEY_OF_ITSELF = SameKey(CANDIDATE_KEYS[ITSELF], CANDIDATE_KEYS)
SELECTIONS = {
    "all": Selection({}, lambda i, j: True),
    "different": Selection({"excluded": KEY}, lambda i, j: bool(ANCHOR_KEYS[i] != CANDIDATE_KEYS[j])),
    "same": Selection({"only": KEY}, lambda i, j: bool(ANCHOR_KEYS[i] == CANDIDATE_KEYS[j])),
    "same, without itself": Selection(
        {"only": KEY_OF_ITSELF, "excluded": Pairs(torch.arange(N), ITSELF)},
        lambda i, j: bool(CANDIDATE_KEYS[ITSELF[i]] == CANDIDATE_KEYS[j]) and j != int(ITSELF[i]),
    ),
    "same, without a list": Selection(
        {"only": KEY, "excluded": Pairs(*WITHOUT)},
        lambda i, j: bool(ANCHOR_KEYS[i] == CANDIDATE_KEYS[j]) and not _left(i, j),
    ),
    "without itself": Selection({"excluded": Pairs(torch.arange(N), ITSELF)}, lambda i, j: j != int(ITSELF[i])),
    "without a list": Selection({"excluded": Pairs(*WITHOUT)}, lambda i, j: not _left(i, j)),
    "none of all": Selection({"excluded": SameKey(torch.zeros(N).long(), torch.zeros(M).long())}, lambda i, j: False),
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
        lambda rows, shift, bias: rows.mean(lambda e, b: F.softplus(b - e), bias),
        lambda e, s, b: F.softplus(b - e).mean(),
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


class Manhattan(Energy):
    """|a - b|₁: no inner product, as an energy that somebody brings may be."""

    factorises = False

    def paired(self, a: Tensor, b: Tensor) -> Tensor:
        return (a - b).abs().sum(1)

    def cross(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.cdist(a, b, p=1)


BUILDS: dict[str, Callable[[], Energy]] = {
    "cosine": lambda: Cosine(temperature=0.2),
    "cosine, learnable": lambda: Cosine(temperature=0.3, learnable=True).double(),
    "cosine, τ .01": lambda: Cosine(temperature=0.01),  # beyond what exp takes without a shift
    "squared": lambda: SquaredEuclidean(scale=0.5),
    "bilinear": bilinear,
    "distance": Distance,
    "inverse multiquadratic": lambda: InverseMultiquadratic(scale=0.8, learnable=True).double(),
    "no inner product": Manhattan,
}


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def ways(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """At once, and by chunks and tiles of awkward sizes."""
    for dense, chunk in ((10**6, 1), (0, 6), (0, 20), (0, 999)):
        monkeypatch.setattr(module, "MAX_DENSE_ENTRIES", dense)
        monkeypatch.setattr(module, "MAX_DENSE_LOGSUMEXP_ENTRIES", dense)
        monkeypatch.setattr(module, "CHUNK_ENTRIES", chunk)
        yield f"dense {dense}, chunk {chunk}"


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def use(chunk: int = 6) -> None:
        monkeypatch.setattr(module, "MAX_DENSE_ENTRIES", 0)
        monkeypatch.setattr(module, "MAX_DENSE_LOGSUMEXP_ENTRIES", 0)
        monkeypatch.setattr(module, "CHUNK_ENTRIES", chunk)

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


def grid(first: Iterable[str], second: Iterable[str]) -> list[Any]:
    """Both with every reduction; by default such that every two of the three meet, the rest are slow."""
    return [
        pytest.param(one, other, reduction, marks=() if (i + j) % len(REDUCTIONS) == k else pytest.mark.slow)
        for i, one in enumerate(first)
        for j, other in enumerate(second)
        for k, reduction in enumerate(REDUCTIONS)
    ]


@pytest.mark.parametrize(("energy_name", "selection_name", "reduction_name"), grid(BUILDS, SELECTIONS))
def test_values_and_gradients_by_loops(
    monkeypatch: pytest.MonkeyPatch, energy_name: str, selection_name: str, reduction_name: str
) -> None:
    build, selection, reduction = BUILDS[energy_name], SELECTIONS[selection_name], REDUCTIONS[reduction_name]
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
ITSELF_OF_ALL = Pairs(IDENTITY, IDENTITY)
OWN_KEY = SameKey(CANDIDATE_KEYS, CANDIDATE_KEYS)
SYMMETRIC: dict[str, dict[str, Any]] = {
    "all": {},
    "itself": {"excluded": ITSELF_OF_ALL},
    "different": {"excluded": OWN_KEY},
    "same": {"only": OWN_KEY},
    "same, without itself": {"only": OWN_KEY, "excluded": ITSELF_OF_ALL},
    "a symmetric list": {"excluded": Pairs(torch.tensor([3, 1, 12, 0, 5]), torch.tensor([1, 3, 0, 12, 5]))},
}


HALVED = ("cosine, learnable", "cosine, τ .01", "squared", "inverse multiquadratic")


@pytest.mark.parametrize(("name", "arguments_name", "reduction_name"), grid(HALVED, SYMMETRIC))
def test_half_the_tiles_give_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, arguments_name: str, reduction_name: str
) -> None:
    arguments, reduction = SYMMETRIC[arguments_name], REDUCTIONS[reduction_name]
    energy, z, shift, bias = BUILDS[name](), random(M, DIM), random(M), random(seed=2)
    wanted = [z, shift, bias, *energy.parameters()]
    expected = derivatives(reduction.of_rows(EnergyMatrix(energy, z, z, **arguments), shift, bias), wanted)
    for way in ways(monkeypatch):
        rows = EnergyMatrix(energy, z, z, symmetric=True, **arguments)
        assert_same(derivatives(reduction.of_rows(rows, shift, bias), wanted), expected, way, rtol=1e-11)


def test_half_the_tiles_are_half_the_work(tiled: Callable[..., None]) -> None:
    tiled(16)
    z = random(40, DIM)
    assert len(EnergyMatrix(Cosine(), z, z)._tiles) == 100
    assert len(EnergyMatrix(Cosine(), z, z, symmetric=True)._tiles) == 55


def test_promise_of_symmetry_is_not_used_for_a_gradient_on_one_side(tiled: Callable[..., None]) -> None:
    tiled()
    z = random(M, DIM)
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
    rows = EnergyMatrix(Dot(), z, z, excluded=ITSELF_OF_ALL, symmetric=symmetric)
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
        assert kernels._safe(EnergyMatrix(energy, 0.1 * a, 0.1 * b)._factors, energy.bound)
    for energy in energies[:3]:
        largest = energy.cross(20 * a, 20 * b).abs().max()
        assert largest > kernels.SAFE_ENERGY and not kernels._safe(EnergyMatrix(energy, 20 * a, 20 * b)._factors, None)


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
IMAGES, CLASSES, EACH = torch.arange(MANY) // 3, torch.arange(MANY) % 7, torch.arange(MANY)
MANY_SELECTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "images": {"excluded": SameKey(IMAGES, IMAGES)},
    "classes": {"excluded": SameKey(CLASSES, CLASSES)},
    "classes, same": {"only": SameKey(CLASSES, CLASSES), "excluded": Pairs(EACH, EACH)},
    "a list": {"excluded": Pairs(EACH, EACH.flip(0))},
}


LARGE = {"symmetric": Cosine, "linear": Cosine, "link": Distance, "no inner product": Manhattan}


@pytest.mark.parametrize(("kind", "selection_name", "reduction_name"), grid(LARGE, MANY_SELECTIONS))
def test_the_matrix_is_never_held(
    tiled: Callable[..., None], kind: str, selection_name: str, reduction_name: str
) -> None:
    tiled(60 * 60)
    z, shift, bias = random(MANY, DIM), random(MANY), random(seed=2)
    with LargestTensor() as made:
        rows = EnergyMatrix(LARGE[kind](), z, z, symmetric=kind == "symmetric", **MANY_SELECTIONS[selection_name])
        REDUCTIONS[reduction_name].of_rows(rows, shift, bias).sum().backward()
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


def test_log_sum_of_both_parts_is_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    z, energy = random(M, DIM), Cosine(temperature=0.3)
    expected = derivatives(torch.logsumexp(-energy.cross(z, z).masked_fill(torch.eye(M) == 1, torch.inf), 1), [z])
    for way in ways(monkeypatch):
        same = EnergyMatrix(energy, z, z, only=OWN_KEY, excluded=ITSELF_OF_ALL, symmetric=True)
        different = EnergyMatrix(energy, z, z, excluded=OWN_KEY, symmetric=True)
        assert_same(derivatives(same.logsumexp_with(different), [z]), expected, way, rtol=1e-11)
        assert_same(derivatives(different.logsumexp_with(same), [z]), expected, way, rtol=1e-11)  # two passes
    calls = []
    monkeypatch.setattr(Cosine, "cross", lambda self, a, b: calls.append(1) or Energy.cross(self, a, b))
    monkeypatch.setattr(module, "MAX_DENSE_ENTRIES", 10**6)
    monkeypatch.setattr(module, "MAX_DENSE_LOGSUMEXP_ENTRIES", 10**6)
    same.logsumexp_with(different)
    assert len(calls) == 1


def test_log_sum_of_unlike_rows() -> None:
    z, few = random(M, DIM), random(M, 2, seed=3)
    rows = EnergyMatrix(Cosine(), z, z, only=OWN_KEY)
    energies = Cosine().cross(z, z).masked_fill(CANDIDATE_KEYS[:, None] != CANDIDATE_KEYS, torch.inf)
    expected = torch.logsumexp(-torch.cat([energies, few], dim=1), 1)
    found = derivatives(rows.logsumexp_with(Paired(few)), [z, few])
    assert_same(found, derivatives(expected, [z, few]), "both")


def test_what_an_energy_must_say_of_itself() -> None:
    with pytest.raises(TypeError, match="Linked has a link: set linear = False"):

        class Linked(Energy):
            def factor(self, x: Tensor, side: Side) -> Any:
                return x, None

            def link(self, raw: Tensor) -> Tensor:
                return raw.exp()

    with pytest.raises(TypeError, match="Nothing has no factor: give one, or paired, cross and factorises = False"):

        class Nothing(Energy):
            pass

    with pytest.raises(TypeError, match="Manhattan is no inner product"):
        Manhattan().factor(random(N, DIM), "anchor")
