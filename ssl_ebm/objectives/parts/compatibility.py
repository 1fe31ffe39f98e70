"""Which samples are compatible, where "two views of one image" is not the whole of it.

A graph on the training samples replaces the identity: the views of every two neighbours are positives and no negatives.
Samples are always their own neighbours. Spectral contrastive learning (arXiv 2106.04156) factorises such a graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ssl_ebm import distributed
from ssl_ebm.registry import unknown_name

Pairs = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]  # positions of compatible anchors and candidates


class Graph(nn.Module):
    """Compatibility of samples.

    Attributes:
        reads: The part of the embeddings that names a sample: its `index` in the data set, or its `label`.
        size: How many samples it knows; None: any.
    """

    reads: Literal["index", "label"]
    size: int | None = None

    def forward(self, anchors: Int[Tensor, " n"], candidates: Int[Tensor, " m"]) -> Pairs:
        """Positions (i, j) of all compatible anchors and candidates, given what names them (-1: nobody)."""
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
        """From k neighbours of every sample."""
        n, k = neighbours.shape
        return Adjacency(torch.arange(0, n * k + 1, k), neighbours.flatten())

    @staticmethod
    def nearest(features: Float[Tensor, "n dim"], *, k: int) -> Adjacency:
        """From the k nearest neighbours of every sample by cosine, exact."""
        if not 1 <= k < len(features):
            raise ValueError(f"k must be in [1, {len(features) - 1}], the number of other samples, got {k}")
        vectors = np.ascontiguousarray(features.cpu().float().numpy())
        faiss.normalize_L2(vectors)
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        found = torch.from_numpy(index.search(vectors, k + 1)[1])
        others = found != torch.arange(len(found))[:, None]
        others[:, -1] &= ~others.all(1)  # of more than k duplicates the sample itself may be left out
        return Adjacency.of_neighbours(found[others].view(-1, k))

    def forward(self, anchors: Int[Tensor, " n"], candidates: Int[Tensor, " m"]) -> Pairs:
        """Positions of neighbours, in time proportional to their number and not to n × m."""
        known = anchors.clamp(min=0)
        degrees = torch.where(anchors >= 0, self.indptr[known + 1] - self.indptr[known], 0)
        i, place = _segments(degrees)
        neighbours = self.indices[self.indptr[known[i]] + place]
        ordered, order = candidates.sort()
        first = torch.searchsorted(ordered, neighbours)
        found, place = _segments(torch.searchsorted(ordered, neighbours, right=True) - first)
        return i[found], order[first[found] + place]

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"samples={self.size}, neighbours={len(self.indices) / (self.size or 1):.1f}"


def _segments(lengths: Int[Tensor, " n"]) -> tuple[Int[Tensor, " total"], Int[Tensor, " total"]]:
    """For segments laid end to end: which one each place belongs to, and its number within."""
    segment = torch.repeat_interleave(torch.arange(len(lengths), device=lengths.device), lengths)
    starts = lengths.cumsum(0) - lengths
    return segment, torch.arange(len(segment), device=lengths.device) - starts[segment]


class BatchNames:
    """A graph, and what names the samples of one batch on this rank and on all.

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


def create_graph(name: str, *, file: str | None = None, k: int = 10) -> Graph:
    """A graph as a config names it.

    - `labels`: samples of one class.
    - `adjacency`: `file` is a sparse matrix as `scipy.sparse.save_npz` writes it (CSR; what it stores is compatible, of
      whatever weight), or a .npy of neighbours [n, k].
    - `knn`: `file` is a .npy of features [n, dim]; the `k` nearest by cosine.

    Rows are numbered as the training images are: training split, then validation split.

    Raises:
        ValueError: Unknown name, or a file that cannot be had or does not fit.
    """
    if name == "labels":
        if file is not None:
            raise ValueError(f"graph 'labels' reads the data's labels and no file, got file={file}: leave it out")
        return SameLabel()
    if name not in ("adjacency", "knn"):
        raise ValueError(unknown_name("graph", name, ["labels", "adjacency", "knn"]))
    if file is None:
        raise ValueError(f"graph {name!r} needs file=PATH")
    loaded = _read(file)
    if isinstance(loaded, Mapping):
        if not {"indptr", "indices"} <= set(loaded):
            raise ValueError(f"{file} holds {', '.join(loaded)}: a graph needs indptr and indices (CSR)")
        kind = str(np.asarray(loaded.get("format", "csr")).astype(str))
        if kind != "csr":
            raise ValueError(f"{file} holds a matrix as {kind}: a graph needs its rows, save matrix.tocsr()")
        return Adjacency(
            *(torch.from_numpy(np.asarray(loaded[part]).astype(np.int64)) for part in ("indptr", "indices"))
        )
    if loaded.ndim != 2:
        raise ValueError(f"{file} must hold a matrix, got shape {loaded.shape}")
    if name == "knn":
        return Adjacency.nearest(torch.from_numpy(loaded), k=k)
    return Adjacency.of_neighbours(torch.from_numpy(loaded.astype(np.int64)))


def _read(file: str) -> Any:
    try:
        with Path(file).open("rb") as stream:
            loaded = np.load(stream, allow_pickle=False)
            return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"graph file {file} cannot be read: {str(error).splitlines()[0]}") from error
