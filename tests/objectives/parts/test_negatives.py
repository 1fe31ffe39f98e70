"""Which samples are an anchor's positives and negatives, by enumeration."""

from collections.abc import Sequence

import pytest
import torch
from small import BANK, DIM, random_adjacency, random_batch, small_objective
from torch import Tensor

from ssl_ebm.energies import rows as module
from ssl_ebm.energies.pairwise import Bilinear, Cosine, Distance, Energy
from ssl_ebm.energies.rows import Comparison, Rows
from ssl_ebm.objectives.parts.compatibility import BatchNames, SameLabel
from ssl_ebm.objectives.parts.memory import Memory, MemoryNegatives
from ssl_ebm.objectives.parts.negatives import BatchNegatives, Negatives, QueueNegatives

IMAGES = 6
LABEL = torch.tensor([0, 1, 1, 2, 0, 1])
GRAPH, NEIGHBOURS = random_adjacency(IMAGES, seed=2)
KINDS = ["views", "labels", "graph"]
Place = tuple[int, int]  # view and image


def compatible(kind: str, i: int, j: int) -> bool:
    if kind == "labels":
        return bool(LABEL[i] == LABEL[j])
    return j in NEIGHBOURS[i] if kind == "graph" else i == j


def samples(kind: str) -> BatchNames | None:
    return {"views": None, "labels": BatchNames(SameLabel(), LABEL), "graph": BatchNames(GRAPH, torch.arange(IMAGES))}[
        kind
    ]


def rows_of(comparisons: list[Comparison], energy: Energy) -> list[tuple[Rows, Rows | None]]:
    return [comparison.rows(energy) for comparison in comparisons]


def ordered(views: int, targets: int) -> list[tuple[int, int]]:
    return [(a, b) for a in range(views) for b in range(targets) if a != b]


def check(
    rows: Sequence[Rows | None],
    expected: Sequence[Sequence[Place]],
    energy: Energy,
    a: Tensor,
    b: Tensor,
    anchor: list[Place],
) -> None:
    """All rows, one after another, are the energies of these anchors with these candidates."""
    count = torch.cat([row.count for row in rows])
    assert count.tolist() == [len(each) for each in expected]
    found = torch.cat([row.mean_energy() for row in rows]), torch.cat([row.logsumexp() for row in rows])
    for k, (place, candidates) in enumerate(zip(anchor, expected, strict=True)):
        energies = torch.stack([energy.paired(a[place][None], b[other][None])[0] for other in candidates])
        torch.testing.assert_close(found[0][k], energies.mean(), rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(found[1][k], torch.logsumexp(-energies, 0), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("same", [True, False], ids=["itself", "teacher"])
@pytest.mark.parametrize(("views", "targets"), [(2, 2), (3, 3), (4, 2)])
@pytest.mark.parametrize(
    "energy",
    [
        Cosine(temperature=0.3),
        pytest.param(Distance(), marks=pytest.mark.slow),
        pytest.param(Bilinear(dim=DIM).double(), marks=pytest.mark.slow),
    ],
    ids=repr,
)
def test_batch_of_all_views(
    energy: Energy, views: int, targets: int, same: bool, kind: str, tiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tiled:
        monkeypatch.setattr(module, "MAX_DENSE_ENTRIES", 0)
        monkeypatch.setattr(module, "MAX_DENSE_LOGSUMEXP_ENTRIES", 0)
        monkeypatch.setattr(module, "CHUNK_ENTRIES", 16)
    if same and views != targets:
        return
    batch = random_batch(views=views, images=IMAGES, global_views=targets)
    a, b = batch.projection, batch.projection if same else batch.target
    compared = rows_of(BatchNegatives(views="all")(a, b, ordered(views, targets), samples(kind)), energy)
    anchor = [(v, i) for v in range(views) for i in range(IMAGES)]
    every = [(w, j) for w in range(targets) for j in range(IMAGES)]
    positive = [[(w, j) for w, j in every if compatible(kind, i, j) and (w, j) != (v, i)] for v, i in anchor]
    if kind == "views":
        positive = [[(w, i) for w in range(targets) if w != v] for v, i in anchor]
    negative = [[(w, j) for w, j in every if not compatible(kind, i, j)] for _, i in anchor]
    check([row for row, _ in compared], positive, energy, a, b, anchor)
    check([row for _, row in compared], negative, energy, a, b, anchor)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("views", "targets"), [(2, 2), (3, 3), (4, 2)])
@pytest.mark.parametrize("pairing", ["both", "first"])
def test_batch_of_the_other_view(pairing: str, views: int, targets: int, kind: str) -> None:
    batch, energy = random_batch(views=views, images=IMAGES, global_views=targets), Cosine(temperature=0.3)
    a, b = batch.projection, batch.target
    pairs = [(v, w) for v, w in ordered(views, targets) if pairing == "both" or v == 0]
    compared = rows_of(BatchNegatives(views="other")(a, b, pairs, samples(kind)), energy)
    anchor = [(v, i) for v, _ in pairs for i in range(IMAGES)]
    each = [(w, i) for _, w in pairs for i in range(IMAGES)]
    positive = [[(w, j) for j in range(IMAGES) if compatible(kind, i, j)] for w, i in each]
    negative = [[(w, j) for j in range(IMAGES) if not compatible(kind, i, j)] for w, i in each]
    check([row for row, _ in compared], positive, energy, a, b, anchor)
    check([row for _, row in compared], negative, energy, a, b, anchor)


@pytest.mark.parametrize("kind", KINDS)
def test_only_positives(kind: str) -> None:
    batch, energy = random_batch(views=3, images=IMAGES), Cosine(temperature=0.3)
    pairs = ordered(3, 3)
    compared = rows_of(Negatives()(batch.projection, batch.target, pairs, samples(kind)), energy)
    anchor = [(v, i) for v, _ in pairs for i in range(IMAGES)]
    positive = [[(w, j) for j in range(IMAGES) if compatible(kind, i, j)] for _, w in pairs for i in range(IMAGES)]
    check([row for row, _ in compared], positive, energy, batch.projection, batch.target, anchor)
    assert all(row is None for _, row in compared)


@pytest.mark.parametrize("kind", KINDS)
def test_queue(kind: str) -> None:
    """Entries of compatible samples are left out where a graph names them."""
    energy, pairs = Cosine(temperature=0.3), [(0, 1), (0, 2)]
    negatives = QueueNegatives(size=9, dim=DIM).double()
    names = torch.tensor([0, 1, 2, 3, 4, 5, -1, -1, -1])
    if kind != "views":
        negatives.queue.remember_samples()
        earlier = random_batch(7, images=IMAGES).projection[0]
        negatives.queue.push(earlier, LABEL if kind == "labels" else torch.arange(IMAGES))
    batch = random_batch(views=3, images=IMAGES)
    queue = negatives.queue.vectors.clone()
    compared = rows_of(negatives(batch.projection, batch.target, pairs, samples(kind)), energy)
    anchor = [(0, i) for _ in pairs for i in range(IMAGES)]
    positive = [[(w, j) for j in range(IMAGES) if compatible(kind, i, j)] for _, w in pairs for i in range(IMAGES)]
    left = [
        [k for k, j in enumerate(names.tolist()) if kind != "views" and j >= 0 and compatible(kind, i, j)]
        for _, i in anchor
    ]
    negative = [[(0, k) for k in range(9) if k not in out] for out in left]
    check([row for row, _ in compared], positive, energy, batch.projection, batch.target, anchor)
    check([row for _, row in compared], negative, energy, batch.projection, queue[None], anchor)


def test_memory_draws_for_all_anchors_alike() -> None:
    memory = Memory(size=BANK, dim=DIM).double()
    negatives, energy = MemoryNegatives(memory, draws=7), Cosine(temperature=0.3)
    batch = random_batch(images=IMAGES)
    drawn = torch.randint(BANK, (7,), generator=negatives.draws.eval().generator()).tolist()
    pairs = [(0, 0), (1, 1)]
    compared = rows_of(negatives(batch.projection, memory(batch), pairs, None), energy)
    anchor = [(v, i) for v in range(2) for i in range(IMAGES)]
    check([row for row, _ in compared], [[place] for place in anchor], energy, batch.projection, memory(batch), anchor)
    expected = [[(0, k) for k in drawn] for _ in anchor]
    check([row for _, row in compared], expected, energy, batch.projection, memory.vectors[None], anchor)


def test_noise_is_drawn_anew_in_training() -> None:
    objective, batch = small_objective("nce"), random_batch()
    objective.eval()
    assert torch.equal(objective(batch).loss, objective(batch).loss)
    draws = [torch.randint(100, (9,), generator=objective.negatives.draws.generator()) for _ in range(2)]
    assert torch.equal(*draws)
    objective.train()
    draws = [torch.randint(100, (9,), generator=objective.negatives.draws.generator()) for _ in range(2)]
    assert not torch.equal(*draws)


def test_state_is_owned_once() -> None:
    """The target owns the memory that negatives are drawn from."""
    names = set(small_objective("nce").state_dict())
    assert {name for name in names if "vectors" in name} == {"target.vectors"}


def test_mistakes_name_the_argument() -> None:
    with pytest.raises(ValueError, match="views must be 'all' or 'other', got 'some'"):
        BatchNegatives(views="some")
    with pytest.raises(ValueError, match="draws must be >= 1, got 0"):
        MemoryNegatives(Memory(size=3, dim=2), draws=0)
    assert "size=5" in repr(QueueNegatives(size=5, dim=2)) and "views='all'" in repr(BatchNegatives())
