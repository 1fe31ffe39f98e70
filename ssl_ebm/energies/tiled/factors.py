"""The factors of a matrix of energies, -<f_i, g_j> + u_i + v_j before the link, read tile by tile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ssl_ebm.energies.tiled.tiles import Tile


class Factors(NamedTuple):
    """Both sides of the energy: vectors [n, k] and [m, k], offsets [n] and [m] or None: zero."""

    f: Tensor
    g: Tensor
    u: Tensor | None
    v: Tensor | None

    def tiles(self, tiles: Sequence[Tile], scale: float) -> Iterator[tuple[Tile, Tensor]]:
        """Each tile with scale · (-<f, g> + u + v), all in one buffer: the next overwrites it."""
        buffer = self.f.new_empty(max((rows * columns for rows, columns in (tile.shape for tile in tiles)), default=0))
        for tile in tiles:
            rows, columns = tile.shape
            x = buffer[: rows * columns].view(rows, columns)
            if self.v is not None:
                x.copy_(self.v[tile.columns].expand(rows, columns))
            x.addmm_(self.f[tile.rows], self.g[tile.columns].T, beta=0 if self.v is None else scale, alpha=-scale)
            if self.u is not None:
                x.add_(self.u[tile.rows, None], alpha=scale)
            yield tile, x


class Gradients:
    """Gradients of the factors that need one, summed over tiles."""

    def __init__(self, factors: Factors, needed: Sequence[bool]) -> None:
        self.factors = factors
        self.f, self.g, self.u, self.v = (
            torch.zeros_like(x) if x is not None and need else None for x, need in zip(factors, needed, strict=False)
        )

    def add(self, tile: Tile, gradient: Tensor) -> None:
        """Add what the gradient of a tile of -<f, g> + u + v gives."""
        if self.f is not None:
            self.f[tile.rows].addmm_(gradient, self.factors.g[tile.columns], alpha=-1)
        if self.g is not None:
            self.g[tile.columns].addmm_(gradient.T, self.factors.f[tile.rows], alpha=-1)
        if self.u is not None:
            self.u[tile.rows] += gradient.sum(1)
        if self.v is not None:
            self.v[tile.columns] += gradient.sum(0)
