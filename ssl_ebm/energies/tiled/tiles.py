"""The tiles of a matrix of energies, and which of their entries are left out."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

Positions = tuple[Int[Tensor, " p"], Int[Tensor, " p"]]  # (rows, columns) of single entries


class Tile(NamedTuple):
    """One block of the matrix.

    Attributes:
        rows: The rows that it covers.
        columns: The columns that it covers.
        mirrored: True if it also stands for its transpose below the diagonal.
        keys: Keys of its rows and columns; None: keys decide nothing.
        takes_equal_keys: True if entries of equal keys are taken, False if those of different keys are.
        left_out: Positions of single entries that are left out, counted from the tile's corner.
    """

    rows: slice
    columns: slice
    mirrored: bool
    keys: tuple[Tensor, Tensor] | None
    takes_equal_keys: bool
    left_out: tuple[Tensor, Tensor] | None

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and of columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def fill(self, x: Tensor, value: float) -> Tensor:
        """Overwrite the entries left out with a value, in place."""
        if self.keys is not None:
            equal = self.keys[0][:, None] == self.keys[1]
            x.masked_fill_(~equal if self.takes_equal_keys else equal, value)
        if self.left_out is not None:
            x[self.left_out] = value
        return x

    def cleared(self, x: Tensor) -> Tensor:
        """The entries with 0 in place of those left out; a single row or column is repeated."""
        if self.keys is None and self.left_out is None:
            return x
        return self.fill(x.expand(self.shape).clone(), 0.0)


def lay_tiles(
    size: tuple[int, int],
    entries: int,
    *,
    keys: tuple[Int[Tensor, " n"], Int[Tensor, " m"]] | None,
    takes_equal_keys: bool,
    left_out: Positions,
    symmetric: bool,
) -> list[Tile]:
    """Tiles that cover an n × m matrix.

    Args:
        size: (n, m).
        entries: Largest number of entries of a tile.
        keys: Keys of rows and columns; None: keys decide nothing.
        takes_equal_keys: True if entries of equal keys are taken, False if those of different keys are.
        left_out: Positions of single entries that are left out.
        symmetric: True if tiles above the diagonal stand for those below it; tiles on the diagonal are square.
    """
    n, m = size
    side = math.isqrt(entries)
    side -= side % 64 if side > 64 else 0  # whole vector registers are a few per cent faster
    height = max(1, min(n, side))
    width = max(1, min(m, side if height == side else entries // height))
    edges: list[tuple[int, int, int, int]] = []
    first_of_band = []  # number of the first tile of each band of rows
    for top in range(0, n, height):
        bottom = min(top + height, n)
        first_of_band.append(len(edges))
        if symmetric:
            edges.append((top, bottom, top, bottom))
        edges += [(top, bottom, left, min(left + width, m)) for left in range(bottom if symmetric else 0, m, width)]
    left_out_of = _left_out_by_tile(left_out, height, width, first_of_band, len(edges), n if symmetric else None)
    return [
        Tile(
            slice(top, bottom),
            slice(left, right),
            symmetric and left > top,
            None if keys is None else (keys[0][top:bottom], keys[1][left:right]),
            takes_equal_keys,
            left_out_of.get(number),
        )
        for number, (top, bottom, left, right) in enumerate(edges)
    ]


def _left_out_by_tile(
    left_out: Positions, height: int, width: int, first_of_band: list[int], count: int, symmetric_size: int | None
) -> dict[int, tuple[Tensor, Tensor]]:
    """Positions of the entries left out, counted from the corner of their tile, by the number of the tile."""
    i, j = left_out
    if not count or not len(i):
        return {}
    band = i // height
    corner = band * height
    tile = torch.tensor(first_of_band, device=i.device)[band]
    if symmetric_size is None:
        tile, column = tile + j // width, j % width
    else:
        upper = j >= corner
        i, j, corner, tile = (x[upper] for x in (i, j, corner, tile))
        square_end = (corner + height).clamp(max=symmetric_size)
        beyond_square = j >= square_end
        tile = tile + torch.where(beyond_square, 1 + (j - square_end) // width, 0)
        column = torch.where(beyond_square, (j - square_end) % width, j - corner)
    order = tile.argsort()
    sizes = torch.bincount(tile, minlength=count).tolist()
    positions = zip((i - corner)[order].split(sizes), column[order].split(sizes), strict=True)
    return {number: part for number, (size, part) in enumerate(zip(sizes, positions, strict=True)) if size}
