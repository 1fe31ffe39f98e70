"""Which samples are compatible, and what a graph does to an objective."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from small import BANK, batch_for, gradients, random_adjacency, random_batch, small_objective, with_gradients
from torch import Tensor

from ssl_ebm.networks.embeddings import Embeddings
from ssl_ebm.objectives import create_objective
from ssl_ebm.objectives.parts.compatibility import GRAPHS, Adjacency, BatchNames, SameLabel

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def pairs(found: tuple[Tensor, Tensor]) -> list[tuple[int, int]]:
    return sorted(zip(*(x.tolist() for x in found), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_neighbours_by_brute_force(seed: int) -> None:
    graph, neighbours = random_adjacency(12, seed)
    generator = torch.Generator().manual_seed(100 + seed)
    anchors, candidates = (torch.randint(-1, 12, (n,), generator=generator) for n in (9, 17))  # repeated, and nobody
    expected = [
        (i, j)
        for i, a in enumerate(anchors.tolist())
        for j, b in enumerate(candidates.tolist())
        if a >= 0 and b in neighbours[a]
    ]
    assert pairs(graph(anchors, candidates)) == sorted(expected)


def test_neighbours_of_nobody_and_among_nobody() -> None:
    graph, _ = random_adjacency(12)
    nobody, somebody = torch.full((3,), -1), torch.arange(4)
    none = torch.zeros(0, dtype=torch.long)
    for anchors, candidates in ((nobody, somebody), (somebody, nobody), (none, somebody), (somebody, none)):
        assert pairs(graph(anchors, candidates)) == []


def test_samples_are_their_own_neighbours() -> None:
    graph = Adjacency(torch.tensor([0, 0, 2, 2]), torch.tensor([0, 1]))
    assert pairs(graph(torch.arange(3), torch.arange(3))) == [(0, 0), (1, 0), (1, 1), (2, 2)]
    assert graph.size == 3 and "samples=3, neighbours=1.3" in repr(graph)


def test_labels_agree() -> None:
    anchors, candidates = torch.tensor([0, 2, -1, 7]), torch.tensor([2, 0, 0, -1, 5])
    assert pairs(SameLabel()(anchors, candidates)) == [(0, 1), (0, 2), (1, 0)]


def test_samples_without_label_are_compatible_with_themselves_only() -> None:
    samples = BatchNames(SameLabel(), torch.tensor([3, -1, -1, 3]))
    assert samples.keys and torch.equal(samples.local, samples.everywhere)
    assert pairs(samples.graph(samples.local, samples.everywhere)) == [(0, 0), (0, 3), (1, 1), (2, 2), (3, 0), (3, 3)]
    batch = random_batch(images=4)
    unlabelled = Embeddings(projection=batch.projection, label=torch.tensor([-1, -1, -1, -1]))
    expected = small_objective("simclr")(batch).loss
    torch.testing.assert_close(small_objective("supcon")(unlabelled).loss, expected, **EXACT)
    moco = small_objective("moco_v2", queue_size=4, graph="labels").double()
    alone = Embeddings(projection=batch.projection, target=batch.target, label=unlabelled.label)
    for _ in range(2):  # nor with what the queue holds
        expected = small_objective("moco_v2", queue_size=4).double()
        expected.negatives.queue.vectors.copy_(moco.negatives.queue.vectors)
        torch.testing.assert_close(moco(alone).loss, expected(batch).loss, **EXACT)
    assert moco.negatives.queue.samples.tolist() == [-1] * 4


def test_adjacency_keeps_each_edge_once() -> None:
    graph, neighbours = random_adjacency(12)
    assert graph.indices.tolist() == [j for each in neighbours for j in sorted(each)]
    assert graph.indptr.diff().tolist() == [len(each) for each in neighbours]
    assert graph.state_dict() == {}  # it is made of the config's file
    assert all(buffer.is_meta for buffer in graph.to("meta").buffers())


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([0], [], "indptr must rise from 0 to the number of edges, 0"),
        ([1, 2], [0, 0], "indptr must rise from 0 to the number of edges, 2"),
        ([0, 2, 1], [0], "indptr must rise"),
        ([0, 1, 1], [0, 1], "indptr must rise from 0 to the number of edges, 2"),
        ([0, 1, 2], [0, 2], r"neighbours must be in \[0, 2\), got 0 to 2"),
        ([0, 1, 2], [-1, 1], r"neighbours must be in \[0, 2\), got -1 to 1"),
    ],
)
def test_rows_that_do_not_fit(indptr: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Adjacency(torch.tensor(indptr), torch.tensor(indices, dtype=torch.long))


@pytest.mark.parametrize("k", [1, 3, 11])
def test_nearest_neighbours_by_brute_force(k: int) -> None:
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    cosines = torch.nn.functional.normalize(features, dim=1) @ torch.nn.functional.normalize(features, dim=1).T
    cosines.fill_diagonal_(-2)
    expected = [{i, *row} for i, row in enumerate(cosines.topk(k).indices.tolist())]
    graph = Adjacency.nearest(features, k=k)
    assert [set(each.tolist()) for each in graph.indices.split(graph.indptr.diff().tolist())] == expected


def test_duplicates_have_k_neighbours_too() -> None:
    graph = Adjacency.nearest(torch.ones(9, 2), k=2)
    assert graph.indptr.diff().tolist() == [3] * 9  # themselves and two others


@pytest.mark.parametrize("k", [0, 12])
def test_number_of_neighbours_is_checked(k: int) -> None:
    with pytest.raises(ValueError, match=rf"k must be in \[1, 11\], the number of other samples, got {k}"):
        Adjacency.nearest(torch.randn(12, 3), k=k)


def test_files(tmp_path: Path) -> None:
    graph, _ = random_adjacency(12)

    def equal(name: str, file: Path, **arguments: Any) -> bool:
        other = GRAPHS[name](file=str(file), **arguments)
        return torch.equal(other.indptr, graph.indptr) and torch.equal(other.indices, graph.indices)

    matrix = scipy.sparse.csr_array(
        (np.ones(len(graph.indices)), graph.indices.numpy().astype(np.int32), graph.indptr.numpy()), shape=(12, 12)
    )
    scipy.sparse.save_npz(tmp_path / "scipy.npz", matrix)
    scipy.sparse.save_npz(tmp_path / "scipy_matrix.npz", scipy.sparse.csr_matrix(matrix), compressed=False)
    np.savez(tmp_path / "numpy.npz", indptr=graph.indptr.numpy(), indices=graph.indices.numpy())
    for file in ("scipy.npz", "scipy_matrix.npz", "numpy.npz"):
        assert equal("adjacency", tmp_path / file)
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    graph = Adjacency.nearest(features, k=2)
    np.save(tmp_path / "features.npy", features.double().numpy())
    assert equal("knn", tmp_path / "features.npy", k=2)
    neighbours = graph.indices.view(12, 3).numpy().astype(np.int16)
    np.save(tmp_path / "neighbours.npy", neighbours)
    assert equal("adjacency", tmp_path / "neighbours.npy")


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    scipy.sparse.save_npz(tmp_path / "columns.npz", scipy.sparse.csc_array(np.eye(3)))
    scipy.sparse.save_npz(tmp_path / "list.npz", scipy.sparse.coo_array(np.eye(3)))
    np.save(tmp_path / "vector.npy", np.arange(3))
    np.save(tmp_path / "objects.npy", np.array([None]), allow_pickle=True)
    (tmp_path / "empty.npy").write_bytes(b"")
    (tmp_path / "text.npz").write_text("1 2 3")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "columns.npz").read_bytes()[:-30])
    messages = {
        "columns.npz": r"columns.npz holds a matrix as csc: a graph needs its rows, save matrix.tocsr\(\)",
        "list.npz": r"list.npz holds .*: a graph needs indptr and indices \(CSR\)",
        "vector.npy": r"vector.npy must hold a matrix, got shape \(3,\)",
        "objects.npy": "objects.npy cannot be read: .*allow_pickle",
        "empty.npy": "empty.npy cannot be read",
        "text.npz": "text.npz cannot be read",
        "damaged.npz": "damaged.npz cannot be read",
        "missing.npy": "missing.npy cannot be read: .*No such file",
    }
    for file, message in messages.items():
        with pytest.raises(ValueError, match=message):
            GRAPHS["adjacency"](file=str(tmp_path / file))
    np.savez(tmp_path / "graph.npz", indptr=np.arange(3), indices=np.arange(2))
    with pytest.raises(ValueError, match="graph.npz must hold a matrix, got arrays indptr, indices"):
        GRAPHS["knn"](file=str(tmp_path / "graph.npz"))


def blocks(label: Tensor) -> Adjacency:
    """Compatible where the labels of the bank's samples agree."""
    agree = [(label == each).nonzero()[:, 0] for each in label]
    return Adjacency(torch.tensor([0, *(len(each) for each in agree)]).cumsum(0), torch.cat(agree))


def labelled(batch: Embeddings) -> tuple[Tensor, Embeddings]:
    """Labels for the whole bank, and the batch with those of its images."""
    label = torch.randint(3, (BANK,), generator=torch.Generator().manual_seed(9))
    return label, replace(batch, label=label[batch.index])


TAKES_GRAPHS = [
    *("simclr", "dcl", "triplet", "spectral", "siglip", "cpc", "jsd"),
    *("moco_v2", "moco_v3", "align_uniform", "byol"),
]


@pytest.mark.parametrize("name", TAKES_GRAPHS)
def test_blocks_are_labels(name: str) -> None:
    label, _ = labelled(random_batch())
    by_label, by_block = (small_objective(name).double() for _ in range(2))
    by_label = by_label.replace(graph=SameLabel())
    by_block = by_block.replace(graph=blocks(label))
    assert by_label.uses - by_block.uses == {"label"} and by_block.uses - by_label.uses == {"index"}
    for seed in range(3):
        batch = with_gradients(labelled(batch_for(by_label, seed, views=3))[1])
        one, other = by_label(batch), by_block(batch)
        torch.testing.assert_close(one.loss, other.loss, **EXACT)
        for term in one.terms:
            torch.testing.assert_close(one.terms[term], other.terms[term], **EXACT)
        wanted = [batch.projection, batch.prediction, *(p for p in by_label.parameters() if p.requires_grad)]
        theirs = [batch.projection, batch.prediction, *(p for p in by_block.parameters() if p.requires_grad)]
        for a, b in zip(gradients(one.loss, wanted), gradients(other.loss, theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", TAKES_GRAPHS)
def test_samples_alone_are_the_objective_without_a_graph(name: str) -> None:
    alone = Adjacency(torch.zeros(BANK + 1, dtype=torch.long), torch.zeros(0, dtype=torch.long))
    plain, graphed = small_objective(name).double(), small_objective(name).double().replace(graph=alone)
    for seed in range(3):
        batch = replace(batch_for(plain, seed, views=3), index=torch.arange(6) + 6 * seed)  # none is seen twice
        torch.testing.assert_close(graphed(batch).loss, plain(batch).loss, **EXACT)


def test_simclr_with_labels_is_supcon() -> None:
    batch = random_batch(views=3)
    simclr = small_objective("simclr", graph="labels")
    torch.testing.assert_close(simclr(batch).loss, small_objective("supcon")(batch).loss, **EXACT)
    assert simclr.by_label and simclr.uses == {"label"}


def test_spectral_loss_by_loops(tmp_path: Path) -> None:
    """Pairs of neighbours are pulled, all others' inner products are squared."""
    graph, neighbours = random_adjacency(BANK)
    np.savez(tmp_path / "graph.npz", indptr=graph.indptr.numpy(), indices=graph.indices.numpy())
    objective = create_objective("spectral", graph={"name": "adjacency", "file": str(tmp_path / "graph.npz")})
    batch = random_batch(images=7)
    z = batch.projection / batch.projection.norm(dim=-1, keepdim=True).clamp(min=1)
    losses = []
    for i, a in enumerate(batch.index.tolist()):
        products = {j: float(z[0, i] @ z[1, j]) for j in range(7)}
        pulled = [products[j] for j, b in enumerate(batch.index.tolist()) if b in neighbours[a]]
        pushed = [products[j] ** 2 for j, b in enumerate(batch.index.tolist()) if b not in neighbours[a]]
        losses.append(-2 * sum(pulled) / len(pulled) + sum(pushed) / len(pushed))
    torch.testing.assert_close(objective(batch).loss.item(), sum(losses) / 7, **EXACT)


def test_entries_of_neighbours_are_no_negatives() -> None:
    graph, neighbours = random_adjacency(BANK)
    objective = small_objective("moco_v2").double().replace(graph=graph)
    queue = objective.negatives.queue
    for seed in range(4):
        batch = random_batch(seed)
        names = batch.index.tolist()
        unit = torch.nn.functional.normalize
        a, b, entries = unit(batch.projection[0], dim=1), unit(batch.target[1], dim=1), queue.vectors.clone()
        losses = []
        for i, name in enumerate(names):
            positive = [-float(a[i] @ b[j]) / 0.2 for j, other in enumerate(names) if other in neighbours[name]]
            negative = [
                -float(a[i] @ entry) / 0.2
                for entry, other in zip(entries, queue.samples.tolist(), strict=True)
                if other not in neighbours[name]
            ]
            partition = torch.logsumexp(-torch.tensor([*positive, *negative]), 0)
            losses.append(sum(positive) / len(positive) + float(partition))
        torch.testing.assert_close(objective(batch).loss.item(), sum(losses) / 6, rtol=1e-6, atol=1e-6)
    assert queue.samples[:6].tolist() == names  # 24 were pushed into a ring of 9


def test_state_of_a_queue_that_names_its_entries() -> None:
    graph, _ = random_adjacency(BANK)
    original, resumed = (small_objective("moco_v2").double().replace(graph=graph) for _ in range(2))
    for seed in range(3):
        original(random_batch(seed))
    resumed.load_state_dict(original.state_dict())
    for seed in range(3, 6):
        batch = random_batch(seed)
        assert torch.equal(original(batch).loss, resumed(batch).loss)
    assert torch.equal(original.negatives.queue.samples, resumed.negatives.queue.samples)


def test_names_of_samples_are_asked_for() -> None:
    batch = random_batch()
    with pytest.raises(ValueError, match=r"a graph by index needs Embeddings\(index=\.\.\.\), got None"):
        small_objective("simclr").replace(graph=random_adjacency(BANK)[0])(Embeddings(projection=batch.projection))
    with pytest.raises(ValueError, match=r"a graph by label needs Embeddings\(label=\.\.\.\), got None"):
        small_objective("simclr", graph="labels")(Embeddings(projection=batch.projection))


@pytest.mark.parametrize("name", ["nce", "lejepa", "barlow_twins", "wmse"])
def test_objectives_without_such_pairs_take_no_graph(name: str) -> None:
    with pytest.raises(ValueError, match=r"graph"):
        small_objective(name).replace(graph=SameLabel())
