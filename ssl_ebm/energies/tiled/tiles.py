"""The tiles of a matrix of energies, and which of their entries are not taken."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

Positions = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]  # of rows and columns


class Tile(NamedTuple):
    """One block of the matrix."""

    rows: slice
    columns: slice
    mirrored: bool  # it stands for its transpose below the diagonal too
    keys: tuple[Tensor, Tensor] | None  # of its rows and columns, where these decide
    same: bool  # whether entries of equal keys are taken, or those of different keys
    holes: tuple[Tensor, Tensor] | None  # single entries not taken, counted from the tile's corner

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


def lay_tiles(
    size: tuple[int, int],
    entries: int,
    *,
    keys: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None,
    same: bool,
    holes: Positions,
    symmetric: bool,
) -> list[Tile]:
    """Tiles that cover an n × m matrix.

    Args:
        size: (n, m).
        entries: Of a tile at most.
        keys: Of rows and columns, where these decide which entries are taken.
        same: Take the entries of equal keys, not those of different ones.
        holes: Single entries not taken.
        symmetric: The tiles above the diagonal stand for those below; those on it are square.
    """
    n, m = size
    side = math.isqrt(entries)
    side -= side % 64 if side > 64 else 0  # whole vector registers: a few per cent
    height = max(1, min(n, side))
    width = max(1, min(m, side if height == side else entries // height))
    edges: list[tuple[int, int, int, int]] = []
    first = []  # tile of each band of rows
    for top in range(0, n, height):
        bottom = min(top + height, n)
        first.append(len(edges))
        if symmetric:
            edges.append((top, bottom, top, bottom))
        edges += [(top, bottom, left, min(left + width, m)) for left in range(bottom if symmetric else 0, m, width)]
    holes_of = _holes_by_tile(holes, height, width, first, len(edges), n if symmetric else None)
    return [
        Tile(
            slice(top, bottom),
            slice(left, right),
            symmetric and left > top,
            None if keys is None else (keys[0][top:bottom], keys[1][left:right]),
            same,
            holes_of.get(place),
        )
        for place, (top, bottom, left, right) in enumerate(edges)
    ]


def _holes_by_tile(
    holes: Positions, height: int, width: int, first: list[int], count: int, symmetric_size: int | None
) -> dict[int, tuple[Tensor, Tensor]]:
    """The entries not taken of each tile that has some, counted from its corner."""
    i, j = holes
    if not count or not len(i):
        return {}
    band = i // height
    corner = band * height
    tile = torch.tensor(first, device=i.device)[band]
    if symmetric_size is None:
        tile, column = tile + j // width, j % width
    else:
        upper = j >= corner
        i, j, corner, tile = (x[upper] for x in (i, j, corner, tile))
        end = (corner + height).clamp(max=symmetric_size)
        right = j >= end
        tile = tile + torch.where(right, 1 + (j - end) // width, 0)
        column = torch.where(right, (j - end) % width, j - corner)
    order = tile.argsort()
    sizes = torch.bincount(tile, minlength=count).tolist()
    pieces = zip((i - corner)[order].split(sizes), column[order].split(sizes), strict=True)
    return {place: piece for place, (size, piece) in enumerate(zip(sizes, pieces, strict=True)) if size}
