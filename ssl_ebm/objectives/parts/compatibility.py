"""Which samples are compatible, where "two views of one image" is not the whole of it.

A graph on the training samples replaces the identity: the views of every two neighbours are positives and no negatives.
Samples are always their own neighbours. Spectral contrastive learning (arXiv 2106.04156) factorises such a graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_ebm import distributed

Pairs = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]  # positions of compatible anchors and candidates


class Graph(nn.Module):
    """A relation between samples: which pairs of them are compatible.

    Attributes:
        reads: The part of the embeddings that names a sample: its `index` in the data set, or its `label`.
        size: How many samples it knows; None: any.
    """

    reads: Literal["index", "label"]
    size: int | None = None

    def forward(self, anchors: Int[Tensor, " n"], candidates: Int[Tensor, " m"]) -> Pairs:
        """Positions (i, j) of all compatible anchors and candidates, from their names (-1: nobody's)."""
        raise NotImplementedError


class SameLabel(Graph):
    """Samples of one class are compatible: supervised pairs (SupCon, arXiv 2004.11362)."""

    reads = "label"

    def forward(self, anchors: Int[Tensor, " n"], candidates: Int[Tensor, " m"]) -> Pairs:
        """Positions of equal labels."""
        i, j = ((anchors[:, None] == candidates) & (candidates != -1)).nonzero(as_tuple=True)
        return i, j


class Adjacency(Graph):
    """Neighbours of every sample, as compressed sparse rows: sample s has `indices[indptr[s] : indptr[s + 1]]`.

    Directed: a positive of one anchor need not have it as its own. Self-loops are added.

    Raises:
        ValueError: The rows do not fit each other.
    """

    reads = "index"
    indptr: Tensor
    indices: Tensor

    def __init__(self, indptr: Int[Tensor, " rows"], indices: Int[Tensor, " edges"]) -> None:
        super().__init__()
        self.size = size = len(indptr) - 1
        degrees = indptr.diff()
        if size < 1 or int(indptr[0]) != 0 or int(indptr[-1]) != len(indices) or bool((degrees < 0).any()):
            raise ValueError(f"indptr must rise from 0 to the number of edges, {len(indices)}")
        if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < size:
            raise ValueError(f"neighbours must be in [0, {size}), got {int(indices.min())} to {int(indices.max())}")
        rows = torch.arange(size)
        edges = torch.cat([torch.repeat_interleave(rows, degrees) * size + indices, rows * size + rows]).unique()
        counts = torch.bincount(edges // size, minlength=size)
        self.register_buffer("indptr", torch.cat([counts.new_zeros(1), counts.cumsum(0)]), persistent=False)
        self.register_buffer("indices", edges % size, persistent=False)

    @staticmethod
    def of_neighbours(neighbours: Int[Tensor, "n k"]) -> Adjacency:
        """The graph of k neighbours of every sample."""
        n, k = neighbours.shape
        return Adjacency(torch.arange(0, n * k + 1, k), neighbours.flatten())

    @staticmethod
    def nearest(features: Float[Tensor, "n dim"], *, k: int) -> Adjacency:
        """The graph of the k nearest neighbours of every sample by cosine, exact."""
        if not 1 <= k < len(features):
            raise ValueError(f"k must be in [1, {len(features) - 1}], the number of other samples, got {k}")
        vectors = np.ascontiguousarray(features.cpu().float().numpy())
        faiss.normalize_L2(vectors)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        neighbours = torch.from_numpy(index.search(vectors, k + 1)[1])
        others = neighbours != torch.arange(len(neighbours))[:, None]
        others[:, -1] &= ~others.all(1)  # of more than k duplicates the sample itself may be left out
        return Adjacency.of_neighbours(neighbours[others].view(-1, k))

    def forward(self, anchors: Int[Tensor, " n"], candidates: Int[Tensor, " m"]) -> Pairs:
        """Positions of neighbours, in time proportional to their number and not to n × m."""
        rows = anchors.clamp(min=0)
        degrees = torch.where(anchors >= 0, self.indptr[rows + 1] - self.indptr[rows], 0)
        i, place = _segments(degrees)
        neighbours = self.indices[self.indptr[rows[i]] + place]
        ordered, order = candidates.sort()
        first = torch.searchsorted(ordered, neighbours)
        edge, place = _segments(torch.searchsorted(ordered, neighbours, right=True) - first)
        return i[edge], order[first[edge] + place]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"samples={self.size}, neighbours={len(self.indices) / (self.size or 1):.1f}"


def _segments(lengths: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """The segment that each place belongs to, and its number within it, for segments laid end to end."""
    segment = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    starts = lengths.cumsum(0) - lengths
    return segment, torch.arange(len(segment), device=lengths.device) - starts[segment]


class BatchNames:
    """The names of one batch's samples under a graph: indices in the data set, or labels.

    Samples without a label (-1) are each a class of their own, named -2, -3, ...

    Attributes:
        local: Of this rank's images.
        everywhere: Of all ranks' images.
        keys: Whether compatible means equal names: then they serve as keys, and no list of pairs is needed.
    """

    def __init__(self, graph: Graph, names: Int[Tensor, " n"]) -> None:
        self.graph, self.everywhere = graph, distributed.gather(names)
        self.keys = isinstance(graph, SameLabel)
        if self.keys:
            place = torch.arange(len(self.everywhere), device=names.device)
            self.everywhere = torch.where(self.everywhere < 0, -2 - place, self.everywhere)
        first = distributed.rank() * len(names)
        self.local = self.everywhere[first : first + len(names)]


def adjacency_of_file(*, file: str) -> Adjacency:
    """The graph that a file stores: a sparse matrix or a list of neighbours.

    Args:
        file: A sparse matrix as `scipy.sparse.save_npz` writes it (CSR; what it stores is compatible, of whatever
            weight), or a .npy of neighbours [n, k]. Rows are numbered as the training images are: training split, then
            validation split.

    Raises:
        ValueError: The file cannot be read or does not fit.
    """
    loaded = _read(file)
    if not isinstance(loaded, Mapping):
        return Adjacency.of_neighbours(torch.from_numpy(_matrix(loaded, file).astype(np.int64)))
    if not {"indptr", "indices"} <= set(loaded):
        raise ValueError(f"{file} holds {', '.join(loaded)}: a graph needs indptr and indices (CSR)")
    layout = str(np.asarray(loaded.get("format", "csr")).astype(str))
    if layout != "csr":
        raise ValueError(f"{file} holds a matrix as {layout}: a graph needs its rows, save matrix.tocsr()")
    indptr, indices = (torch.from_numpy(np.asarray(loaded[part]).astype(np.int64)) for part in ("indptr", "indices"))
    return Adjacency(indptr, indices)


def nearest_of_file(*, file: str, k: int = 10) -> Adjacency:
    """The graph of the `k` nearest neighbours by cosine, from features in a file.

    Args:
        file: A .npy of features [n, dim]; rows as in `adjacency_of_file`.
        k: Neighbours of every sample.

    Raises:
        ValueError: The file cannot be read or does not fit.
    """
    return Adjacency.nearest(torch.from_numpy(_matrix(_read(file), file)), k=k)


GRAPHS: dict[str, Callable[..., Graph]] = {
    "labels": SameLabel,
    "adjacency": adjacency_of_file,
    "knn": nearest_of_file,
}


def _read(file: str) -> Any:
    try:
        with Path(file).open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"graph file {file} cannot be read: {str(error).splitlines()[0]}") from error


def _matrix(loaded: Any, file: str) -> np.ndarray:
    if isinstance(loaded, Mapping) or loaded.ndim != 2:
        holds = f"arrays {', '.join(loaded)}" if isinstance(loaded, Mapping) else f"shape {loaded.shape}"
        raise ValueError(f"{file} must hold a matrix, got {holds}")
    return loaded
