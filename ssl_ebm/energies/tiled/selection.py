"""Which candidates each anchor takes, and the tiles of the matrix that hold them.

Related pairs that are few, such as the views of an image, are listed one by one and the list is cut up by tile. Where
they are many, such as a class, samples are sorted by key: related pairs then lie along a band, so that most tiles
take everything or nothing, and few have to compare keys.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

LISTED = 8  # related pairs are listed one by one up to so many a sample


class Tile(NamedTuple):
    """One block of the matrix, in sorted order."""

    rows: slice
    columns: slice
    mirrored: bool  # it stands for its transpose below the diagonal too
    keys: tuple[Tensor, Tensor] | None  # of its rows and columns, where these decide
    same: bool
    holes: tuple[Tensor, Tensor] | None  # single pairs not taken, counted from the tile's corner

    @property
    def shape(self) -> tuple[int, int]:
        """Of the block."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def fill(self, x: Tensor, value: float) -> Tensor:
        """Overwrite the entries not taken."""
        if self.keys is not None:
            agree = self.keys[0][:, None] == self.keys[1]
            x.masked_fill_(~agree if self.same else agree, value)
        if self.holes is not None:
            x[self.holes] = value
        return x

    def cleared(self, x: Tensor) -> Tensor:
        """The same with 0 in place of the entries not taken; a row or column stands for all."""
        if self.keys is None and self.holes is None:
            return x
        return self.fill(x.expand(self.shape).clone(), 0.0)


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or torch.equal(a, b)


class PairMask:
    """Which of m candidates each of n anchors takes.

    Args:
        size: (n, m).
        keys: (key of each anchor, key of each candidate).
        same: Take the candidates whose key agrees, not those whose key differs.
        itself: Candidate that is the anchor itself, never taken.
        without: Pairs (anchors, candidates) not taken, in any order, repeated or not.
        symmetric: Anchors and candidates are the same samples in the same order, and their energy is symmetric; it is
            used where keys and pairs not taken are symmetric too.
    """

    def __init__(
        self,
        size: tuple[int, int],
        device: torch.device,
        *,
        keys: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None = None,
        same: bool = False,
        itself: Int[Tensor, " n"] | None = None,
        without: tuple[Int[Tensor, " p"], Int[Tensor, " p"]] | None = None,
        symmetric: bool = False,
    ) -> None:
        if keys is None and same:
            raise ValueError("same=True needs keys")
        if keys is not None and without is not None:
            raise ValueError("without and keys exclude each other: leave one out")
        if symmetric and size[0] != size[1]:
            raise ValueError(f"symmetric=True needs as many candidates as anchors, got {size[0]} and {size[1]}")
        self.size, self.device, self.keys, self.same, self.symmetric = size, device, keys, same, symmetric
        self.itself = itself if same or keys is None else None  # where keys differ it is not taken anyway
        self.without = without

    @cached_property
    def holes(self) -> tuple[Tensor, Tensor] | None:
        """Single pairs not taken, each once, by anchor and candidate."""
        lists = [] if self.without is None else [self.without]
        if self.itself is not None:
            lists.append((torch.arange(self.size[0], device=self.device), self.itself))
        if not lists:
            return None
        code = torch.unique(torch.cat([rows * self.size[1] + columns for rows, columns in lists]))
        return code // self.size[1], code % self.size[1]

    @property
    def whole(self) -> bool:
        """Whether every anchor takes every candidate."""
        return self.keys is None and self.holes is None

    @cached_property
    def groups(self) -> tuple[Tensor, Tensor, Tensor]:
        """Group of each candidate, group of each anchor's key (-1: no candidate has it), size of each group."""
        assert self.keys is not None
        keys, group, sizes = torch.unique(self.keys[1], return_inverse=True, return_counts=True)
        position = torch.searchsorted(keys, self.keys[0]).clamp(max=len(keys) - 1)
        return group, torch.where(keys[position] == self.keys[0], position, -1), sizes

    @cached_property
    def _agreeing(self) -> Int[Tensor, " n"]:
        """How many candidates have the anchor's key."""
        _, group, sizes = self.groups
        return torch.where(group >= 0, sizes[group], 0)

    @cached_property
    def count(self) -> Int[Tensor, " n"]:
        """How many candidates each anchor takes."""
        n, m = self.size
        if self.keys is not None and not self.same:
            return m - self._agreeing
        count = torch.full((n,), m, device=self.device) if self.keys is None else self._agreeing
        if self.holes is None:
            return count
        rows, columns = self.holes
        if self.keys is not None:
            rows = rows[self.keys[0][rows] == self.keys[1][columns]]
        return count - torch.bincount(rows, minlength=n)

    @cached_property
    def _related(self) -> tuple[Tensor, Tensor] | None:
        """All (anchors, candidates) whose keys agree, where these are few."""
        if self.keys is None:
            return None
        n, m = self.size
        sizes = self._agreeing
        total = int(sizes.sum())
        if total > LISTED * (n + m) or 4 * total > n * m:
            return None
        group, own, group_sizes = self.groups
        start = (group_sizes.cumsum(0) - group_sizes)[own] - (sizes.cumsum(0) - sizes)
        rows = torch.repeat_interleave(torch.arange(n, device=self.device), sizes)
        return rows, group.argsort()[start[rows] + torch.arange(total, device=self.device)]

    @cached_property
    def pairs(self) -> tuple[Tensor, Tensor] | None:
        """All (anchors, candidates) taken, where these are few."""
        if not self.same or self._related is None or self.itself is None:
            return self._related if self.same else None
        rows, columns = self._related
        other = columns != self.itself[rows]
        return rows[other], columns[other]

    @cached_property
    def orders(self) -> tuple[Tensor, Tensor] | None:
        """Anchors and candidates sorted by key where related pairs are many, or None: as they are."""
        if self.keys is None or self._related is not None:
            return None
        return self.keys[0].argsort(stable=True), self.keys[1].argsort(stable=True)

    @cached_property
    def halved(self) -> bool:
        """Whether the tiles above the diagonal stand for those below."""
        if not self.symmetric or (self.keys is not None and not _equal(*self.keys)):
            return False
        if self.holes is None:
            return True
        rows, columns = self.holes
        return torch.equal(rows * self.size[1] + columns, (columns * self.size[1] + rows).sort().values)

    def taken(self) -> Bool[Tensor, "n m"] | None:
        """The whole matrix of what is taken; None: everything."""
        if self.whole:
            return None
        if self.keys is None:
            taken = torch.ones(self.size, dtype=torch.bool, device=self.device)
        else:
            agree = self.keys[0][:, None] == self.keys[1]
            taken = agree if self.same else ~agree
        if self.holes is not None:
            taken[self.holes] = False
        return taken

    def tiles(self, rows: int, columns: int) -> list[Tile]:
        """The tiles of at most rows × columns that hold a pair taken, by `orders`; not where `pairs` do."""
        edges, first = self._grid(rows, columns)
        empty, mixed = self._relations(edges)
        holes = self._holes_by_tile(rows, columns, first, len(edges))
        a, b = (None, None) if self.orders is None else self._sorted_keys
        tiles = []
        for k, (i, i_end, j, j_end) in enumerate(edges):
            if not empty[k]:
                keys = (a[i:i_end], b[j:j_end]) if a is not None and b is not None and mixed[k] else None
                mirrored = self.halved and j > i
                tiles.append(Tile(slice(i, i_end), slice(j, j_end), mirrored, keys, self.same, holes.get(k)))
        return tiles

    def _grid(self, rows: int, columns: int) -> tuple[list[tuple[int, int, int, int]], list[int]]:
        """Edges of all tiles, and each row of tiles' first. Halved, it is a square on the diagonal."""
        n, m = self.size
        edges: list[tuple[int, int, int, int]] = []
        first = []
        for i in range(0, n, rows):
            end = min(i + rows, n)
            first.append(len(edges))
            if self.halved:
                edges.append((i, end, i, end))
            edges.extend((i, end, j, min(j + columns, m)) for j in range(end if self.halved else 0, m, columns))
        return edges, first

    @cached_property
    def _sorted_keys(self) -> tuple[Tensor, Tensor]:
        assert self.keys is not None and self.orders is not None
        return self.keys[0][self.orders[0]], self.keys[1][self.orders[1]]

    def _relations(self, edges: list[tuple[int, int, int, int]]) -> tuple[list[bool], list[bool]]:
        """Of each tile: whether it takes nothing, and whether keys have to be compared."""
        if self.orders is None or not edges:
            return [False] * len(edges), [False] * len(edges)
        a, b = self._sorted_keys
        i, i_end, j, j_end = torch.tensor(edges, device=self.device).unbind(1)
        lowest, highest = torch.stack([a[i], b[j]]), torch.stack([a[i_end - 1], b[j_end - 1]])
        apart = lowest.amax(0) > highest.amin(0)
        alike = lowest.amin(0) == highest.amax(0)
        return (apart if self.same else alike).tolist(), (~apart & ~alike).tolist()

    def _holes_by_tile(self, rows: int, columns: int, first: list[int], count: int) -> dict[int, tuple[Tensor, Tensor]]:
        """The pairs not taken of each tile that has some, counted from its corner."""
        holes = self.holes if self._related is None else self._related
        if holes is None or not count:
            return {}
        i, j = holes
        if self.orders is not None:
            i, j = (order.argsort()[x] for order, x in zip(self.orders, (i, j), strict=True))
        block = i // rows
        corner = block * rows
        tile = torch.tensor(first, device=self.device)[block]
        if self.halved:
            kept = j >= corner
            i, j, block, corner, tile = (x[kept] for x in (i, j, block, corner, tile))
            end = (corner + rows).clamp(max=self.size[0])
            right = j >= end
            tile = tile + torch.where(right, 1 + (j - end) // columns, 0)
            local = torch.where(right, (j - end) % columns, j - corner)
        else:
            tile, local = tile + j // columns, j % columns
        order = tile.argsort()
        sizes = torch.bincount(tile, minlength=count).tolist()
        pieces = zip((i - corner)[order].split(sizes), local[order].split(sizes), strict=True)
        return {k: piece for k, (size, piece) in enumerate(zip(sizes, pieces, strict=True)) if size}
